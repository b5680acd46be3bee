"""report.html: one self-contained page over a run, worst image first.

Style and script are inlined from the files beside this one; every name that came from outside is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ad_dinov3.report.overlay import colour_table

_HERE = Path(__file__).parent
_BINS = 50
MAX_PICTURES = 500
"""Images shown with a picture; the rest is a table, so that the page stays below about 15 MB."""
MAX_ROWS = 5000
"""Images in the table; the rest is in results.csv."""


@dataclass(frozen=True)
class Note:
    """One region in words ("scratch-like, upper right"), with its area in px and its peak in [0, 1]."""

    words: str
    area_px: int
    peak: float


@dataclass(frozen=True)
class Entry:
    """One scored image as the page shows it.

    Attributes:
        name: the image's name in the run.
        class_name: what the prompts called the product.
        score: image score in [0, 1].
        notes: the strongest regions, strongest first.
        region_count: number of all regions.
        width: the image's width in px.
        height: the image's height in px.
        link: relative URL of the full-size overlay, None if there is none.
        photo: JPEG in base64, None for an entry of the table.
        patch_map: 8-bit grey PNG in base64, 255 = 1, None for an entry of the table.
        truth: a line on what is known to be right, None if nothing is.
    """

    name: str
    class_name: str
    score: float
    notes: tuple[Note, ...]
    region_count: int
    width: int
    height: int
    link: str | None = None
    photo: str | None = None
    patch_map: str | None = None
    truth: str | None = None

    @property
    def parts(self) -> tuple[str, str]:
        """The name's folder and file."""
        folder, _, file = self.name.rpartition("/")
        return folder, file


@dataclass(frozen=True)
class Report:
    """All that the page says.

    Attributes:
        title: the page's heading.
        threshold: where the slider starts, in [0, 1].
        entries: worst first.
        failures: (name, reason) of images that could not be done.
        scores: scores of all images, for the histogram and the counts, those beyond ``entries`` included.
        facts: (label, value) pairs on the run: model, date, time taken.
        command: what decides anew with another threshold, without it; empty: none is offered.
    """

    title: str
    threshold: float
    entries: Sequence[Entry]
    failures: Sequence[tuple[str, str]]
    scores: Sequence[float]
    facts: Sequence[tuple[str, str]]
    command: str = ""


def render_report(report: Report) -> str:
    """The page as HTML text that needs nothing beside it."""
    scores = sorted(round(score, 4) for score in report.scores)
    data = {"colours": colour_table().tolist(), "threshold": report.threshold, "scores": scores, "bins": _BINS}
    values = {
        "report": report,
        "cards": [entry for entry in report.entries if entry.photo],
        "rows": [entry for entry in report.entries if not entry.photo],
        "unlisted": len(report.scores) - len(report.entries),
        "anomalous": sum(score >= report.threshold for score in report.scores),
        "gradient": _gradient(),
        "script": Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        "data": Markup(json.dumps(data, separators=(",", ":"))),
    }
    return render(_HERE, "page.html.j2", values)


def render(folder: Path, template: str, values: Mapping[str, object]) -> str:
    """A template of a folder with its values filled in, escaped, and with the pages' common look as ``style``."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(values, style=style)


def _gradient() -> str:
    """The colour table as CSS colour stops."""
    return ",".join(f"rgb({red} {green} {blue})" for red, green, blue in colour_table()[::15].tolist())
