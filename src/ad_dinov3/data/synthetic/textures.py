"""Materials that fill the picture: metal, wood, textile, stone, paper, glass. All of it is normal."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.random import Generator

from ad_dinov3.data.synthetic.noise import Plane, Shape, cells, noise, profile
from ad_dinov3.data.synthetic.shapes import grid, smoothstep
from ad_dinov3.data.synthetic.surface import Colours, Light, Surface, random_light


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


def _maybe_transposed(rng: Generator, surface: Surface) -> Surface:
    """The surface, half of the time with rows and columns exchanged."""
    if rng.random() < 0.5:
        return surface
    albedo = np.ascontiguousarray(surface.albedo.transpose(1, 0, 2))
    return texture(albedo, np.ascontiguousarray(surface.height.T), surface.light)


def _sheen(rng: Generator, length: int, strength: float) -> Plane:
    """A broad highlight profile (length,) around 1, as on rolled or cylindrical metal."""
    position = np.linspace(-1, 1, length, dtype=np.float32) - np.float32(rng.uniform(-0.8, 0.8))
    return np.asarray(1.0 + strength * np.exp(-(position / rng.uniform(0.3, 0.8)) ** 2), np.float32)


def _metal_colour(rng: Generator) -> Colours:
    """Steel, brass, copper or dark alloy."""
    hue, saturation = ((0.6, 0.05), (0.12, 0.35), (0.05, 0.4), (0.1, 0.04))[int(rng.choice(4, p=[0.5, 0.15, 0.1, 0.25]))]
    return hsv(hue + rng.normal(0, 0.02), saturation * rng.uniform(0.6, 1.2), 1.0)


def brushed_metal(rng: Generator, size: int) -> Surface:
    """Sheet metal with fine parallel brush lines and a soft highlight."""
    unit, shape = size / 256, (size, size)
    lines = noise(rng, shape, (unit, 90 * unit)) + 0.6 * noise(rng, shape, (2.5 * unit, 250 * unit))
    level = rng.uniform(0.3, 0.6) + rng.uniform(0.025, 0.07) * lines + 0.03 * noise(rng, shape, 1.0, 3.0)
    level = level * _sheen(rng, size, float(rng.uniform(0.1, 0.5))).reshape((-1, 1) if rng.random() < 0.5 else (1, -1))
    surface = texture(tinted(_metal_colour(rng), level.astype(np.float32)), 0.15 * lines, random_light(rng, 0.12, 3))
    return _maybe_transposed(rng, surface)


def steel_strip(rng: Generator, size: int) -> Surface:
    """Hot-rolled strip or a ground tile in grey: cloudy, with faint lines and uneven light."""
    unit, shape = size / 256, (size, size)
    level = rng.uniform(0.25, 0.65) + rng.uniform(0.02, 0.07) * noise(rng, shape, 1.0, float(rng.uniform(1.6, 2.6)))
    level = level + rng.uniform(0.0, 0.05) * noise(rng, shape, (120 * unit, 1.3 * unit))
    level = level + rng.uniform(0.01, 0.05) * noise(rng, shape, float(rng.uniform(0.7, 1.6)) * unit)
    level = level * _sheen(rng, size, float(rng.uniform(0.0, 0.5)))
    grey = np.ones(3, np.float32) if rng.random() < 0.8 else _metal_colour(rng)
    return _maybe_transposed(rng, texture(tinted(grey, level.astype(np.float32)), np.zeros(shape, np.float32), random_light(rng)))


def cast_iron(rng: Generator, size: int) -> Surface:
    """Rough dark casting."""
    unit, shape = size / 256, (size, size)
    relief = 1.1 * noise(rng, shape, 2.5 * unit) + 0.8 * noise(rng, shape, 6 * unit) + 0.5 * noise(rng, shape, unit, 2.0)
    level = rng.uniform(0.16, 0.34) * (1.0 + 0.1 * noise(rng, shape, 1.0, 2.0))
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
    glint = along * along
    level = rng.uniform(0.28, 0.45) + 0.05 * marks + rng.uniform(0.2, 0.45) * glint * glint * (1 + 0.25 * marks)
    albedo = tinted(_metal_colour(rng), level.astype(np.float32))
    height = np.zeros((size, size), np.float32)
    if rng.random() < 0.75:
        bore = float(rng.uniform(0.12, 0.3))
        _drill(albedo, height, radius, bore)
        count, ring = int(rng.integers(3, 8)), bore + float(rng.uniform(0.25, 0.4))
        turn = rng.uniform(0, np.pi)
        for index in range(count if rng.random() < 0.6 else 0):
            phi = turn + 2 * np.pi * index / count
            _drill(albedo, height, np.hypot(rows - np.float32(ring * np.sin(phi)), cols - np.float32(ring * np.cos(phi))), 0.06)
    return texture(albedo, height, random_light(rng, 0.1, 4))


def _drill(albedo: Colours, height: Plane, radius: Plane, reach: float) -> None:
    """A dark hole with a chamfer where ``radius`` is below ``reach``."""
    size = albedo.shape[0]
    edge = 4.0 / size
    inside = smoothstep(reach + edge / 2, reach - edge / 2, radius)
    albedo *= 1.0 - 0.9 * inside[..., None]
    height -= smoothstep(reach + 3 * edge, reach, radius) * np.float32(2.5 * size / 256)


def wood(rng: Generator, size: int) -> Surface:
    """Planed boards: growth rings cut lengthwise, pores, sometimes seams between boards."""
    unit, shape = size / 256, (size, size)
    rows = np.arange(size, dtype=np.float32)[:, None] / np.float32(unit)
    cols = np.arange(size, dtype=np.float32)[None, :] / np.float32(unit)
    boards = int(rng.choice([1, 1, 2, 3]))
    board = np.floor(cols / (256 / boards)) if boards > 1 else np.zeros_like(cols)
    offset = rng.uniform(-90, 330, boards).astype(np.float32)[board.astype(np.intp)]
    across = cols - offset + 7 * noise(rng, shape, (110 * unit, 35 * unit))
    arch = rows + board * 377 - np.float32(rng.uniform(0, 256))
    distance = np.sqrt(across * across + (arch * np.float32(rng.uniform(0.03, 0.2))) ** 2)
    phase = distance / np.float32(rng.uniform(7, 16)) + 0.25 * noise(rng, shape, (150 * unit, 14 * unit))
    ring = phase - np.floor(phase)
    late = ring * ring * (1.0 - smoothstep(0.88, 1.0, ring))
    pores = noise(rng, shape, (26 * unit, unit))
    shade_ = 1.0 - 0.09 * np.maximum(pores, 0.0) + 0.04 * noise(rng, shape, (200 * unit, 12 * unit))
    hue, saturation, value = rng.uniform(0.055, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.45, 0.88)
    light, dark = hsv(hue, saturation, value), hsv(hue - 0.012, saturation + 0.12, value * rng.uniform(0.6, 0.8))
    if boards > 1:
        seam = np.abs(cols / (256 / boards) - np.rint(cols / (256 / boards))) * (256 / boards)
        shade_ = shade_ * (1.0 - 0.55 * smoothstep(1.6, 0.4, seam) * (cols > 4))
        shade_ = shade_ * rng.uniform(0.88, 1.08, boards).astype(np.float32)[board.astype(np.intp)]
    albedo = mix(light, dark, late.astype(np.float32)) * shade_[..., None].astype(np.float32)
    surface = texture(albedo.astype(np.float32), -0.25 * np.maximum(pores, 0), random_light(rng, 0.06, 3))
    return _maybe_transposed(rng, surface)


def leather(rng: Generator, size: int) -> Surface:
    """Pebbled hide in natural or dyed colours."""
    unit, shape = size / 256, (size, size)
    pebbles = cells(rng, shape, float(rng.uniform(6, 14)) * unit)
    dome = np.sqrt(np.clip(pebbles.edge, 0, 0.6))
    creases = noise(rng, shape, 1.0, 2.2)
    relief = rng.uniform(2.0, 3.4) * unit * dome + 0.35 * noise(rng, shape, 2 * unit) + 1.2 * creases
    hue = float(rng.choice([0.05, 0.06, 0.08, 0.02, 0.6, 0.35])) + rng.normal(0, 0.01)
    colour = hsv(hue, rng.uniform(0.3, 0.7), rng.uniform(0.16, 0.6))
    level = 0.72 + 0.36 * dome + 0.06 * noise(rng, shape, 1.0, 2.5) + 0.05 * pebbles.value
    return texture(tinted(colour, level.astype(np.float32)), 0.55 * relief, random_light(rng, 0.22, 3))


def weave(rng: Generator, size: int) -> Surface:
    """Plain or twill cloth with two yarn colours."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, 0.12)
    period = np.float32(rng.uniform(5.5, 13.0) * unit)
    wobble = 0.12 * noise(rng, shape, 25 * unit)
    v, u = rows / period + wobble, cols / period + wobble
    twill = int(rng.choice([2, 2, 3, 4]))
    warp_up = (np.floor(v) + np.floor(u)) % twill < twill / 2
    yarn_u, yarn_v = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
    relief = np.where(warp_up, yarn_u * (0.55 + 0.45 * yarn_v), yarn_v * (0.55 + 0.45 * yarn_u)).astype(np.float32)
    first = hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.85))
    second = first * np.float32(rng.uniform(0.7, 1.0)) if rng.random() < 0.5 else hsv(rng.random(), 0.3, rng.uniform(0.3, 0.8))
    fuzz = 1.0 + 0.1 * noise(rng, shape, 1.2 * unit)
    albedo = mix(first, second, warp_up.astype(np.float32)) * ((0.45 + 0.55 * relief) * fuzz)[..., None]
    return texture(albedo.astype(np.float32), relief * period * 0.22, random_light(rng))


def knit(rng: Generator, size: int) -> Surface:
    """Stockinette: columns of V-shaped stitches."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, 0.1)
    wide = np.float32(rng.uniform(9, 18) * unit)
    tall = wide * np.float32(rng.uniform(0.65, 0.9))
    u = cols / wide + 0.08 * noise(rng, shape, 30 * unit)
    half = np.abs(u - np.floor(u) - 0.5) * 2  # 0 in the middle of a column, 1 between columns
    v = rows / tall + 0.9 * half + 0.08 * noise(rng, shape, 30 * unit)
    strand = np.abs(np.sin(np.pi * v))
    relief = (strand * (1.0 - (2 * half - 1) ** 4)).astype(np.float32)
    colour = hsv(rng.random(), rng.uniform(0.1, 0.65), rng.uniform(0.3, 0.9))
    fibres = 1.0 + 0.09 * noise(rng, shape, (2.5 * unit, unit))
    level = (0.35 + 0.65 * relief) * fibres
    return texture(tinted(colour, level.astype(np.float32)), relief * wide * 0.2, random_light(rng))
