"""Colours, coordinates and finished textures: what the materials share."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import Plane, Shape
from recipes.synthetic.surface import Colours, Light, Surface


def hsv(hue: float, saturation: float, value: float) -> Colours:
    """An RGB colour (3,) float32 from hue, saturation and value in [0, 1] (hue wraps)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1)), np.float32)


def mix(first: Colours, second: Colours, share: Plane) -> Colours:
    """Colours (H, W, 3): ``first`` where share is 0, ``second`` where it is 1."""
    return np.asarray(first + share[..., None] * (second - first), dtype=np.float32)


def tinted(colour: Colours, level: Plane) -> Colours:
    """One colour under a factor (H, W)."""
    return np.asarray(level[..., None] * colour, dtype=np.float32)


def texture(albedo: Colours, height: Plane, light: Light | None) -> Surface:
    """A surface on which a defect may lie anywhere."""
    return Surface(albedo, np.asarray(height, np.float32), np.ones(height.shape, dtype=np.bool_), light=light)


def turned(rng: Generator, shape: Shape, spread: float = np.pi) -> tuple[Plane, Plane]:
    """Coordinates (rows, cols) in px, full (H, W), turned by a random angle within ± ``spread`` around the middle."""
    angle = rng.uniform(-spread, spread)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(shape[0] / 2)
    cols = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(shape[1] / 2)
    return rows * cos - cols * sin, rows * sin + cols * cos


def maybe_transposed(rng: Generator, surface: Surface) -> Surface:
    """The surface, half of the time with rows and columns exchanged."""
    if rng.random() < 0.5:
        return surface
    albedo = np.ascontiguousarray(surface.albedo.transpose(1, 0, 2))
    return texture(albedo, np.ascontiguousarray(surface.height.T), surface.light)


def metal_colour(rng: Generator) -> Colours:
    """Steel, brass, copper or dark alloy."""
    hue, saturation = ((0.6, 0.05), (0.12, 0.35), (0.05, 0.4), (0.1, 0.04))[
        int(rng.choice(4, p=[0.5, 0.15, 0.1, 0.25]))
    ]
    return hsv(hue + rng.normal(0, 0.02), saturation * rng.uniform(0.6, 1.2), 1.0)
