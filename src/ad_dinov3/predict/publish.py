"""The pictures and tables over a whole run, made from its ledger when the images are done."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import Region, position_words, shape_word
from ad_dinov3.predict.ledger import Row
from ad_dinov3.predict.sinks import Thumbnail
from ad_dinov3.report.page import MAX_PICTURES, MAX_ROWS, Entry, Note, Report, render_report

_NOTES = 5


@dataclass(frozen=True)
class ReportText:
    """What the report says beside the images.

    Attributes:
        title: the heading.
        threshold: where its slider starts.
        facts: (label, value) pairs on the run.
        truth: a line on what is known to be right of an image, None if nothing is.
    """

    title: str
    threshold: float
    facts: Sequence[tuple[str, str]]
    truth: Callable[[Row], str | None] = lambda row: None


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
    page = render_report(Report(text.title, text.threshold, pictures + others, failures, scores, text.facts))
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
        truth=text.truth(row),
    )


def _note(region: Region, size: tuple[int, int]) -> Note:
    words = f"{shape_word(region, size)}, {position_words(region.centroid, size)}"
    return Note(words, region.area_px, region.peak)
