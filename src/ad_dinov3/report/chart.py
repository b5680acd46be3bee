"""Line charts as SVG: no plotting library, readable in light and dark, the numbers on the axes honest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
_COLOURS = ("#3b6fb6", "#c8553d", "#4f8a4f", "#8a5aa3", "#b08a2e", "#5b6770")  # told apart by colour-blind readers
_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 44, 52


def line_chart(
    series: Mapping[str, Sequence[Point]], title: str, x_label: str, y_label: str, *, whole_x: bool = False
) -> str:
    """An SVG document with one line per series.

    Args:
        series: name -> (x, y) points in drawing order; points that are not finite are left out.
        title: above the chart.
        x_label: below the horizontal axis, with its unit.
        y_label: beside the vertical axis, with its unit.
        whole_x: the horizontal axis counts things, such as epochs: whole numbers alone stand on it.
    """
    finite = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    points = [point for line in finite.values() for point in line] or [(0.0, 0.0)]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), whole=whole_x)
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    place = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    parts = [_grid(place, x_ticks, y_ticks)]
    for index, (name, line) in enumerate(finite.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in line)
        y = _TOP + 18 * index + 6
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 14}" y="{y}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 34}" y="{y + 6}">{escape(name)}</text>')
    return _document(parts, title, x_label, y_label)


def scatter_chart(points: Mapping[str, Point], title: str, x_label: str, y_label: str) -> str:
    """An SVG document with one named dot per point (x, y); the names stand beside their dots.

    The vertical axis spans 2 % of its values at least: a small difference looks small.
    """
    x_ticks = ticks(0.0, max(x for x, _ in points.values()))
    low, high = min(y for _, y in points.values()), max(y for _, y in points.values())
    slack = max(0.0, 0.01 * abs(low + high) - (high - low)) / 2
    y_ticks = ticks(low - slack, high + slack)
    place = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    parts, taken = [_grid(place, x_ticks, y_ticks)], [-math.inf]
    for index, (name, (x, y)) in enumerate(sorted(points.items(), key=lambda item: -item[1][1])):
        across, down = place.x(x), place.y(y)
        taken.append(max(down + 4, taken[-1] + 15))  # dots may lie close; their names may not
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{across + 10:.1f}" y="{taken[-1]:.1f}" fill="{colour}">{escape(name)}</text>')
    return _document(parts, title, x_label, y_label)


@dataclass(frozen=True)
class _Frame:
    """Data coordinates to the drawing's."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_min) / (self.x_max - self.x_min) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.y_min) / (self.y_max - self.y_min) * (_HEIGHT - _TOP - _BOTTOM)


def ticks(low: float, high: float, count: int = 6, *, whole: bool = False) -> list[float]:
    """About ``count`` round numbers that reach from at most ``low`` to at least ``high``; at least two."""
    span = (high - low) or max(abs(low), 1.0)
    magnitude = 10 ** math.floor(math.log10(span / count))
    steps = (m * magnitude for m in (1, 2, 2.5, 5, 10))
    step = next(s for s in steps if span / s <= count and not (whole and s % 1))
    first = math.floor(low / step)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _document(parts: Sequence[str], title: str, x_label: str, y_label: str) -> str:
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
        f'<text x="{_LEFT}" y="26" font-size="15" font-weight="600">{escape(title)}</text>'
        + "".join(parts)
        + f'<text x="{_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text></svg>\n'
    )


def _grid(place: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in y_ticks:
        y = place.y(value)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_ticks:
        x = place.x(value)
        parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="#999"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#999"/>')
    return "".join(parts)
