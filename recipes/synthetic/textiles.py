"""Grown and woven materials that fill the picture: wood, leather, cloth, knitwear, carpet, paper."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import cells, noise
from recipes.synthetic.palette import hsv, maybe_transposed, mix, texture, tinted, turned
from recipes.synthetic.shapes import smoothstep
from recipes.synthetic.surface import Surface, random_light


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
    return maybe_transposed(rng, surface)


def leather(rng: Generator, size: int) -> Surface:
    """Pebbled hide in natural or dyed colours."""
    unit, shape = size / 256, (size, size)
    pebbles = cells(rng, shape, float(rng.uniform(6, 13)) * unit)
    dome = smoothstep(0.0, float(rng.uniform(0.25, 0.5)), pebbles.edge)
    creases = noise(rng, shape, 8 * unit, 3.0)
    relief = rng.uniform(0.8, 1.5) * unit * dome + 0.08 * noise(rng, shape, 1.5 * unit) + 1.5 * unit * creases
    hue = float(rng.choice([0.05, 0.06, 0.08, 0.02, 0.6, 0.35])) + rng.normal(0, 0.01)
    dyed = hue > 0.1
    colour = hsv(hue, rng.uniform(0.2, 0.45 if dyed else 0.7), rng.uniform(0.16, 0.4 if dyed else 0.6))
    level = 0.8 + 0.2 * dome + 0.06 * noise(rng, shape, unit, 2.5) + 0.05 * pebbles.value
    return texture(tinted(colour, level.astype(np.float32)), relief, random_light(rng, 0.2, 3))


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
    second = (
        first * np.float32(rng.uniform(0.7, 1.0))
        if rng.random() < 0.5
        else hsv(rng.random(), 0.3, rng.uniform(0.3, 0.8))
    )
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


def carpet(rng: Generator, size: int) -> Surface:
    """Cut or loop pile in rows, with flecks of other yarn."""
    unit, shape = size / 256, (size, size)
    pile = cells(rng, shape, float(rng.uniform(4.5, 8.0)) * unit)
    strands = noise(rng, shape, 1.2 * unit)
    hue, value = rng.random(), rng.uniform(0.25, 0.75)
    first, second = (
        hsv(hue, rng.uniform(0.0, 0.5), value),
        hsv(hue + rng.normal(0, 0.1), 0.35, value * rng.uniform(0.5, 1.3)),
    )
    flecks = smoothstep(0.6, 0.8, pile.value) if rng.random() < 0.6 else np.zeros(shape, np.float32)
    height = 1.0 - np.minimum(pile.distance, 1.0)
    level = 0.45 + 0.75 * height + 0.1 * strands + 0.06 * noise(rng, shape, unit, 3.0)
    albedo = mix(first, second, flecks) * level[..., None]
    return texture(albedo.astype(np.float32), 2.5 * unit * height + 0.5 * strands, random_light(rng))


def paper(rng: Generator, size: int) -> Surface:
    """Paper or card: cloudy formation, fibres, tooth."""
    unit, shape = size / 256, (size, size)
    hue = float(rng.choice([0.1, 0.12, 0.08, 0.55, 0.95]))
    colour = hsv(hue, rng.uniform(0.0, 0.3), rng.uniform(0.6, 0.92))
    formation = noise(rng, shape, 5 * unit) + noise(rng, shape, unit, 2.0)
    fibres = np.maximum(noise(rng, shape, (1.2 * unit, 9 * unit)), 1.6) + np.maximum(
        noise(rng, shape, (9 * unit, 1.2 * unit)), 1.6
    )
    level = 1.0 + 0.012 * formation - rng.uniform(0.0, 0.12) * (fibres - 3.2)
    relief = rng.uniform(0.05, 0.3) * noise(rng, shape, 1.6 * unit) + 0.3 * noise(rng, shape, unit, 2.5)
    return texture(tinted(colour, level.astype(np.float32)), relief, random_light(rng))


def printed(rng: Generator, size: int) -> Surface:
    """A repeated printed motif: dots, stripes, checks, rings or diamonds."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, np.pi if rng.random() < 0.3 else 0.1)
    pitch = np.float32(rng.uniform(16, 44) * unit)
    line = np.floor(rows / pitch)
    shift = 0.5 * (line % 2) if rng.random() < 0.5 else np.float32(0.0)
    dy, dx = rows / pitch - line - 0.5, cols / pitch + shift - np.floor(cols / pitch + shift) - 0.5
    far = np.sqrt(dx * dx + dy * dy)
    square = np.maximum(np.abs(dx), np.abs(dy))
    field = (far, np.abs(far - 0.3) + 0.18, np.abs(dx) + 0.1, square, (np.abs(dx) + np.abs(dy)) * 0.75)[
        int(rng.integers(5))
    ]
    ink = smoothstep(0.3, 0.3 - float(1.6 / pitch), np.asarray(field, np.float32))
    second = smoothstep(0.13, 0.13 - float(1.6 / pitch), far) if rng.random() < 0.5 else np.zeros(shape, np.float32)
    hue, dark = rng.random(), rng.random() < 0.3
    ground = (
        hsv(hue, 0.45, 0.3)
        if dark
        else hsv(rng.choice([0.1, 0.13, 0.58]), rng.uniform(0, 0.12), rng.uniform(0.75, 0.95))
    )
    first = hsv(
        hue + float(rng.choice([0.0, 0.08, 0.5])), rng.uniform(0.1, 0.7), 0.85 if dark else rng.uniform(0.3, 0.65)
    )
    accent = hsv(hue + 0.04, 0.6, rng.uniform(0.3, 0.9))
    albedo = mix(mix(np.broadcast_to(ground, (*shape, 3)), first, ink), accent, second)
    albedo = albedo * (1.0 + 0.03 * noise(rng, shape, unit))[..., None]
    return texture(albedo.astype(np.float32), 0.12 * noise(rng, shape, 1.5 * unit), random_light(rng))


def mesh(rng: Generator, size: int) -> Surface:
    """Woven wire or a plastic grid over a dark or light ground."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, 0.8 if rng.random() < 0.4 else 0.08)
    pitch = np.float32(rng.uniform(12, 32) * unit)
    v, u = rows / pitch + 0.02 * noise(rng, shape, 40 * unit), cols / pitch + 0.02 * noise(rng, shape, 40 * unit)
    dv, du = np.abs(v - np.rint(v)), np.abs(u - np.rint(u))
    thick = float(rng.uniform(0.1, 0.2))
    bar_v = np.sqrt(np.maximum(1.0 - (dv / thick) ** 2, 0.0)) * (1.0 + 0.35 * np.cos(np.pi * (u + np.rint(v))))
    bar_u = np.sqrt(np.maximum(1.0 - (du / thick) ** 2, 0.0)) * (1.0 - 0.35 * np.cos(np.pi * (v + np.rint(u))))
    relief = np.maximum(bar_u, bar_v).astype(np.float32)
    ground = hsv(rng.random(), 0.15, rng.uniform(0.05, 0.7))
    wire = hsv(rng.random(), rng.uniform(0.0, 0.3), rng.uniform(0.35, 0.85))
    under = np.broadcast_to(ground, (*shape, 3)) * (1.0 + 0.04 * noise(rng, shape, 2 * unit))[..., None]
    albedo = mix(under.astype(np.float32), wire, smoothstep(0.05, 0.4, relief))
    return texture(albedo, relief * pitch * np.float32(thick * 0.9), random_light(rng, 0.3, 3))
