"""What two images are compared by: the tokens of all stages on one scale, each with its neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ShapeError

NEIGHBOURHOODS = (1, 3, 5)
"""Sides, in cells, of the windows whose means are averaged (MuSc, ICLR 2024, compares each of them on its own)."""
MOST_CELLS = 40
"""Of a side of the grid that is compared; finer grids are averaged down, since the work grows with the fourth power."""
TOKEN_LENGTH = 128
"""Of a comparison token; longer ones are projected."""

Floats = NDArray[np.float32]


def comparison_tokens(
    stages: Sequence[NDArray[np.floating]],
    neighbourhoods: Sequence[int] = NEIGHBOURHOODS,
    projection: Floats | None = None,
) -> Floats:
    """One unit vector per cell: stages L2-normalised, joined, averaged over cells and neighbourhoods, L2-normalised.

    The mean of a window that sticks out of the grid is that of its cells inside. Means and projection are linear and
    change places at will, so the projection, which makes tokens short, comes first.

    Args:
        stages: tokens (..., h, w, C_l) of each stage, on one grid.
        neighbourhoods: odd sides of windows, in cells; their means are averaged.
        projection: (sum of C_l, D); None leaves the tokens as long as they are.

    Returns:
        (..., h', w', D) float32 of length 1, h' and w' at most ``MOST_CELLS``; cells whose tokens are all 0 stay 0.

    Raises:
        ShapeError: no stages, stages on different grids, or a projection of another width.
    """
    if not stages or any(stage.ndim < 3 or stage.shape[:-1] != stages[0].shape[:-1] for stage in stages):
        raise ShapeError(f"expected stages (..., h, w, C) on one grid, got {[stage.shape for stage in stages]}")
    joined = np.concatenate([unit(stage) for stage in stages], axis=-1)
    if projection is not None:
        if projection.shape[:1] != joined.shape[-1:]:
            raise ShapeError(f"expected a projection of {joined.shape[-1]} channels, got {projection.shape}")
        joined = joined @ projection
    joined = coarser(joined, coarsening(joined.shape[-3:-1]))
    return unit(sum((window_mean(joined, side) for side in neighbourhoods), np.zeros((), np.float32)))


def unit(tokens: NDArray[np.floating]) -> Floats:
    """Vectors (..., C) of length 1, float32; zeros stay zeros."""
    single = tokens.astype(np.float32, copy=False)
    length = np.sqrt(np.einsum("...c,...c->...", single, single))[..., None]
    scaled: Floats = single / np.maximum(length, np.float32(1e-12))
    return scaled


def window_mean(tokens: Floats, side: int) -> Floats:
    """Mean of (..., h, w, C) over a window of ``side`` x ``side`` cells around each cell, of the cells that exist.

    Raises:
        ShapeError: the side is even.
    """
    if side % 2 == 0:
        raise ShapeError(f"expected a window of an odd side, got {side}")
    for axis in (-3, -2):
        tokens = _line_mean(tokens, side // 2, axis)
    return tokens


def coarsening(grid: tuple[int, ...]) -> int:
    """How many cells of a grid (h, w) a side of a new cell covers, so that there are at most ``MOST_CELLS`` a side."""
    return -(-max(grid) // MOST_CELLS)


def coarser(tokens: Floats, factor: int) -> Floats:
    """Means of (..., h, w, C) over ``factor`` x ``factor`` cells; what is left over at the ends makes smaller ones."""
    if factor == 1:
        return tokens
    for axis in (-3, -2):
        starts = np.arange(0, tokens.shape[axis], factor)
        sizes = np.diff(np.append(starts, tokens.shape[axis])).astype(np.float32)
        sums = np.add.reduceat(tokens, starts, axis=axis)
        tokens = (sums / sizes.reshape(-1, *[1] * (-axis - 1))).astype(np.float32, copy=False)
    return tokens


def _line_mean(tokens: Floats, reach: int, axis: int) -> Floats:
    """Mean over ``reach`` cells to either side along an axis."""
    length = tokens.shape[axis]
    moved = np.moveaxis(tokens, axis, 0)
    total = moved.copy()
    count = np.ones(length, np.float32)
    for shift in range(1, min(reach, length - 1) + 1):
        total[shift:] += moved[:-shift]
        total[:-shift] += moved[shift:]
        count[shift:] += 1
        count[:-shift] += 1
    total /= count.reshape(-1, *[1] * (total.ndim - 1))
    return np.moveaxis(total, 0, axis)


def seeded_projection(width: int, length: int = TOKEN_LENGTH, seed: int = 0) -> Floats | None:
    """Columns (width, length) of a random orthonormal matrix; None where tokens of ``width`` are short enough.

    Cosines of projected tokens are those of the tokens within about 1 / sqrt(length).
    """
    if width <= length:
        return None
    drawn = np.random.default_rng(seed).standard_normal((width, length))
    basis, triangle = np.linalg.qr(drawn)
    return (basis * np.sign(np.diag(triangle))).astype(np.float32)  # signs that do not depend on the LAPACK in use
