"""Where a defect goes on a surface, and the few ways of changing it there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recipes.synthetic.noise import Plane, Shape, noise
from recipes.synthetic.shapes import smoothstep
from recipes.synthetic.surface import Colours, Mask, Surface

_TRIES = 24


@dataclass(frozen=True)
class Window:
    """A rectangle in which a defect is drawn; it may reach over the surface's border.

    Attributes:
        shape: (h, w) of the whole rectangle, px.
        rows: the visible part's rows on the surface.
        cols: the visible part's columns on the surface.
        inner_rows: the same rows counted inside the rectangle.
        inner_cols: the same columns counted inside the rectangle.
    """

    shape: Shape
    rows: slice
    cols: slice
    inner_rows: slice
    inner_cols: slice

    def cut(self, drawn: Plane) -> Plane:
        """The visible part of something drawn on the whole rectangle."""
        return drawn[self.inner_rows, self.inner_cols]


def window_at(shape: Shape, centre: tuple[int, int], size: Shape) -> Window:
    """The window of ``size`` (h, w) around a centre on a surface of ``shape`` (H, W)."""
    top, left = centre[0] - size[0] // 2, centre[1] - size[1] // 2
    rows = slice(max(top, 0), min(top + size[0], shape[0]))
    cols = slice(max(left, 0), min(left + size[1], shape[1]))
    inner_rows, inner_cols = slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left)
    return Window(size, rows, cols, inner_rows, inner_cols)


def place(surface: Surface, rng: Generator, low: float, high: float, *, aspect: float = 1.0) -> Window:
    """A window around a random point of the surface's area.

    Args:
        surface: what the defect is drawn on.
        rng: where the randomness comes from.
        low: smallest side as a share of the surface's shorter side; sides are drawn log-uniformly.
        high: largest side.
        aspect: largest ratio of the window's sides.
    """
    height, width = surface.shape
    side = min(height, width) * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    stretch = float(np.sqrt(rng.uniform(1.0, aspect)))
    if rng.random() < 0.5:
        stretch = 1.0 / stretch
    size = max(6, round(side * stretch)), max(6, round(side / stretch))
    rows, cols = rng.integers(0, height, _TRIES), rng.integers(0, width, _TRIES)
    inside = np.flatnonzero(surface.area[rows, cols])
    chosen = int(inside[0]) if len(inside) else 0
    return window_at(surface.shape, (int(rows[chosen]), int(cols[chosen])), size)


def visible(surface: Surface, window: Window, drawn: Plane) -> Plane:
    """Coverage inside the surface: the visible part, ended at the object's border where the surface says so."""
    alpha = window.cut(drawn)
    return alpha * surface.area[window.rows, window.cols] if surface.clips else alpha


def marked(surface: Surface, window: Window, covered: NDArray[np.bool_]) -> Mask:
    """The mask (H, W) of what is covered in the window."""
    mask = np.zeros(surface.shape, dtype=np.bool_)
    mask[window.rows, window.cols] = covered
    return mask


def colours_in(surface: Surface, window: Window) -> Colours:
    """The surface's colours in the window, as a view that can be written."""
    return surface.albedo[window.rows, window.cols]


def paint(surface: Surface, window: Window, alpha: Plane, colour: Colours) -> None:
    """Blend a colour (3,) or colours (h, w, 3) into the window with weight ``alpha`` (h, w)."""
    view = colours_in(surface, window)
    view += alpha[..., None] * (colour - view)


def press(surface: Surface, window: Window, relief: Plane) -> None:
    """Add relief (h, w) in px to the surface's height in the window."""
    surface.height[window.rows, window.cols] += relief


def mean_colour(surface: Surface, window: Window) -> Colours:
    """The mean colour (3,) in the window, from every third pixel."""
    return np.asarray(colours_in(surface, window)[::3, ::3].mean(axis=(0, 1)), dtype=np.float32)


def contrasting(rng: Generator, colour: Colours, low: float, high: float) -> Colours:
    """A colour (3,) brighter or darker than ``colour`` by low to high, on the side that has room, slightly tinted."""
    level = float(colour.mean())
    delta = rng.uniform(low, high)
    upward = rng.random() < (0.5 if 0.3 < level < 0.7 else 0.85 if level <= 0.3 else 0.15)
    target = level + delta if upward else level - delta
    tint = rng.normal(0, 0.04, 3) if rng.random() < 0.4 else np.zeros(3)
    keep = colour * np.float32(max(target, 0.0) / max(level, 0.05)) if not upward else colour + np.float32(delta)
    return np.clip(keep + tint, 0.0, 1.0).astype(np.float32)


def foreign_texture(surface: Surface, rng: Generator, size: Shape) -> Colours:
    """A texture (h, w, 3) that does not belong: from the donor, from elsewhere on the surface, or procedural."""
    source = surface.donor if surface.donor is not None and rng.random() < 0.7 else None
    if source is None and rng.random() < 0.45:
        source = surface.albedo
    if source is None or source.shape[0] < size[0] or source.shape[1] < size[1]:
        return _procedural(rng, size)
    top = int(rng.integers(0, source.shape[0] - size[0] + 1))
    left = int(rng.integers(0, source.shape[1] - size[1] + 1))
    patch = source[top : top + size[0], left : left + size[1]].copy()
    if rng.random() < 0.5:
        patch = patch[::-1]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    gain, shift = rng.uniform(0.6, 1.4), rng.uniform(-0.15, 0.15)
    return np.asarray(np.clip(patch * np.float32(gain) + np.float32(shift), 0.0, 1.0))


def _procedural(rng: Generator, size: Shape) -> Colours:
    """Two colours mixed by clouds, streaks, grains or stripes."""
    kind = int(rng.integers(4))
    fine = float(rng.uniform(1.0, 6.0))
    if kind == 0:
        field = noise(rng, size, 1.0, beta=float(rng.choice([1.0, 2.0, 3.0])))
    elif kind == 1:
        field = noise(rng, size, (fine, 12 * fine) if rng.random() < 0.5 else (12 * fine, fine))
    elif kind == 2:
        field = noise(rng, size, fine)
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 16)
        rows, cols = np.ogrid[: size[0], : size[1]]
        field = np.sin((rows * np.sin(angle) + cols * np.cos(angle)) * (2 * np.pi / period)).astype(np.float32)
    mix = smoothstep(-1.5, 1.5, field)[..., None]
    first, second = _colour(rng), _colour(rng)
    return first + mix * (second - first)


def _colour(rng: Generator) -> Colours:
    """Any colour, more often a greyish one."""
    level = rng.uniform(0.05, 0.95)
    return np.clip(level + rng.normal(0, 0.05 if rng.random() < 0.6 else 0.25, 3), 0, 1).astype(np.float32)
