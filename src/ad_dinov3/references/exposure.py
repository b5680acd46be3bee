"""Brightness: one gain per image brings it to the exposure of what it is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_GAIN, MOST_GAIN = 0.7, 1.4
"""Outside of these, an image is not another exposure but another picture."""


def median_grey(image: NDArray[np.uint8]) -> float:
    """Median over the pixels of the mean of an image's channels, (H, W, 3) uint8; in [0, 255]."""
    step = max(1, min(image.shape[:2]) // 128)  # every pixel of a small image, a grid of a large one
    return float(np.median(image[::step, ::step].mean(axis=2)))


def exposure_gain(grey: float, reference: float) -> float:
    """The factor that brings an image's median grey to the reference's, within [0.7, 1.4]; 1 for a black image."""
    return float(np.clip(reference / grey, LEAST_GAIN, MOST_GAIN)) if grey > 0 else 1.0


def apply_gain(image: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    """The image with each value times ``gain``, rounded and cut off at 255."""
    table = np.minimum(np.rint(np.arange(256) * gain), 255).astype(np.uint8)
    brightened: NDArray[np.uint8] = table[image]
    return brightened
