"""Stored values -> grey levels 0..255, and layers -> RGB.

Cameras, scanners and medical devices store more than eight bits in several ways. The windows here depend on the file's
type first and on its values only where the type says nothing, so that two images of one camera stay comparable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.number | np.bool_]

_DEPTHS = (8, 10, 12, 14, 16)
_PERCENTILES = (0.1, 99.9)


def to_levels(values: Pixels) -> NDArray[np.uint8]:
    """Grey levels 0..255 of values (any shape) of any numeric type.

    - bool: 0 and 255; uint8: as they are.
    - Non-negative integers up to 65535: the smallest usual depth (8, 10, 12, 14, 16 bits) that holds the maximum is
      full scale, so 16-bit data are value / 257 and 12-bit data in a 16-bit file are value / 16.06.
    - Floats within [0, 1]: times 255.
    - Everything else (signed, 32-bit, floats of a physical unit): the window from the 0.1 to the 99.9 percentile of
      the finite values; what lies outside is clipped, NaN becomes 0.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.size == 0:
        return np.zeros(values.shape, np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high <= 65535:
            bits = next(depth for depth in _DEPTHS if high < 2**depth)
            return _integer_levels(values.astype(np.uint16, copy=False), 2**bits - 1)
    return _float_levels(values)


def _integer_levels(values: NDArray[np.uint16], full_scale: int) -> NDArray[np.uint8]:
    table = np.minimum(np.arange(65536) * 255 / full_scale + 0.5, 255).astype(np.uint8)
    return table[values]


def _float_levels(values: Pixels) -> NDArray[np.uint8]:
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        inner_low, inner_high = (float(edge) for edge in np.percentile(finite, _PERCENTILES))
        if inner_high > inner_low:  # else nearly all values are equal, and the full range shows the few others
            low, high = inner_low, inner_high
    scaled = (np.clip(numbers, low, high) - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    return np.nan_to_num(scaled + 0.5, nan=0.0).clip(0, 255).astype(np.uint8)


def to_rgb(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of grey (H, W, 1), grey + alpha (H, W, 2), RGB (H, W, 3) or RGBA (H, W, 4) grey levels.

    Transparent pixels show a white ground, as they do in a browser.
    """
    channels = levels.shape[2]
    colour = levels[:, :, :3] if channels >= 3 else levels[:, :, :1]
    if channels in (2, 4):
        alpha = levels[:, :, -1:]
        if alpha.size and int(alpha.min()) < 255:
            cover = alpha.astype(np.uint16)
            colour = ((colour * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)
    return colour if colour.shape[2] == 3 else np.repeat(colour, 3, axis=2)  # a third of what broadcasting takes


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels (H, W, ...) turned and mirrored as the EXIF or TIFF orientation 1..8 says; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
