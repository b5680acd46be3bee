"""Shapes of defects and parts as soft coverage: (h, w) float32 in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recipes.synthetic.noise import Plane, Shape, noise, profile


@dataclass(frozen=True)
class Stroke:
    """A line of varying width.

    Attributes:
        points: (n, 2) float, rows and columns in px.
        widths: (n,) float, px.
    """

    points: NDArray[np.float64]
    widths: NDArray[np.float64]


def grid(shape: Shape) -> tuple[Plane, Plane]:
    """Open coordinates (h, 1) and (1, w) that run from -1 to 1."""
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    return rows, np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]


def smoothstep(low: float, high: float, value: Plane) -> Plane:
    """0 below ``low``, 1 above ``high``, a smooth ramp between (``low`` may exceed ``high``)."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def ellipse(rng: Generator, shape: Shape, aspect: float = 1.0) -> Plane:
    """Squared elliptic radius (h, w) of a random tilt: 0 in the middle, 1 on an ellipse that the window holds."""
    rows, cols = grid(shape)
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = cols * cos + rows * sin, (rows * cos - cols * sin) * np.float32(aspect)
    return np.asarray(along * along + across * across)


def blob(rng: Generator, shape: Shape, softness: float = 0.1, roughness: float = 0.3) -> Plane:
    """A round to ragged patch, zero at the window's border.

    Args:
        rng: where the randomness comes from.
        shape: (h, w) of the window in px.
        softness: width of the edge as a share of the radius.
        roughness: 0 an ellipse, 0.6 ragged.
    """
    radius = ellipse(rng, shape, float(rng.uniform(1.0, 1.7)))
    coarse = max(shape) * rng.uniform(0.15, 0.4)
    wobble = noise(rng, shape, coarse) + 0.35 * noise(rng, shape, coarse / 4)
    # The last term closes the shape before the window ends, however far the wobble reaches.
    field = 0.72 - radius + np.float32(roughness) * 0.5 * wobble * (1.0 - np.minimum(radius, 1.0))
    return smoothstep(0.0, max(softness, 2.5 / max(shape)), np.asarray(field, dtype=np.float32))


def clouds(rng: Generator, shape: Shape, softness: float = 0.1) -> Plane:
    """Perlin-like islands inside an elliptic window."""
    field = noise(rng, shape, max(shape) * float(rng.uniform(0.08, 0.35)))
    field = field + np.float32(rng.uniform(0, 0.5)) * noise(rng, shape, max(shape) * 0.05)
    inside = 1.6 - 2.4 * ellipse(rng, shape, float(rng.uniform(1.0, 1.5)))
    return smoothstep(0.0, max(softness, 0.05), np.asarray(np.minimum(field - rng.uniform(0, 0.5), inside), np.float32))


def polygon(rng: Generator, shape: Shape) -> Plane:
    """A convex-ish polygon of 3 to 8 corners."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
    reach = rng.uniform(0.55, 0.98, len(angles))
    points = np.stack([np.sin(angles) * reach, np.cos(angles) * reach], 1)
    return fill([(points + 1) * 0.5 * np.array(shape)], shape)


def rectangle(rng: Generator, shape: Shape, tilt: float) -> Plane:
    """A rectangle turned by ``tilt`` radians that fills the window's inner circle."""
    corner = rng.uniform(0.35, 1.2)
    angles = np.array([corner, np.pi - corner, np.pi + corner, -corner]) + tilt
    points = np.stack([np.sin(angles), np.cos(angles)], 1) * 0.97
    return fill([(points + 1) * 0.5 * np.array(shape)], shape)


def fill(outlines: Sequence[NDArray[np.float64]], shape: Shape) -> Plane:
    """Filled polygons, each (n, 2) rows and columns in px, antialiased."""
    times = 2 if max(shape) > 160 else 4
    canvas = Image.new("L", (shape[1] * times, shape[0] * times))
    pen = ImageDraw.Draw(canvas)
    for outline in outlines:
        pen.polygon((outline[:, ::-1] * times).ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(times), dtype=np.float32) / np.float32(255.0)


def draw(strokes: Sequence[Stroke], shape: Shape) -> Plane:
    """Strokes with round joints, antialiased."""
    times = 2 if max(shape) > 160 else 4
    canvas = Image.new("L", (shape[1] * times, shape[0] * times))
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        xy = (stroke.points[:, ::-1] * times).tolist()
        widths = np.maximum(1, np.rint(stroke.widths * times)).astype(int).tolist()
        for start, end, width in zip(xy[:-1], xy[1:], widths, strict=False):
            pen.line((*start, *end), fill=255, width=width)
            if width > 3:
                half = width / 2 - 0.5
                pen.ellipse((end[0] - half, end[1] - half, end[0] + half, end[1] + half), fill=255)
    return np.asarray(canvas.reduce(times), dtype=np.float32) / np.float32(255.0)


def walk(rng: Generator, start: NDArray[np.float64], heading: float, length: float, wander: float) -> Stroke:
    """A path that turns at random: ``wander`` 0.02 is nearly straight, 0.5 jagged; its width is about 1 px."""
    count = int(np.clip(length / 3.0, 6, 48))
    headings = heading + np.cumsum(rng.normal(0, wander, count)) * 0.6 + rng.normal(0, wander, count)
    steps = np.stack([np.sin(headings), np.cos(headings)], 1) * (length / count)
    points = np.concatenate([start[None], start[None] + np.cumsum(steps, 0)])
    widths = np.exp(0.25 * profile(rng, count + 1, 3.0).astype(np.float64))
    return Stroke(points, widths)
