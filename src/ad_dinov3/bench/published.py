"""Published figures, each with the table it is from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ad_dinov3.bench.metric_table import METRICS
from ad_dinov3.errors import DataError

_LABELS = {"method", "source", "backbone", "note", "sees_others"}


@dataclass(frozen=True)
class Published:
    """What one source says of one method.

    Attributes:
        method: the method's name as its authors write it.
        backbone: encoder and input size, where the source says so.
        source: title of the table or file.
        where: its place.
        note: what a reader should know before comparing.
        sees_others: the method looks at normal images or at the other test images.
        values: (data set, metric) -> value in [0, 1].
    """

    method: str
    backbone: str
    source: str
    where: str
    note: str
    values: dict[tuple[str, str], float]
    sees_others: bool = False

    @property
    def label(self) -> str:
        """The method with its backbone."""
        return f"{self.method} ({self.backbone})" if self.backbone else self.method


@cache
def published_results() -> tuple[Published, ...]:
    """All results of published.toml, in its order.

    Raises:
        DataError: an entry names an unknown source or metric.
    """
    tree = tomllib.loads(files("ad_dinov3.bench").joinpath("published.toml").read_text(encoding="utf-8"))
    return tuple(_read(entry, tree["sources"]) for entry in tree["results"])


def _read(entry: dict[str, object], sources: dict[str, dict[str, str]]) -> Published:
    source = sources.get(str(entry["source"]))
    if source is None:
        raise DataError(f"published.toml: {entry['method']} names the unknown source {entry['source']}")
    values = {}
    for data, cells in entry.items():
        if data in _LABELS or not isinstance(cells, dict):
            continue
        for metric, percent in cells.items():
            if metric not in METRICS or not 0 <= percent <= 100:
                raise DataError(f"published.toml: {entry['method']} on {data}: {metric} = {percent} is no metric in %")
            values[data, metric] = percent / 100
    return Published(
        str(entry["method"]),
        str(entry.get("backbone", "")),
        source["title"],
        source["where"],
        str(entry.get("note", "")),
        values,
        bool(entry.get("sees_others", False)),
    )
