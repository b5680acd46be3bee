"""Rows of runs and published figures side by side: who is best where, by how much, and what may not be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ad_dinov3.bench.metric_table import METRICS, Metric
from ad_dinov3.bench.published import Published
from ad_dinov3.bench.rows import MetricRow, Scope
from ad_dinov3.errors import ConfigError, DataError

PAPER = "AD-DINOv3"


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Attributes:
        value: in [0, 1]; None where undefined.
        low: lower end of its interval, if there is one.
        high: upper end.
        difference: value minus the reference line's, if both are there.
        rank: 1 for the best of its column, 2 for the second best, else 0.
        unranked: published of a method that looks at other images; it stands beside single-image ones without a rank.
        seen: of data that the model has seen; such a figure has no rank and no difference, and is nobody's reference.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    rank: int = 0
    seen: bool = False
    unranked: bool = False


@dataclass(frozen=True)
class Line:
    """One method's figures.

    Attributes:
        label: the method and what tells it from other lines.
        origin: ``measured`` here or ``published``.
        source: the table a published line is from, or the protocol of a measured one.
        cells: one per column; None where there is no figure.
    """

    label: str
    origin: Literal["measured", "published"]
    source: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Section:
    """The lines of one metric; the columns are data sets, or classes."""

    metric: Metric
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Board:
    """All sections, the reference of the differences, and what a reader must be warned of."""

    sections: tuple[Section, ...]
    reference: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Entry:
    label: str
    origin: Literal["measured", "published"]
    source: str
    cells: dict[tuple[str, str], Cell]
    note: str = ""


def make_board(
    rows: Sequence[MetricRow],
    published: Iterable[Published] = (),
    *,
    metrics: Sequence[str] = tuple(METRICS),
    scope: Scope = "mean",
    against: str | None = None,
) -> Board:
    """Tables of the rows' figures, with published ones of the same data sets below.

    Args:
        rows: of any number of runs.
        published: figures to set beside them; those of other data sets are left out.
        metrics: which, in this order; a metric without any row is left out.
        scope: means over classes, pooled sets, or single classes (which have no published figures here).
        against: beginning of the label of the line that differences refer to; None: the paper's line where its data
            sets are measured, else the first.

    Raises:
        DataError: there are no rows of the scope.
        ConfigError: no line is called ``against``.
    """
    chosen = [row for row in rows if row.scope == scope and row.metric in metrics]
    if not chosen:
        raise DataError(f"no rows of scope {scope} to compare; `ad-dinov3 evaluate --out DIR` writes rows")
    entries = _measured(chosen)
    columns = list(dict.fromkeys(_column(row) for row in chosen))
    beside = [p for p in published if scope == "mean" and any(data in columns for data, _ in p.values)]
    entries += [_from_published(p) for p in beside]
    reference = _reference(entries, against)
    sections = [_section(metric, columns, entries, reference) for metric in metrics]
    return Board(
        tuple(section for section in sections if section is not None),
        reference.label,
        (*find_conflicts(chosen), *_seen_data(chosen)),
        tuple(dict.fromkeys(f"{entry.label}: {entry.note}" for entry in entries if entry.note)),
    )


def find_conflicts(rows: Sequence[MetricRow]) -> list[str]:
    """Why some of the figures may not be compared: other protocols, other images under one name."""
    found: dict[str, list[str]] = {}
    for data in dict.fromkeys(row.data for row in rows):
        here = [row for row in rows if row.data == data]
        protocols = {row.protocol_hash: row.protocol for row in here}
        if len(protocols) > 1:
            named = ", ".join(f"{name} ({digest})" for digest, name in sorted(protocols.items()))
            found.setdefault(f"measured by different protocols, not comparable: {named}", []).append(data)
        images = {row.data_hash: row.images for row in here}
        if len(images) > 1:
            named = ", ".join(f"{count} images ({digest})" for digest, count in sorted(images.items()))
            found.setdefault(f"measured on different images or masks, not comparable: {named}", []).append(data)
    return [f"{', '.join(sets)}: {warning}" for warning, sets in found.items()]


def _seen_data(rows: Sequence[MetricRow]) -> list[str]:
    """A warning for each model that was measured on data that it has seen."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        if row.seen:
            seen.setdefault(f"{row.method} ({row.model})", []).append(row.data)
    return [
        f"{model} has seen {', '.join(dict.fromkeys(data))}: figures marked seen are not zero-shot and have no rank"
        for model, data in seen.items()
    ]


def _column(row: MetricRow) -> str:
    return f"{row.data}/{row.class_name}" if row.scope == "class" else row.data


def _measured(rows: Sequence[MetricRow]) -> list[_Entry]:
    """One entry per method, model and protocol; a label names only what tells the entries apart."""
    apart = _weights_apart(rows)
    of = {
        row: (row.method, row.model, row.weights_hash if row.weights_hash in apart else "", *_rules(row))
        for row in rows
    }
    keys = list(dict.fromkeys(of.values()))
    entries = []
    for key in keys:
        method, model, weights, protocol, _ = key
        parts = [] if model == method else [model]
        if sum(other[:2] == key[:2] and other[3:] == key[3:] for other in keys) > 1:
            parts.append(weights)
        if sum(other[:3] == key[:3] for other in keys) > 1:
            parts.append(f"protocol {protocol}")
        label = f"{method} ({', '.join(parts)})" if parts else method
        mine = [row for row in rows if of[row] == key]
        cells = {(_column(r), r.metric): Cell(r.value, r.low, r.high, seen=r.seen) for r in mine}
        entries.append(_Entry(label, "measured", f"protocol {protocol}", cells, _trainings(mine)))
    return entries


def _rules(row: MetricRow) -> tuple[str, str]:
    return row.protocol, row.protocol_hash


def _weights_apart(rows: Sequence[MetricRow]) -> set[str]:
    """Weights that need lines of their own. Others share one: a method trained anew for some of the data sets."""
    apart: set[str] = set()
    for group in dict.fromkeys((r.method, r.model, r.protocol_hash) for r in rows):
        mine = [r for r in rows if (r.method, r.model, r.protocol_hash) == group]
        weights = dict.fromkeys(r.weights_hash for r in mine)
        trainings = {(r.weights_hash, r.trained_on) for r in mine}
        measured = {(r.weights_hash, r.data) for r in mine}
        is_one_line = len({names for _, names in trainings}) == len(weights) and len({d for _, d in measured}) == len(
            measured
        )
        apart |= set() if is_one_line else set(weights)
    return apart


def _trainings(rows: Sequence[MetricRow]) -> str:
    """What each part of a line was trained on, if not all of it on the same."""
    measured: dict[str, list[str]] = {}
    for row in rows:
        measured.setdefault(", ".join(row.trained_on) or "nothing", []).append(row.data)
    if len(measured) < 2:
        return ""
    return "; ".join(f"trained on {names} for {', '.join(dict.fromkeys(data))}" for names, data in measured.items())


def _from_published(result: Published) -> _Entry:
    cells = {key: Cell(value, unranked=result.sees_others) for key, value in result.values.items()}
    return _Entry(result.label, "published", result.source, cells, result.note)


def _reference(entries: Sequence[_Entry], against: str | None) -> _Entry:
    if against is None:
        papers = (e for e in entries if e.origin == "published" and e.label.startswith(f"{PAPER} ("))
        return next(papers, entries[0])
    for entry in entries:
        if entry.label.startswith(against):
            return entry
    raise ConfigError(f"no line begins with {against!r}; there are: {'; '.join(e.label for e in entries)}")


def _section(metric: str, columns: Sequence[str], entries: Sequence[_Entry], reference: _Entry) -> Section | None:
    """The table of one metric; None if nobody has a figure of it."""
    used = [c for c in columns if any((c, metric) in e.cells for e in entries)]
    lines = []
    for entry in entries:
        cells = [_placed(entry, entries, reference, (column, metric)) for column in used]
        if any(cell is not None for cell in cells):
            lines.append(Line(entry.label, entry.origin, entry.source, tuple(cells)))
    return Section(METRICS[metric], tuple(used), tuple(lines)) if lines else None


def _placed(entry: _Entry, entries: Sequence[_Entry], reference: _Entry, key: tuple[str, str]) -> Cell | None:
    """A cell with its rank in its column and its distance from the reference."""
    cell = entry.cells.get(key)
    if cell is None or cell.value is None or cell.seen or cell.unranked:
        return cell
    digits = METRICS[key[1]].digits + 2  # ranks are of the values as shown: equal figures share one
    found = [other for entry in entries if (other := entry.cells.get(key))]
    others = [other.value for other in found if not (other.seen or other.unranked)]
    shown = sorted({round(value, digits) for value in others if value is not None}, reverse=True)
    place = shown.index(round(cell.value, digits)) + 1
    base = reference.cells.get(key)
    has_base = base is not None and not base.seen and entry is not reference
    difference = cell.value - base.value if has_base and base is not None and base.value is not None else None
    return replace(cell, rank=place if place <= 2 and len(shown) > 1 else 0, difference=difference)
