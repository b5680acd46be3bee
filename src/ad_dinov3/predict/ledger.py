"""results.jsonl: one row per image, and the memory of what earlier runs have done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.infer.decide import Region, describe_region
from ad_dinov3.predict.drive import Failure, Scored
from ad_dinov3.predict.journal import Journal

Decision = Literal["anomalous", "normal", "failed"]
MapFormat = Literal["tiff", "png16", "none"]


@dataclass(frozen=True)
class Outputs:
    """Which files each image gets, and their names below the output folder.

    A name is the image's own, suffix included, plus a suffix: ``x.png`` and ``x.jpg`` never meet.
    """

    overlays: bool = True
    masks: bool = True
    maps: MapFormat = "tiff"

    def overlay(self, image: str) -> str | None:
        """Name of the overlay, None if there is none."""
        return f"overlays/{image}.jpg" if self.overlays else None

    def mask(self, image: str) -> str | None:
        """Name of the mask, None if there is none."""
        return f"masks/{image}.png" if self.masks else None

    def map(self, image: str) -> str | None:
        """Name of the anomaly map, None if there is none."""
        suffix = {"tiff": ".tiff", "png16": ".png", "none": None}[self.maps]
        return f"maps/{image}{suffix}" if suffix else None


@dataclass(frozen=True)
class Row:
    """One image's line in results.jsonl.

    Attributes:
        image: the image's name in this run, unique, relative.
        path: the file.
        decision: what came out; ``failed`` rows have an ``error`` and no score.
        score: image score in [0, 1].
        threshold: from which a score or map value counts as anomalous.
        class_name: what the prompts called the product.
        width: the image's width in px.
        height: the image's height in px.
        anomalous_area_px: pixels in regions.
        regions: highest peak first.
        seconds: from the file to the decision.
        overlay: file below the output folder.
        map: file below the output folder.
        mask: file below the output folder.
        error: why there is no result.
        key: digest of the file's version and the run's settings; equal keys need no second run.
    """

    image: str
    path: str
    decision: Decision
    score: float | None = None
    threshold: float | None = None
    class_name: str = ""
    width: int = 0
    height: int = 0
    anomalous_area_px: int = 0
    regions: tuple[Region, ...] = ()
    seconds: float = 0.0
    overlay: str | None = None
    map: str | None = None
    mask: str | None = None
    error: str | None = None
    key: str = ""


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of a finished run, in natural order of the names, one at a time."""
    row = TypeAdapter(Row)
    with (folder / "results.jsonl").open("rb") as lines:
        yield from map(row.validate_json, lines)


def describe_findings(row: Row) -> str:
    """The strongest region of a row in words, and how many more there are; "nothing" without regions."""
    if not row.regions:
        return "nothing"
    found = describe_region(row.regions[0], (row.height, row.width), row.threshold or 0.0)
    return found + (f", and {len(row.regions) - 1} more" if len(row.regions) > 1 else "")


def digest(*parts: object) -> str:
    """A short hex digest of values by their JSON form."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


class Ledger:
    """The sink of rows.

    Args:
        folder: the output folder; rows go to its results.jsonl.
        run_key: digest of all but the image that decides a result: model, threshold, class.
        outputs: which files each image gets.

    Raises:
        DataError: there is a results.jsonl of another kind.
    """

    def __init__(self, folder: Path, run_key: str, outputs: Outputs) -> None:
        self._folder = folder
        self._run_key = run_key
        self._outputs = outputs
        self._journal = Journal(folder / "results.jsonl", Row)

    def is_done(self, item: ImageFile) -> bool:
        """Whether an earlier run with these settings has finished this very file and its outputs are still there."""
        row = self._journal.get(item.name)
        if row is None or row.key != self._key(item):
            return False
        wanted = (self._outputs.overlay(item.name), self._outputs.map(item.name), self._outputs.mask(item.name))
        return all((self._folder / name).is_file() for name in wanted if name)

    def write(self, scored: Scored) -> None:
        """Append the row of a result."""
        prediction, item = scored.prediction, scored.item
        height, width = prediction.size
        self._journal.append(
            Row(
                image=item.name,
                path=str(item.path),
                decision="anomalous" if prediction.is_anomalous else "normal",
                score=round(prediction.score, 6),
                threshold=prediction.threshold,
                class_name=prediction.class_name,
                width=width,
                height=height,
                anomalous_area_px=sum(region.area_px for region in prediction.regions),
                regions=tuple(prediction.regions),
                seconds=round(scored.seconds, 4),
                overlay=self._outputs.overlay(item.name),
                map=self._outputs.map(item.name),
                mask=self._outputs.mask(item.name),
                key=self._key(item),
            )
        )

    def fail(self, failure: Failure) -> None:
        """Append the row of an image that could not be done; the next run tries it again."""
        item = failure.item
        self._journal.append(Row(image=item.name, path=str(item.path), decision="failed", error=failure.reason))

    def rows(self) -> Iterator[Row]:
        """The last row of each image in natural order of the names, one at a time; also after ``close``."""
        return iter(self._journal)

    def close(self) -> None:
        """Tidy results.jsonl: one row per image, in natural order of the names."""
        self._journal.close()

    def _key(self, item: ImageFile) -> str:
        try:
            stat = item.path.stat()
        except OSError:
            return ""
        return digest(item.name, stat.st_size, stat.st_mtime_ns, self._run_key)
