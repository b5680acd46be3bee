"""The report over all rows of an output folder, and the small pictures that it shows."""

from __future__ import annotations

import base64
import heapq
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.levels import without_equal_channels
from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import Region, position_words, shape_word
from ad_dinov3.predict.journal import Journal
from ad_dinov3.predict.results import Row, by_folder_names
from ad_dinov3.predict.store import Parts
from ad_dinov3.predict.types import Failure, Result
from ad_dinov3.report.page import MAX_PICTURES, MAX_ROWS, Entry, Note, Report, render_report

_NOTES = 5
_THUMBNAIL_PX = 320
_THUMBNAIL_QUALITY = 78
_MAP_SIDE = 96  # patches; a larger patch map is shrunk for the report


@dataclass(frozen=True)
class Thumbnail:
    """What the report shows of an image.

    Attributes:
        image: the image's name in this run.
        photo: JPEG in base64, longer side at most 320 px.
        patch_map: 8-bit grey PNG in base64, the anomaly map on the patch grid, 255 = 1.
    """

    image: str
    photo: str
    patch_map: str


class ThumbnailSink:
    """Keeps a thumbnail of each image in ``.thumbnails.jsonl``, so that a report over several runs has all of them."""

    def __init__(self, folder: Path, parts: Parts | None = None) -> None:
        self._journal = Journal(folder / ".thumbnails.jsonl", Thumbnail, parts)

    def write(self, result: Result) -> None:
        """Keep one image's thumbnail, unless an earlier run has kept it of the same map."""
        scored = result.scored
        if not (scored.is_stored and self._journal.get(scored.item.name)):
            self.append(make_thumbnail(scored.item.name, scored.picture, scored.raw.patch_map))

    def append(self, thumbnail: Thumbnail) -> None:
        """Keep a thumbnail that was made elsewhere."""
        self._journal.append(thumbnail)

    def fail(self, failure: Failure) -> None:
        """A failed image has no picture."""

    def get(self, image: str) -> Thumbnail | None:
        """The thumbnail of an image, if there is one."""
        return self._journal.get(image)

    def close(self) -> None:
        """Drop replaced thumbnails."""
        self._journal.close()


class WorstRows:
    """Tells which rows may be among the worst that a report shows, so that other pictures need not be kept."""

    def __init__(self) -> None:
        self._worst: list[tuple[float, float, int]] = []

    def see(self, row: Row) -> bool:
        """Whether a row is among the worst so far."""
        if row.decision == "failed":
            return False
        score, peak, area = _worst_first(row)
        rank = (-score, -peak, -area)
        if len(self._worst) < MAX_PICTURES:
            heapq.heappush(self._worst, rank)
            return True
        return heapq.heappushpop(self._worst, rank) < rank


def make_thumbnail(name: str, image: NDArray[np.uint8], patch_map: NDArray[np.float32]) -> Thumbnail:
    """Shrink an image (H, W, 3), or (H, W), to 320 px and a map (h, w) in [0, 1] to 8 bit and 96 patches a side."""
    photo = Image.fromarray(without_equal_channels(image))
    photo.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    levels = Image.fromarray(np.rint(patch_map * 255).astype(np.uint8))
    levels.thumbnail((_MAP_SIDE, _MAP_SIDE), Image.Resampling.BOX)
    return Thumbnail(name, _base64(photo, "JPEG"), _base64(levels, "PNG"))


def _base64(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=_THUMBNAIL_QUALITY)  # PNG has no quality and ignores it
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class ReportText:
    """What the report says beside the images.

    Attributes:
        title: the heading.
        threshold: where its slider starts.
        facts: (label, value) pairs on the model.
        truth: a line on what is known to be right of an image, None if nothing is; without it, folder names tell.
        again: the command that decides on the images of rows anew, but for its threshold; without it none is shown.
    """

    title: str
    threshold: float
    facts: Sequence[tuple[str, str]]
    truth: Callable[[Row], str | None] | None = None
    again: Callable[[Iterable[Row]], str] | None = None


class ReportSink:
    """Writes report.html over all rows, those of earlier runs included.

    Args:
        folder: the output folder.
        rows: gives the rows, once the sink of rows is closed.
        thumbnail: the picture of an image by its name.
        text: heading and facts.
    """

    def __init__(
        self,
        folder: Path,
        rows: Callable[[], Iterator[Row]],
        thumbnail: Callable[[str], Thumbnail | None],
        text: ReportText,
    ) -> None:
        self._path = folder / "report.html"
        self._rows = rows
        self._thumbnail = thumbnail
        self._text = text
        self._started = time.perf_counter()
        self._written = 0

    def write(self, result: Result) -> None:
        """Count the image; the report is written at the end."""
        self._written += 1

    def fail(self, failure: Failure) -> None:
        """The report is written at the end."""

    def close(self) -> None:
        """Write the report."""
        facts = [*self._text.facts, ("Date", datetime.now().astimezone().strftime("%d %B %Y, %H:%M"))]
        if self._written:
            seconds = time.perf_counter() - self._started
            speed = f"{self._written / seconds:.1f} per second"
            count = f"{self._written:,} image{'' if self._written == 1 else 's'}"
            facts.append(("Last run", f"{count} in {seconds:.1f} s, {speed}"))
        if self._text.truth is None and (counts := by_folder_names(self._rows())):
            facts.append(("By folder names", str(counts)))
        write_report(self._path, self._rows, self._thumbnail, replace(self._text, facts=facts))


def write_report(
    path: Path, rows: Callable[[], Iterator[Row]], thumbnail: Callable[[str], Thumbnail | None], text: ReportText
) -> None:
    """Write report.html over all rows, worst first; pictures for the worst 500, a table for the next 5000.

    Args:
        path: the file.
        rows: gives the rows anew at each call; they are never held all at once.
        thumbnail: the picture of an image by its name.
        text: heading and facts.
    """
    scores = [row.score for row in rows() if row.score is not None]
    failures = [(row.image, row.error or "") for row in rows() if row.decision == "failed"]
    scored = (row for row in rows() if row.score is not None)
    worst = heapq.nsmallest(MAX_PICTURES + MAX_ROWS, scored, key=_worst_first)
    pictures = [_entry(row, thumbnail(row.image), text) for row in worst[:MAX_PICTURES]]
    others = [_entry(row, None, text) for row in worst[MAX_PICTURES:]]
    command = text.again(rows()) if text.again else ""
    page = render_report(Report(text.title, text.threshold, pictures + others, failures, scores, text.facts, command))
    write_text(path, page)


def _worst_first(row: Row) -> tuple[float, float, int]:
    peak = row.regions[0].peak if row.regions else 0.0
    return -(row.score or 0.0), -peak, -row.anomalous_area_px


def _entry(row: Row, picture: Thumbnail | None, text: ReportText) -> Entry:
    return Entry(
        name=row.image,
        class_name=row.class_name,
        score=row.score or 0.0,
        notes=tuple(_note(region, (row.height, row.width)) for region in row.regions[:_NOTES]),
        region_count=len(row.regions),
        width=row.width,
        height=row.height,
        link=quote(row.overlay) if row.overlay else None,
        photo=picture.photo if picture else None,
        patch_map=picture.patch_map if picture else None,
        truth=" · ".join(filter(None, (text.truth(row) if text.truth else None, _rarity(row)))) or None,
    )


def _rarity(row: Row) -> str | None:
    return None if row.p_value is None else f"1 good image in {round(1 / row.p_value)} looks as strange"


def _note(region: Region, size: tuple[int, int]) -> Note:
    words = f"{shape_word(region, size)}, {position_words(region.centroid, size)}"
    return Note(words, region.area_px, region.peak)
