"""Defects of tissue, drawn like the ones of materials: cyst, tumour, mole, polyp, and pale deposits."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import noise
from recipes.synthetic.place import colours_in, marked, mean_colour, paint, place, press, visible
from recipes.synthetic.shapes import blob, ellipse, smoothstep
from recipes.synthetic.surface import Mask, Surface

_SEEN = 0.3


def cyst(surface: Surface, rng: Generator) -> Mask:
    """A dark region that keeps some speckle: sharp and empty, or soft and irregular, brighter below it."""
    window = place(surface, rng, 0.14, 0.6, aspect=1.8)
    drawn = blob(rng, window.shape, float(rng.uniform(0.08, 0.5)), float(rng.uniform(0.1, 0.45)))
    alpha = visible(surface, window, drawn)
    view = colours_in(surface, window)
    below = np.zeros_like(drawn)
    drop = window.shape[0] // 4
    below[drop:] = drawn[:-drop]
    echo = visible(surface, window, np.clip(below - drawn, 0.0, 1.0)) * np.float32(rng.uniform(0.0, 0.4))
    view *= 1.0 + echo[..., None]
    view *= 1.0 - np.float32(rng.uniform(0.5, 0.95)) * alpha[..., None]
    return marked(surface, window, alpha > _SEEN)


def tumour(surface: Surface, rng: Generator) -> Mask:
    """A patch brighter than its surroundings, with a soft edge, sometimes with a dark core."""
    window = place(surface, rng, 0.1, 0.5, aspect=1.6)
    drawn = blob(rng, window.shape, float(rng.uniform(0.15, 0.7)), float(rng.uniform(0.1, 0.6)))
    alpha = visible(surface, window, drawn)
    uneven = 1.0 + 0.2 * window.cut(noise(rng, window.shape, max(window.shape) * 0.15))
    view = colours_in(surface, window)
    base = mean_colour(surface, window)
    lift = (np.float32(rng.uniform(0.25, 1.0)) * base + np.float32(rng.uniform(0.03, 0.15))) * (base > 0.01)
    view += (alpha * uneven).astype(np.float32)[..., None] * lift
    if rng.random() < 0.3:
        core = window.cut(smoothstep(0.3, 0.1, ellipse(rng, window.shape, 1.3))) * alpha
        view *= 1.0 - np.float32(0.7) * core[..., None]
    return marked(surface, window, alpha > _SEEN)


def mole(surface: Surface, rng: Generator) -> Mask:
    """A pigmented or inflamed spot with an irregular border and more than one shade."""
    window = place(surface, rng, 0.12, 0.65, aspect=1.6)
    drawn = blob(rng, window.shape, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.1, 0.6)))
    alpha = visible(surface, window, drawn)
    red = rng.random() < 0.3
    keep = np.array([0.85, 0.45, 0.42] if red else [0.5, 0.34, 0.27]) * rng.uniform(0.7, 1.25)
    shades = window.cut(noise(rng, window.shape, max(window.shape) * 0.12) + 0.6 * noise(rng, window.shape, 3.0))
    weight = np.clip(alpha * (0.85 + 0.18 * shades), 0.0, 1.0)[..., None]
    view = colours_in(surface, window)
    view *= 1.0 - weight * (1.0 - np.minimum(keep, 1.0).astype(np.float32))
    press(surface, window, alpha * np.float32(rng.uniform(0.0, 0.05) * max(window.shape)))
    return marked(surface, window, alpha > _SEEN)


def polyp(surface: Surface, rng: Generator) -> Mask:
    """A bump of the lining: shaded as a dome, redder or paler, with a wet highlight."""
    window = place(surface, rng, 0.15, 0.5, aspect=1.4)
    drawn = blob(rng, window.shape, 0.3, float(rng.uniform(0.05, 0.25)))
    radius = ellipse(rng, window.shape, 1.1)
    alpha = visible(surface, window, drawn)
    dome = window.cut(np.sqrt(np.maximum(0.8 - radius, 0.0)))
    tint = (1.0 + rng.uniform(-0.1, 0.25) + rng.normal(0, 0.07, 3)).astype(np.float32)
    texture = 1.0 + 0.05 * window.cut(noise(rng, window.shape, max(window.shape) * 0.06))
    view = colours_in(surface, window)
    paint(surface, window, alpha, np.clip(view * tint * (0.78 + 0.3 * dome)[..., None] * texture[..., None], 0.0, 1.0))
    press(surface, window, alpha * dome * np.float32(0.16 * min(window.shape)))
    tip = window.cut(np.roll(radius, tuple(rng.integers(-window.shape[0] // 8, window.shape[0] // 8 + 1, 2)), (0, 1)))
    paint(surface, window, 0.85 * alpha * smoothstep(0.035, 0.015, tip), np.ones(3, np.float32))
    return marked(surface, window, alpha > _SEEN)


def deposits(surface: Surface, rng: Generator) -> Mask:
    """Small pale or dark red islands in a group (exudates, bleedings)."""
    window = place(surface, rng, 0.12, 0.5, aspect=1.5)
    size = max(2.0, min(surface.shape) / 256.0 * float(rng.uniform(3.0, 7.0)))
    field = noise(rng, window.shape, size) - 1.3 * np.sqrt(ellipse(rng, window.shape, 1.3))
    alpha = visible(surface, window, smoothstep(0.0, 0.35, np.asarray(field - rng.uniform(-0.3, 0.4), np.float32)))
    base = mean_colour(surface, window)
    pale = np.minimum(base + np.array([0.25, 0.35, 0.2], np.float32), 1.0)
    dark = base * np.array([0.55, 0.3, 0.3], np.float32)
    paint(surface, window, alpha * np.float32(rng.uniform(0.6, 1.0)), pale if rng.random() < 0.6 else dark)
    return marked(surface, window, alpha > _SEEN)
