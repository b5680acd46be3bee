"""Defects with exact masks, drawn into any image: shapes times fills."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from recipes.synthetic.plain import Floats, Rng, blob, fractal_noise, log_uniform, value_noise

_LARGEST_SHARE = 0.3  # of the image; beyond that it is unclear which part is the anomaly
_LEAST_CHANGE = 0.025  # mean absolute change inside the mask; what nobody sees is no defect


def _blobs(rng: Rng, size: int) -> Floats:
    out = np.zeros((size, size), np.float32)
    for _ in range(1 if rng.random() < 0.75 else int(rng.integers(2, 4))):
        centre, radius = rng.uniform(0.1, 0.9, 2) * size, max(size * log_uniform(rng, 0.02, 0.22), 1.5)
        out = np.maximum(out, blob(rng, size, centre, radius, rng.choice([0, 0.1, 0.25])))
    return out


def _pits(rng: Rng, size: int) -> Floats:
    out = np.zeros((size, size), np.float32)
    centre, spread = rng.uniform(0.1, 0.9, 2) * size, size * rng.uniform(0.02, 0.15)
    for _ in range(int(rng.integers(1, 9))):
        out = np.maximum(out, blob(rng, size, centre + rng.normal(0, spread, 2), rng.uniform(1.2, size * 0.02), 0))
    return out


def _curve(rng: Rng, size: int) -> Floats:
    """Scratches and cracks: random walks of random stiffness, some of them broken."""
    twice = 2 * size  # drawn at double size, since the pen does not smooth edges
    canvas = Image.new("L", (twice, twice))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        count = int(rng.integers(5, 60))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.choice([0.02, 0.15, 0.5]), count))
        stride = twice * rng.uniform(0.1, 0.9) / count
        walk = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * stride, 0)
        points = rng.uniform(0.1, 0.9, 2) * twice + walk
        pen.line([tuple(p) for p in points.tolist()], fill=255, width=int(log_uniform(rng, 2, 14)), joint="curve")
    out = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    return out * (value_noise(rng, size, size * 0.1) > -0.7) if rng.random() < 0.3 else out


def _islands(rng: Rng, size: int) -> Floats:
    """Thresholded smooth noise (as DRAEM's Perlin masks), often only one island of it."""
    field = value_noise(rng, size, size * log_uniform(rng, 0.06, 0.4), rng.choice([1, 1, 2, 0.5]))
    out = np.clip((field - rng.uniform(1.2, 2.2)) * rng.uniform(3, 12) + 0.5, 0, 1)
    if rng.random() < 0.6:
        labels, count = ndimage.label(out > 0.3)
        if count > 1:
            out = out * (labels == rng.integers(1, count + 1))
    return out.astype(np.float32)


def _polygon(rng: Rng, size: int) -> Floats:
    canvas = Image.new("L", (size, size))
    centre, radius = rng.uniform(0.1, 0.9, 2) * size, size * log_uniform(rng, 0.03, 0.2)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
    reach, squeeze = rng.uniform(0.4, 1, len(angles)) * radius, rng.uniform(0.3, 1)
    corners = np.stack([centre[1] + reach * np.cos(angles), centre[0] + squeeze * reach * np.sin(angles)], 1)
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in corners.tolist()], fill=255)
    return ndimage.gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0.3, 1.5))


def _shifted(rng: Rng, image: Floats, mask: Floats) -> Floats:
    tint = 1 + 0.3 * rng.normal(size=3) * (rng.random() < 0.4)
    step = rng.choice([-1, 1]) * log_uniform(rng, 0.06, 0.5) * tint
    return image + step + rng.uniform(0, 0.05) * fractal_noise(rng, len(image))[..., None]


def _scaled(rng: Rng, image: Floats, mask: Floats) -> Floats:
    share = rng.uniform(0.2, 0.8)
    return image * share if rng.random() < 0.5 else 1 - (1 - image) * share


def _blurred(rng: Rng, image: Floats, mask: Floats) -> Floats:
    return ndimage.gaussian_filter(image, (*rng.uniform(1.5, 6, 2), 0)) + rng.normal(0, 0.08)


def _noisy(rng: Rng, image: Floats, mask: Floats) -> Floats:
    return image + rng.normal(0, rng.uniform(0.05, 0.2), (*mask.shape, 1 if rng.random() < 0.6 else 3))


def _moved(rng: Rng, image: Floats, mask: Floats) -> Floats:
    """Another place of the same image, mirrored (CutPaste)."""
    steps = rng.integers(len(image) // 8, len(image) - len(image) // 8, 2)
    return np.roll(image, tuple(steps), (0, 1))[:, ::-1] + rng.normal(0, 0.05)


def _embossed(rng: Rng, image: Floats, mask: Floats) -> Floats:
    """Lit on one side and dark on the other, as a dent or a bump."""
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(mask, rng.uniform(0.7, 2.5)))
    angle = rng.uniform(0, 2 * np.pi)
    rim = np.cos(angle) * slope_x + np.sin(angle) * slope_y
    rim = rim / (np.abs(rim).max() + 1e-6)
    return image + rng.uniform(0.2, 0.7) * rim[..., None] + rng.choice([-1, 1]) * rng.uniform(0, 0.15)


def _restructured(rng: Rng, image: Floats, mask: Floats) -> Floats:
    if rng.random() < 0.5:
        return np.rot90(image, int(rng.integers(1, 4)))
    return image.mean((0, 1)) + (image - image.mean((0, 1))) * rng.choice([0.2, 2.0, 3.0])


_SHAPES = ((0.32, _blobs), (0.13, _pits), (0.27, _curve), (0.18, _islands), (0.10, _polygon))
_FILLS = (
    (0.35, _shifted),
    (0.10, _scaled),
    (0.10, _blurred),
    (0.07, _noisy),
    (0.10, _moved),
    (0.08, _embossed),
    (0.06, _restructured),
    (0.14, None),  # something else: another image, more or less opaque
)


def add_defect(rng: Rng, image: Floats, donor: Callable[[], Floats]) -> tuple[Floats, Floats]:
    """One defect drawn into (S, S, 3) in [0, 1]: the changed image, and its mask (S, S) in {0, 1}.

    The mask is empty, and the image as it was, if the draw came out too large or invisible.
    """
    size = len(image)
    unchanged = image, np.zeros((size, size), np.float32)
    shape = _SHAPES[rng.choice(len(_SHAPES), p=[share for share, _ in _SHAPES])][1]
    mask = shape(rng, size)
    if (mask > 0.3).mean() > _LARGEST_SHARE:
        return unchanged
    fill = _FILLS[rng.choice(len(_FILLS), p=[share for share, _ in _FILLS])][1]
    if fill is None:
        opacity = rng.uniform(0.5, 1.0)
        content = donor() * opacity + image * (1 - opacity)
    else:
        content = fill(rng, image, mask)
    blend = mask if rng.random() < 0.8 else ndimage.gaussian_filter(mask, rng.uniform(1, 3))
    out = np.clip(image + (content - image) * blend[..., None], 0, 1).astype(np.float32)
    inside = mask > 0.35
    if not inside.any() or np.abs(out - image).mean(2)[inside].mean() < _LEAST_CHANGE:
        return unchanged
    return out, inside.astype(np.float32)
