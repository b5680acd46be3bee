"""Mineral, glassy and rubbery materials that fill the picture: tile, concrete, asphalt, marble, rubber, glass."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import cells, noise
from recipes.synthetic.palette import hsv, maybe_transposed, mix, texture, tinted, turned
from recipes.synthetic.shapes import smoothstep
from recipes.synthetic.surface import Surface, random_light


def ceramic_tile(rng: Generator, size: int) -> Surface:
    """Glazed tiles with grout lines; each tile has its own shade."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape, 0.04)
    tall = np.float32(rng.uniform(50, 190) * unit)
    wide = tall * np.float32(rng.choice([1.0, 1.0, 2.0]))
    line = np.floor(rows / tall)
    shift = np.float32(0.5) * (line % 2) if rng.random() < 0.5 else np.float32(0.0) * line
    column = np.floor(cols / wide + shift)
    dy = (0.5 - np.abs(rows / tall - line - 0.5)) * tall
    dx = (0.5 - np.abs(cols / wide + shift - column - 0.5)) * wide
    inside = np.minimum(dx, dy)
    joint = float(rng.uniform(1.5, 3.5) * unit)
    face = smoothstep(joint - 0.7, joint + 0.7, inside)
    tone = rng.normal(1.0, 0.03, 64)[((line * 7 + column * 13) % 64).astype(np.intp)]
    glaze = hsv(rng.random(), rng.uniform(0.0, 0.45), rng.uniform(0.35, 0.92))
    clouds = rng.uniform(0.0, 0.07) * noise(rng, shape, unit, 2.0) + 0.01 * noise(rng, shape, 2 * unit)
    grout = tinted(hsv(0.1, 0.08, rng.uniform(0.3, 0.75)), 1.0 + 0.1 * noise(rng, shape, 1.5 * unit))
    albedo = mix(grout, tinted(glaze, (tone + clouds).astype(np.float32)), face)
    relief = smoothstep(joint, joint + float(rng.uniform(3, 7) * unit), inside) * 2.2 * unit + 0.5 * noise(
        rng, shape, 60 * unit
    )
    return texture(albedo, relief, random_light(rng, 0.25, 6))


def concrete(rng: Generator, size: int) -> Surface:
    """Cast concrete or plaster: cloudy tone, fine sand, a few air voids."""
    unit, shape = size / 256, (size, size)
    level = (
        1.0
        + 0.05 * noise(rng, shape, unit, 2.0)
        + 0.04 * noise(rng, shape, 1.1 * unit)
        + 0.03 * noise(rng, shape, 4 * unit)
    )
    colour = hsv(rng.uniform(0.05, 0.6), rng.uniform(0.0, 0.14), rng.uniform(0.4, 0.75))
    relief = 0.3 * noise(rng, shape, 1.5 * unit) + 0.5 * noise(rng, shape, unit, 2.5)
    voids = cells(rng, shape, 30 * unit)
    hole = smoothstep(0.11, 0.06, voids.distance) * (voids.value > rng.uniform(0.6, 1.0))
    level = level * (1.0 - 0.35 * hole)
    return texture(tinted(colour, level.astype(np.float32)), relief - 1.2 * hole, random_light(rng))


def asphalt(rng: Generator, size: int) -> Surface:
    """Road surface: stones of mixed brightness in dark binder."""
    unit, shape = size / 256, (size, size)
    stones = cells(rng, shape, float(rng.uniform(4, 8)) * unit)
    dome = smoothstep(0.0, 0.3, stones.edge)
    base = rng.uniform(0.25, 0.6)
    level = base * (0.82 + 0.22 * dome + rng.uniform(0.2, 0.5) * (stones.value - 0.5) * dome)
    level = level * (1.0 + 0.1 * noise(rng, shape, unit) + 0.05 * noise(rng, shape, unit, 2.5))
    colour = hsv(float(rng.choice([0.08, 0.6, 0.62])), rng.uniform(0.0, 0.15), 1.0)
    return texture(
        tinted(colour, level.astype(np.float32)), 0.8 * dome * unit + 0.25 * noise(rng, shape, unit), random_light(rng)
    )


def marble(rng: Generator, size: int) -> Surface:
    """Polished stone with veins at two scales."""
    unit, shape = size / 256, (size, size)
    _, cols = turned(rng, shape)
    warp = noise(rng, shape, 4 * unit, 3.0)
    wave = np.sin(cols / np.float32(rng.uniform(25, 50) * unit) + rng.uniform(1.2, 2.6) * warp)
    thick = smoothstep(-1.2, 1.2, noise(rng, shape, 45 * unit))
    veins = np.exp(-np.abs(wave) * rng.uniform(6, 12)) * thick
    branches = np.exp(-np.abs(noise(rng, shape, 30 * unit) + 0.5 * warp) * 28) * 0.6 * (1 - 0.6 * thick)
    fine = 0.35 * np.exp(-np.abs(noise(rng, shape, 2 * unit, 2.5)) * 12)
    hue, value = ((0.1, 0.9), (0.6, 0.88), (0.4, 0.25), (0.6, 0.16), (0.05, 0.5), (0.35, 0.35))[int(rng.integers(6))]
    ground = hsv(hue, rng.uniform(0.02, 0.2), value)
    vein = ground * np.float32(rng.uniform(0.4, 0.7)) if value > 0.45 else ground + np.float32(0.45)
    body = tinted(ground, (1.0 + 0.06 * noise(rng, shape, 2 * unit, 2.5)).astype(np.float32))
    albedo = mix(body, vein, np.clip(veins + branches + fine, 0, 1).astype(np.float32))
    return texture(albedo, 0.3 * noise(rng, shape, 80 * unit), random_light(rng, 0.15, 6))


def rubber(rng: Generator, size: int) -> Surface:
    """Dark moulded rubber: smooth, ribbed or studded."""
    unit, shape = size / 256, (size, size)
    relief = 0.25 * noise(rng, shape, 1.5 * unit)
    kind = int(rng.integers(3))
    if kind > 0:
        rows, cols = turned(rng, shape, np.pi if rng.random() < 0.3 else 0.05)
        pitch = np.float32(rng.uniform(14, 40) * unit)
        ridge = np.abs(np.sin(np.pi * cols / pitch))
        if kind == 2:
            ridge = ridge * np.abs(np.sin(np.pi * rows / pitch))
        relief = relief + smoothstep(0.2, 0.7, np.asarray(ridge, np.float32)) * pitch * 0.16
    level = rng.uniform(0.08, 0.24) * (1.0 + 0.08 * noise(rng, shape, unit, 2.5) + 0.05 * noise(rng, shape, unit))
    colour = hsv(rng.random(), rng.uniform(0, 0.1) if rng.random() < 0.8 else 0.6, 1.0)
    return texture(tinted(colour, level.astype(np.float32)), np.asarray(relief, np.float32), random_light(rng, 0.3, 3))


def glass(rng: Generator, size: int) -> Surface:
    """Glass or glaze: a smooth tint with soft reflections of windows and lamps."""
    unit, shape = size / 256, (size, size)
    rows, cols = turned(rng, shape)
    blend = smoothstep(-1.0, 1.0, np.asarray(rows / (size * 0.6) + 0.25 * noise(rng, shape, 150 * unit), np.float32))
    hue = rng.uniform(0.3, 0.7)
    albedo = mix(
        hsv(hue, rng.uniform(0.05, 0.4), rng.uniform(0.3, 0.6)), hsv(hue + 0.04, 0.2, rng.uniform(0.55, 0.9)), blend
    )
    for _ in range(int(rng.integers(1, 4))):
        centre, width = rng.uniform(-0.5, 0.5) * size, rng.uniform(6, 45) * unit
        band = smoothstep(
            float(width),
            float(width * rng.uniform(0.5, 0.9)),
            np.abs(cols - centre + 4 * unit * noise(rng, shape, 90 * unit)),
        )
        albedo += (rng.uniform(0.04, 0.2) * band * (0.4 + 0.6 * blend)).astype(np.float32)[..., None]
    albedo *= (1.0 + 0.008 * noise(rng, shape, 1.5 * unit))[..., None]
    return maybe_transposed(rng, texture(albedo, np.zeros(shape, np.float32), random_light(rng, 0.1, 6)))
