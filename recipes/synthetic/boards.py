"""Electronics: a populated circuit board and a pin connector. All of it is normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recipes.synthetic.noise import Plane, Shape, noise
from recipes.synthetic.objects import put
from recipes.synthetic.palette import hsv, mix
from recipes.synthetic.shapes import Stroke, draw, fill
from recipes.synthetic.surface import Colours, Surface, random_light

Outline = NDArray[np.float64]
Box = tuple[float, float, float, float]

_GOLD = (0.12, 0.45, 0.8)
_TIN = (0.12, 0.04, 0.78)


class _Plan:
    """A drawing in units of the board (rows and columns from 0 to 1), placed and turned on the picture."""

    def __init__(self, rng: Generator, size: int, spread: float) -> None:
        angle = float(rng.choice([0, 0.5, 1, 1.5])) * np.pi + rng.normal(0, spread)
        self._turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._scale = size * float(rng.uniform(0.72, 0.88))
        self._middle = size / 2 + rng.uniform(-0.03, 0.03, 2) * size
        self.shape: Shape = (size, size)

    def at(self, points: Outline) -> Outline:
        """Points in px."""
        return np.asarray((points - 0.5) @ self._turn.T * self._scale + self._middle, dtype=np.float64)

    def boxes(self, corners: list[Box]) -> Plane:
        """Coverage of boxes given as top, left, bottom, right."""
        outlines = [np.array([(t, le), (t, r), (b, r), (b, le)], dtype=np.float64) for t, le, b, r in corners]
        return fill([self.at(outline) for outline in outlines], self.shape)

    def discs(self, centres: Outline, radius: float) -> Plane:
        """Coverage of equal discs."""
        turn = np.linspace(0, 2 * np.pi, 13)[:-1]
        circle = np.stack([np.sin(turn), np.cos(turn)], 1) * radius
        return fill([self.at(centre + circle) for centre in centres], self.shape)

    def lines(self, paths: list[Outline], width: float) -> Plane:
        """Coverage of polylines of one width."""
        px = width * self._scale
        return draw([Stroke(self.at(path), np.full(len(path), px)) for path in paths], self.shape)


class _Layers:
    """Colours and relief to which covered parts are added from below to above."""

    def __init__(self, base: Colours, shape: Shape) -> None:
        self.albedo = np.broadcast_to(base, (*shape, 3)).astype(np.float32)
        self.height = np.zeros(shape, dtype=np.float32)

    def add(self, cover: Plane, colour: Colours, rise: float) -> None:
        """Paint ``colour`` where covered and raise it by ``rise`` px."""
        self.albedo = mix(self.albedo, colour, cover)
        self.height += cover * np.float32(rise)


def _traces(rng: Generator, count: int) -> list[Outline]:
    """Bundles of parallel tracks with 45-degree bends."""
    paths: list[Outline] = []
    for _ in range(count):
        start, gap = rng.uniform(0.08, 0.92, 2), float(rng.uniform(0.018, 0.03))
        reach, slant = rng.uniform(0.15, 0.5), float(rng.uniform(0.05, 0.2)) * float(rng.choice([-1, 1]))
        across = rng.random() < 0.5
        for lane in range(int(rng.integers(2, 6))):
            row = start[0] + lane * gap
            path = np.array(
                [
                    (row, start[1]),
                    (row, start[1] + reach / 2 - lane * gap / 2 * np.sign(slant)),
                    (row + slant, start[1] + reach / 2 + abs(slant) - lane * gap / 2 * np.sign(slant)),
                    (row + slant, start[1] + reach + abs(slant)),
                ]
            )
            paths.append(np.clip(path[:, ::-1] if across else path, 0.05, 0.95))
    return paths


@dataclass(frozen=True)
class _Parts:
    """What is soldered on, as boxes (top, left, bottom, right) by the layer that paints them."""

    tin: list[Box]
    chips: list[Box]
    small: list[Box]
    letters: list[Box]
    frames: list[Outline]


def _add_chip(rng: Generator, parts: _Parts, top: float, left: float) -> None:
    """An integrated circuit with legs on two sides and two lines of lettering."""
    tall, wide = float(rng.uniform(0.12, 0.2)), float(rng.uniform(0.14, 0.26))
    for x in np.arange(left + 0.015, left + wide - 0.015, 0.03).tolist():
        parts.tin.append((top - 0.03, x, top + tall + 0.03, x + 0.014))
    parts.chips.append((top, left, top + tall, left + wide))
    parts.letters.append((top + 0.02, left + 0.015, top + 0.035, left + 0.03))
    for line in (0.4, 0.62):
        for x in np.arange(left + 0.05, left + wide - 0.05, 0.018).tolist():
            if rng.random() < 0.8:
                parts.letters.append(
                    (top + tall * line, x, top + tall * line + 0.018, x + float(rng.uniform(0.006, 0.013)))
                )


def _add_row(rng: Generator, parts: _Parts, top: float, left: float) -> None:
    """A column of resistors or capacitors in a silk-screen frame."""
    rows = [top + 0.045 * step for step in range(int(rng.integers(2, 6)))]
    for y in rows:
        parts.tin.append((y, left, y + 0.026, left + 0.075))
        parts.small.append((y, left + 0.018, y + 0.026, left + 0.057))
    low, right = rows[-1] + 0.04, left + 0.09
    parts.frames.append(
        np.array(
            [
                (top - 0.015, left - 0.012),
                (top - 0.015, right),
                (low, right),
                (low, left - 0.012),
                (top - 0.015, left - 0.012),
            ]
        )
    )


def circuit_board(rng: Generator, size: int) -> Surface:
    """A board with tracks, vias, chips, small parts and silk-screen."""
    unit, plan = size / 256, _Plan(rng, size, 0.03)
    mask_colour = hsv(float(rng.choice([0.36, 0.38, 0.4, 0.6, 0.0])), rng.uniform(0.6, 0.85), rng.uniform(0.2, 0.4))
    parts = _Parts([], [], [], [], [])
    slots = [(y, x) for y in (0.1, 0.4, 0.7) for x in (0.1, 0.42, 0.7)]
    order = rng.permutation(len(slots)).tolist()
    chips = int(rng.integers(2, 4))
    for index in order[:chips]:
        _add_chip(rng, parts, *slots[index])
    for index in order[chips : chips + int(rng.integers(3, 6))]:
        for column in range(int(rng.integers(1, 3))):
            _add_row(rng, parts, slots[index][0], slots[index][1] + 0.12 * column)
    layers = _Layers(mask_colour, plan.shape)
    paths = _traces(rng, int(rng.integers(8, 14)))
    layers.add(plan.lines(paths, 0.009), mask_colour * np.float32(1.45) + np.float32(0.02), 0.5 * unit)
    drills = np.array([(0.06, 0.06), (0.06, 0.94), (0.94, 0.06), (0.94, 0.94)])
    ends = np.array([point for path in paths for point in (path[0], path[-1])])
    layers.add(np.maximum(plan.discs(ends, 0.013), plan.discs(drills, 0.036)), hsv(*_GOLD), 0.3 * unit)
    layers.add(plan.discs(ends, 0.006), hsv(0, 0, 0.08), -0.4 * unit)
    layers.add(plan.boxes(parts.tin), hsv(*_TIN), 1.0 * unit)
    layers.add(plan.boxes(parts.chips), hsv(0.6, 0.08, rng.uniform(0.08, 0.16)), 3.0 * unit)
    layers.add(plan.boxes(parts.small), hsv(0.09, 0.5, 0.45) if rng.random() < 0.5 else hsv(0.6, 0.1, 0.12), 0.8 * unit)
    marks = np.maximum(0.7 * plan.boxes(parts.letters), plan.lines(parts.frames, 0.005))
    layers.add(marks.astype(np.float32), hsv(0, 0, 0.85), 0.0)
    cover = plan.boxes([(0, 0, 1, 1)]) * (1 - plan.discs(drills, 0.022))
    layers.albedo *= (1 + 0.02 * noise(rng, plan.shape, unit))[..., None]
    return put(rng, cover, layers.albedo, layers.height, random_light(rng, 0.2, 4))


def connector(rng: Generator, size: int) -> Surface:
    """A moulded housing with rows of cavities, each with its pin, and a coding nose."""
    unit, plan = size / 256, _Plan(rng, size, 0.04)
    rows, cols = int(rng.integers(1, 4)), int(rng.integers(4, 10))
    tall = min(0.8, rows * 0.8 / cols + 0.16)
    top, pitch_y, pitch_x = 0.5 - tall / 2, (tall - 0.12) / rows, 0.88 / cols
    body = hsv(rng.random(), float(rng.choice([0.03, 0.06, 0.5])), float(rng.choice([0.12, 0.15, 0.75, 0.4])))
    layers = _Layers(body, plan.shape)
    centres = [(top + 0.06 + (y + 0.5) * pitch_y, 0.06 + (x + 0.5) * pitch_x) for y in range(rows) for x in range(cols)]
    half = 0.36 * min(pitch_x, pitch_y)
    rim = plan.boxes([(top + 0.02, 0.02, top + tall - 0.02, 0.98)])
    layers.add(rim, body * np.float32(1.1), -1.5 * unit)
    layers.add(
        plan.boxes([(y - half, x - half, y + half, x + half) for y, x in centres]), body * np.float32(0.25), -2.5 * unit
    )
    pin = half * float(rng.uniform(0.3, 0.5))
    metal = hsv(*(_GOLD if rng.random() < 0.6 else _TIN))
    layers.add(plan.boxes([(y - pin, x - pin, y + pin, x + pin) for y, x in centres]), metal, 2.0 * unit)
    nose = float(rng.uniform(0.3, 0.6))
    outline = [(top, 0.0, top + tall, 1.0), (top - 0.05, nose, top + 0.01, nose + 0.12)]
    layers.albedo *= (1 + 0.02 * noise(rng, plan.shape, unit))[..., None]
    relief = layers.height + 0.15 * noise(rng, plan.shape, 1.5 * unit)
    return put(rng, plan.boxes(outline), layers.albedo, relief.astype(np.float32), random_light(rng, 0.2, 3))
