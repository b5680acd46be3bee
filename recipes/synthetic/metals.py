"""Metal that fills the picture: brushed, rolled, cast, turned, threaded, perforated. All of it is normal."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import Plane, noise, profile
from recipes.synthetic.palette import hsv, maybe_transposed, metal_colour, mix, texture, tinted, turned
from recipes.synthetic.shapes import grid, smoothstep
from recipes.synthetic.surface import Colours, Surface, random_light


def _sheen(rng: Generator, length: int, strength: float) -> Plane:
    """A broad highlight profile (length,) around 1, as on rolled or cylindrical metal."""
    position = np.linspace(-1, 1, length, dtype=np.float32) - np.float32(rng.uniform(-0.8, 0.8))
    return np.asarray(1.0 + strength * np.exp(-((position / rng.uniform(0.3, 0.8)) ** 2)), np.float32)


def brushed_metal(rng: Generator, size: int) -> Surface:
    """Sheet metal with fine parallel brush lines and a soft highlight."""
    unit, shape = size / 256, (size, size)
    lines = noise(rng, shape, (unit, 90 * unit)) + 0.6 * noise(rng, shape, (2.5 * unit, 250 * unit))
    level = rng.uniform(0.3, 0.6) + rng.uniform(0.025, 0.07) * lines + 0.03 * noise(rng, shape, unit, 3.0)
    level = level * _sheen(rng, size, float(rng.uniform(0.1, 0.5))).reshape((-1, 1) if rng.random() < 0.5 else (1, -1))
    surface = texture(tinted(metal_colour(rng), level.astype(np.float32)), 0.15 * lines, random_light(rng, 0.12, 3))
    return maybe_transposed(rng, surface)


def steel_strip(rng: Generator, size: int) -> Surface:
    """Hot-rolled strip or a ground tile in grey: cloudy, with faint lines and uneven light."""
    unit, shape = size / 256, (size, size)
    level = rng.uniform(0.25, 0.65) + rng.uniform(0.02, 0.07) * noise(rng, shape, unit, float(rng.uniform(1.6, 2.6)))
    level = level + rng.uniform(0.0, 0.05) * noise(rng, shape, (120 * unit, 1.3 * unit))
    level = level + rng.uniform(0.01, 0.05) * noise(rng, shape, float(rng.uniform(0.7, 1.6)) * unit)
    level = level * _sheen(rng, size, float(rng.uniform(0.0, 0.5)))
    grey = np.ones(3, np.float32) if rng.random() < 0.8 else metal_colour(rng)
    return maybe_transposed(
        rng, texture(tinted(grey, level.astype(np.float32)), np.zeros(shape, np.float32), random_light(rng))
    )


def cast_iron(rng: Generator, size: int) -> Surface:
    """Rough dark casting."""
    unit, shape = size / 256, (size, size)
    relief = (
        1.1 * noise(rng, shape, 2.5 * unit) + 0.8 * noise(rng, shape, 6 * unit) + 0.5 * noise(rng, shape, unit, 2.0)
    )
    level = rng.uniform(0.16, 0.34) * (1.0 + 0.1 * noise(rng, shape, unit, 2.0))
    colour = hsv(rng.uniform(0.05, 0.65), rng.uniform(0.0, 0.15), 1.0)
    return texture(tinted(colour, level), rng.uniform(0.25, 0.55) * relief, random_light(rng, 0.25, 3))


def machined_disc(rng: Generator, size: int) -> Surface:
    """A turned face: concentric tool marks, the bow-tie highlight, a bore and bolt holes that belong."""
    rows, cols = grid((size, size))
    centre = rng.uniform(-0.35, 0.35, 2) if rng.random() < 0.7 else rng.uniform(-1.3, 1.3, 2)
    rows, cols = rows - np.float32(centre[0]), cols - np.float32(centre[1])
    radius = np.sqrt(rows * rows + cols * cols)
    rings = profile(rng, 4 * size, 2.0) + 1.2 * profile(rng, 4 * size, 60.0)
    marks = rings[np.minimum((radius * size * 0.9).astype(np.intp), 4 * size - 1)]
    angle = np.float32(rng.uniform(0, np.pi))
    along = (cols * np.cos(angle) + rows * np.sin(angle)) / np.maximum(radius, 1e-3)
    glint = along**4 * smoothstep(0.0, 0.15, radius)
    level = rng.uniform(0.22, 0.38) + 0.045 * marks + rng.uniform(0.3, 0.55) * glint * (1 + 0.2 * marks)
    albedo = tinted(metal_colour(rng), level.astype(np.float32))
    height = np.zeros((size, size), np.float32)
    if rng.random() < 0.75:
        bore = float(rng.uniform(0.12, 0.3))
        _drill(albedo, height, radius, bore)
        count, ring = int(rng.integers(3, 8)), bore + float(rng.uniform(0.25, 0.4))
        turn = rng.uniform(0, np.pi)
        for index in range(count if rng.random() < 0.6 else 0):
            phi = turn + 2 * np.pi * index / count
            _drill(
                albedo,
                height,
                np.hypot(rows - np.float32(ring * np.sin(phi)), cols - np.float32(ring * np.cos(phi))),
                0.06,
            )
    return texture(albedo, height, random_light(rng, 0.1, 4))


def _drill(albedo: Colours, height: Plane, radius: Plane, reach: float) -> None:
    """A dark hole with a chamfer where ``radius`` is below ``reach``."""
    size = albedo.shape[0]
    edge = 4.0 / size
    inside = smoothstep(reach + edge / 2, reach - edge / 2, radius)
    albedo *= 1.0 - 0.9 * inside[..., None]
    height -= smoothstep(reach + 3 * edge, reach, radius) * np.float32(2.5 * size / 256)


def threaded_rod(rng: Generator, size: int) -> Surface:
    """A screw or coil seen close: slanted convex bands with mirror-like stripes."""
    unit, shape = size / 256, (size, size)
    rows, cols = grid(shape)
    lead, slant = rng.uniform(3.5, 9.0), rng.uniform(-0.5, 0.5)
    bulge = np.sqrt(np.maximum(1.0 - (cols * 0.85) ** 2, 0.05))
    phase = rows * np.float32(lead / 2) + np.float32(slant * lead / 2) * cols + np.float32(0.4 * slant) * bulge
    phase = phase + np.float32(rng.random())
    turn = phase - np.floor(phase)
    crown = np.sin(np.pi * turn)
    groove = smoothstep(0.14, 0.02, np.minimum(turn, 1 - turn))
    lines = profile(rng, 1024, 2.0)[(turn * 1023).astype(np.intp)]
    first, second = rng.uniform(0.2, 0.45), rng.uniform(0.55, 0.9)
    glint = np.exp(-(((turn - first) / 0.08) ** 2)) + 0.6 * np.exp(-(((turn - second) / 0.05) ** 2))
    level = (0.2 + 0.3 * crown + 0.45 * glint * (1 + 0.25 * lines)) * (1.0 - 0.75 * groove) * (0.25 + 0.75 * bulge)
    level = level * (1.0 + 0.08 * noise(rng, shape, (2 * unit, 20 * unit)))
    return maybe_transposed(
        rng, texture(tinted(metal_colour(rng), level.astype(np.float32)), np.zeros(shape), random_light(rng))
    )


def perforated(rng: Generator, size: int) -> Surface:
    """Sheet metal with a regular pattern of holes, all of which belong."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, 0.2)
    pitch = np.float32(rng.uniform(22, 46) * unit)
    staggered = rng.random() < 0.5
    line = np.rint(rows / pitch)
    shift = (line % 2) * 0.5 if staggered else np.zeros_like(line)
    dy, dx = rows / pitch - line, cols / pitch - shift - np.rint(cols / pitch - shift)
    radius = np.sqrt(dy * dy + dx * dx) if rng.random() < 0.7 else np.maximum(np.abs(dy), np.abs(dx))
    reach = float(rng.uniform(0.2, 0.36))
    edge = float(1.2 / pitch)
    hole = smoothstep(reach + edge, reach - edge, radius)
    level = rng.uniform(0.4, 0.7) + 0.04 * noise(rng, shape, (unit, 40 * unit)) + 0.03 * noise(rng, shape, unit, 3.0)
    behind = hsv(rng.random(), 0.1, rng.uniform(0.02, 0.15))
    albedo = mix(tinted(metal_colour(rng), level.astype(np.float32)), behind, hole)
    relief = -smoothstep(reach + 3 * edge, reach, radius) * np.float32(2.0 * unit)
    return texture(albedo, relief, random_light(rng, 0.1, 3))
