"""Stored values -> grey levels 0..255, and layers -> RGB.

Cameras, scanners and medical devices store more than eight bits in several ways. The windows here depend on the file's
type first and on its values only where the type says nothing, so that two images of one camera stay comparable.

Everything goes by bands of rows, so that beside values and levels nothing of the image's size is allocated, but for one
copy of the values where percentiles are needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.number | np.bool_]

_DEPTHS = (8, 10, 12, 14, 16)
_PERCENTILES = (0.1, 99.9)
_BAND_VALUES = 1 << 20


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
            return _integer_levels(values, 2**bits - 1)
    return _float_levels(values)


def has_finite(values: Pixels) -> bool:
    """Whether at least one value is neither NaN nor infinite."""
    if values.dtype.kind not in "fc":
        return values.size > 0
    return any(bool(np.isfinite(values[rows]).any()) for rows in _bands(values))


def _bands(values: Pixels) -> Iterator[slice]:
    """Slices of the first axis with about a million values each."""
    step = max(1, _BAND_VALUES // max(1, values[:1].size))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _integer_levels(values: Pixels, full_scale: int) -> NDArray[np.uint8]:
    table = np.minimum(np.arange(65536) * 255 / full_scale + 0.5, 255).astype(np.uint8)
    levels = np.empty(values.shape, np.uint8)
    for rows in _bands(values):
        levels[rows] = table[values[rows]]
    return levels


def _float_levels(values: Pixels) -> NDArray[np.uint8]:
    levels = np.zeros(values.shape, np.uint8)
    window = _window(values)
    if window is None:
        return levels
    low, high = window
    half = 1.0 if np.isfinite(high - low) else 0.5  # the whole range of a double has no width that a double can hold
    low, high = low * half, high * half
    scale = 255 / max(high - low, np.finfo(np.float64).tiny)
    for rows in _bands(values):
        numbers = values[rows].real.astype(np.float64) * half
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (np.clip(numbers, low, high) - low) * scale
        levels[rows] = np.nan_to_num(scaled + 0.5, nan=0.0).clip(0, 255).astype(np.uint8)
    return levels


def _window(values: Pixels) -> tuple[float, float] | None:
    """The values that become 0 and 255; None if no value is finite."""
    finite = values.real[np.isfinite(values)] if values.dtype.kind in "fc" else values.ravel()
    if finite.size == 0:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    ordered = finite if values.dtype.kind in "fc" else finite.copy()
    inner_low, inner_high = (_percentile(ordered, share) for share in _PERCENTILES)
    # where nearly all values are equal the full range shows the few others
    return (inner_low, inner_high) if inner_high > inner_low else (low, high)


def _percentile(values: Pixels, percent: float) -> float:
    """numpy.percentile of values (N,), to the bit but in place and without turning them into doubles first."""
    position = percent / 100 * (values.size - 1)
    below = int(position)
    above = min(below + 1, values.size - 1)
    values.partition((below, above))
    first, second, share = float(values[below]), float(values[above]), position - below
    step = second - first
    return second - step * (1 - share) if share >= 0.5 else first + step * share


def looked_up(palette: NDArray[np.uint8], indices: Pixels) -> NDArray[np.uint8]:
    """The colours (H, W, C) of indices (H, W) into a palette (K, C)."""
    colours = np.empty((*indices.shape, palette.shape[1]), np.uint8)
    for rows in _bands(indices):
        colours[rows] = palette[indices[rows]]
    return colours


def to_rgb(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of grey (H, W, 1), grey + alpha (H, W, 2), RGB (H, W, 3) or RGBA (H, W, 4) grey levels.

    Transparent pixels show a white ground, as they do in a browser.
    """
    channels = levels.shape[2]
    colour = levels[:, :, :3] if channels >= 3 else levels[:, :, :1]
    if channels in (2, 4):
        alpha = levels[:, :, -1:]
        if alpha.size and int(alpha.min()) < 255:
            colour = _on_white(colour, alpha)
    return colour if colour.shape[2] == 3 else np.concatenate([colour] * 3, axis=2)


def without_equal_channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) as grey (H, W) if its three channels are equal, as in most industrial and medical images.

    One that is grey (H, W) already stays as it is.
    """
    if image.ndim == 2:
        return image
    bands = (image[rows] for rows in (slice(1), *_bands(image)))  # one row tells of most images that are not grey
    return np.ascontiguousarray(image[:, :, 0]) if all(map(_has_equal_channels, bands)) else image


def _has_equal_channels(image: NDArray[np.uint8]) -> bool:
    values = image.reshape(len(image), -1)
    differs = values[:, 1:] != values[:, :-1]
    differs &= np.arange(1, values.shape[1]) % 3 != 0  # from one pixel to the next they may
    return not differs.any()


def _on_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    blended = np.empty(colour.shape, np.uint8)
    for rows in _bands(colour):
        cover = alpha[rows].astype(np.uint16)
        blended[rows] = (colour[rows] * cover + 255 * (255 - cover) + 127) // 255
    return blended


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels (H, W, ...) turned and mirrored as the EXIF or TIFF orientation 1..8 says; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
