"""Rendered surfaces and scenes in endless variety; pure functions of a random generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, spatial

Floats = NDArray[np.float32]
Rng = np.random.Generator


def normalised(field: NDArray[np.floating]) -> Floats:
    """The field with mean 0 and deviation 1."""
    return ((field - field.mean()) / (field.std() + 1e-6)).astype(np.float32)


def enlarged(field: NDArray[np.floating], size: int) -> Floats:
    """Bicubic resize of (h, w) to (size, size)."""
    plane = Image.fromarray(np.asarray(field, np.float32))
    return np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC))


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number whose logarithm is uniform: every order of magnitude alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def value_noise(rng: Rng, size: int, cell_px: float, stretch: float = 1.0) -> Floats:
    """Smooth noise (size, size) with one random value every ``cell_px`` pixels."""
    rows = min(max(2, int(size * stretch / cell_px) + 3), size)
    columns = min(max(2, int(size / (cell_px * stretch)) + 3), size)
    return normalised(enlarged(rng.standard_normal((rows, columns)), size))


def fractal_noise(rng: Rng, size: int, stretch: float = 1.0) -> Floats:
    """Octaves of value noise with a random start and decay; a third of them folded into ridges."""
    cell, decay, first = size * rng.uniform(0.2, 0.8), rng.uniform(0.35, 0.9), rng.integers(0, 4)
    out, gain = np.zeros((size, size), np.float32), 1.0
    for octave in range(7):
        if octave >= first and cell >= 1:
            out += gain * value_noise(rng, size, cell, stretch)
            gain *= decay
        cell /= 2
    return normalised(np.abs(out) if rng.random() < 0.3 else out)


def brushed(rng: Rng, size: int) -> Floats:
    """Fractal noise drawn out in one direction."""
    return fractal_noise(rng, size, rng.uniform(1.5, 6))


def periodic(rng: Rng, size: int) -> Floats:
    """Gratings, checks, grids and dots, turned, slightly warped and noisy."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    warp, angle = rng.uniform(0, 0.03), rng.uniform(0, np.pi)
    x = columns + warp * value_noise(rng, size, size * 0.4)
    y = rows + warp * value_noise(rng, size, size * 0.4)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    first, second = rng.uniform(3, 40, 2)
    su = np.sin(2 * np.pi * first * u)
    sv = np.sin(2 * np.pi * (first if rng.random() < 0.6 else second) * v)
    patterns = (
        su,
        su * sv,
        np.maximum(su, sv),
        np.tanh(rng.uniform(1, 6) * (su + sv - rng.uniform(-1, 1.5))),
        np.tanh(4 * su) * (np.tanh(4 * sv) if rng.random() < 0.5 else 1),
    )
    return normalised(patterns[rng.integers(len(patterns))] + rng.uniform(0, 0.8) * fractal_noise(rng, size))


def speckle(rng: Rng, size: int) -> Floats:
    """Multiplicative grain over layered bands, as coherent imaging gives."""
    depth = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    bands = value_noise(rng, size, size * rng.uniform(0.05, 0.3), rng.uniform(1, 5)) * rng.uniform(0.1, 0.5)
    grains = rng.rayleigh(1.0, (size, size)).astype(np.float32)
    grains = normalised(ndimage.gaussian_filter(grains, (rng.uniform(0.4, 1.5), rng.uniform(0.4, 2.5))))
    lit = np.exp(bands + rng.uniform(-1, 1) * depth)
    return normalised(lit * np.maximum(1 + rng.uniform(0.15, 0.6) * grains, 0))


def cells(rng: Rng, size: int) -> Floats:
    """Voronoi cells with edges: grains of metal, tiles, tissue."""
    half, count = size // 2, int(rng.integers(8, 200))
    rows, columns = np.mgrid[:half, :half]
    tree = spatial.cKDTree(rng.random((count, 2)) * half)
    distance, nearest = tree.query(np.stack([rows, columns], -1).reshape(-1, 2), k=2)
    edge = np.tanh((distance[:, 1] - distance[:, 0]) / rng.uniform(1, 4)) * rng.choice([-1, 1])
    shade = rng.standard_normal(count)[nearest[:, 0]] * rng.uniform(0, 0.6)
    plane = enlarged((edge + shade).reshape(half, half), size)
    return normalised(plane + rng.uniform(0, 0.4) * fractal_noise(rng, size))


def grain(rng: Rng, size: int) -> Floats:
    """White noise blurred by one or two widths."""
    width = rng.uniform(0, 4, 2) if rng.random() < 0.5 else np.repeat(rng.uniform(0, 3), 2)
    return normalised(ndimage.gaussian_filter(rng.standard_normal((size, size)), tuple(width)))


_FIELDS: tuple[tuple[float, Callable[[Rng, int], Floats]], ...] = (
    (0.27, fractal_noise),
    (0.15, brushed),
    (0.20, periodic),
    (0.16, speckle),
    (0.08, cells),
    (0.14, grain),
)


def coloured(rng: Rng, field: Floats, contrast: float) -> Floats:
    """A field as a colour image (size, size, 3): a base colour plus the field along a colour direction."""
    base = rng.uniform(0.15, 0.85) + rng.normal(0, 0.12, 3) * (rng.random() < 0.6)
    direction = 1 + rng.normal(0, 0.4, 3) * (rng.random() < 0.5)
    return (base + contrast * field[..., None] * direction).astype(np.float32)


def texture(rng: Rng, size: int) -> Floats:
    """A colour surface (size, size, 3) in [0, 1]."""
    kind = rng.choice(len(_FIELDS), p=[share for share, _ in _FIELDS])
    out = coloured(rng, _FIELDS[kind][1](rng, size), rng.uniform(0.02, 0.18))
    if rng.random() < 0.4:
        fine = grain(rng, size) if rng.random() < 0.5 else fractal_noise(rng, size)
        out = out + coloured(rng, fine, rng.uniform(0.01, 0.06)) - 0.5
    if rng.random() < 0.4:
        out = np.rot90(out)
    if rng.random() < 0.4:
        out = out + rng.uniform(0.02, 0.12) * value_noise(rng, size, size * 0.9)[..., None]
    return np.clip(out, 0, 1).astype(np.float32)


def blob(rng: Rng, size: int, centre: NDArray[np.floating], radius_px: float, rough: float) -> Floats:
    """Soft indicator (size, size) in [0, 1] of a turned ellipse, box or diamond with a rough edge."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle, squeeze, power = rng.uniform(0, np.pi), rng.uniform(0.5, 1), rng.choice([2.0, 2.0, 4.0, 1.3])
    y, x = rows - centre[0], columns - centre[1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) / squeeze
    distance = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power) / radius_px
    if rough > 0:
        distance = distance + rough * value_noise(rng, size, max(2.0, radius_px * rng.uniform(0.3, 1.0)))
    softness_px = rng.choice([1.0, 2.0, 0.25 * radius_px, 0.6 * radius_px])
    return np.clip((1 - distance) * radius_px / max(softness_px, 1.0) + 0.5, 0, 1).astype(np.float32)


def scene(rng: Rng, size: int) -> Floats:
    """A surface, or one or many objects on a background: (size, size, 3) in [0, 1], without a defect."""
    out = texture(rng, size)
    if rng.random() < 0.5:
        return out
    if rng.random() < 0.5:
        out = rng.uniform(0, 1) * (1 + 0.1 * (out - 0.5))  # an almost even background
    return np.clip(_many_objects(rng, out) if rng.random() < 0.3 else _one_object(rng, out), 0, 1).astype(np.float32)


def _many_objects(rng: Rng, out: Floats) -> Floats:
    size, skin = len(out), texture(rng, len(out))
    rough, seed = rng.choice([0, 0.05, 0.15]), int(rng.integers(1 << 31))
    for _ in range(int(rng.integers(4, 16))):
        centre, radius = rng.uniform(0.1, 0.9, 2) * size, size * rng.uniform(0.07, 0.13)
        shape = blob(np.random.default_rng(seed), size, centre, radius, rough)[..., None]  # all of one shape
        out = out * (1 - shape) + skin * shape
    return out


def _one_object(rng: Rng, out: Floats) -> Floats:
    size, skin = len(out), texture(rng, len(out))
    centre, radius = rng.uniform(0.4, 0.6, 2) * size, size * rng.uniform(0.25, 0.48)
    body = blob(rng, size, centre, radius, rng.choice([0, 0.05, 0.15]))[..., None]
    out = out * (1 - body) + skin * body
    for _ in range(int(rng.integers(0, 4))):
        inner = centre + rng.normal(0, 0.3, 2) * radius
        part = body * blob(rng, size, inner, radius * rng.uniform(0.15, 0.7), 0.1)[..., None]
        if part.mean() > 0.06:  # smaller parts would be labelled normal and look like defects
            out = out * (1 - part) + texture(rng, size) * part
    return out
