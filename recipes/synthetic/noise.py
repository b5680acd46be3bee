"""Noise fields in microseconds: crops of tiles that are made once and resampled to the wavelength asked for.

A tile is periodic and fixed by its own seed, so equal generators draw equal fields. Resampling is Pillow's bicubic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from scipy.spatial import cKDTree

Plane = NDArray[np.floating]  # float32 wherever speed counts
Shape = tuple[int, int]

_SIDE = 512  # cells along one side of a tile
_CELL = 16  # tile cells along one side of a Voronoi cell


@dataclass(frozen=True)
class Cells:
    """A Voronoi diagram as pictures, each (H, W) float32.

    Attributes:
        distance: distance to the nearest seed, in units of the cell size.
        edge: distance to the second nearest minus the nearest, 0 on the borders between cells.
        value: one number in [0, 1] for each cell.
    """

    distance: Plane
    edge: Plane
    value: Plane


def _tiled(field: NDArray[np.floating]) -> Image.Image:
    """The periodic field twice along both axes, so that a crop may start anywhere."""
    return Image.fromarray(np.tile(field.astype(np.float32), (2, 2)))


@cache
def _spectral_tile(beta: float) -> Image.Image:
    """A periodic field with power spectrum 1 / f^beta: 0 white, 1 pink, 2 to 3 clouds."""
    rng = np.random.default_rng(1000 + round(10 * beta))
    spectrum = fft.fft2(rng.standard_normal((_SIDE, _SIDE)))
    frequency = np.hypot(fft.fftfreq(_SIDE)[:, None], fft.fftfreq(_SIDE)[None, :])
    frequency[0, 0] = 1.0
    weight = frequency ** (-beta / 2)
    weight[0, 0] = 0.0
    field = fft.ifft2(spectrum * weight).real
    return _tiled(field / field.std())


@cache
def _cell_tiles() -> tuple[Image.Image, Image.Image, Image.Image]:
    """Tiles of distance, edge and value of one periodic Voronoi diagram with jittered seeds."""
    rng = np.random.default_rng(7)
    count = _SIDE // _CELL
    corners = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    seeds = (corners + rng.uniform(0.02, 0.98, corners.shape)) * _CELL
    pixels = np.stack(np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), indexing="ij"), -1).reshape(-1, 2)
    found, owner = cKDTree(seeds, boxsize=_SIDE).query(pixels, k=2)
    value = rng.uniform(0, 1, len(seeds))[owner[:, 0]]
    planes = (found[:, 0] / _CELL, (found[:, 1] - found[:, 0]) / _CELL, value)
    first, second, third = (_tiled(plane.reshape(_SIDE, _SIDE)) for plane in planes)
    return first, second, third


def _box(rng: Generator, shape: Shape, scale: tuple[float, float]) -> tuple[float, float, float, float]:
    """A random crop (left, top, right, bottom) of a tile that covers ``shape`` at ``scale`` px for each tile cell."""
    height = min(shape[0] / scale[0], 2 * _SIDE)
    width = min(shape[1] / scale[1], 2 * _SIDE)
    top = int(rng.integers(0, max(1, min(_SIDE, int(2 * _SIDE - height)))))
    left = int(rng.integers(0, max(1, min(_SIDE, int(2 * _SIDE - width)))))
    return left, top, left + width, top + height


def _crop(tile: Image.Image, shape: Shape, box: tuple[float, float, float, float], *, smooth: bool = True) -> Plane:
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(tile.resize((shape[1], shape[0]), how, box=box), dtype=np.float32)


def noise(rng: Generator, shape: Shape, scale: float | tuple[float, float] = 1.0, beta: float = 0.0) -> Plane:
    """A random field (H, W) float32 of zero mean and unit deviation.

    Args:
        rng: where the randomness comes from.
        shape: (H, W) in px.
        scale: px for each cell of the tile, one number or (vertical, horizontal): with white noise the size of its
            grains; unequal numbers give streaks.
        beta: exponent of the power spectrum, rounded to halves: 0 single-scale grains, 1 pink, 2 to 3 clouds.
    """
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    field = _crop(_spectral_tile(round(2 * beta) / 2), shape, _box(rng, shape, (max(pair[0], 0.5), max(pair[1], 0.5))))
    centred = field - field.mean()
    return np.asarray(centred / max(float(centred.std()), 1e-6), dtype=np.float32)


def cells(rng: Generator, shape: Shape, cell_px: float) -> Cells:
    """A random Voronoi diagram whose cells measure about ``cell_px`` px across."""
    box = _box(rng, shape, (max(cell_px, 2.0) / _CELL,) * 2)
    distance, edge, value = _cell_tiles()
    return Cells(_crop(distance, shape, box), _crop(edge, shape, box), _crop(value, shape, box, smooth=False))


def profile(rng: Generator, length: int, scale: float = 1.0, beta: float = 0.0) -> Plane:
    """A one-dimensional random field (length,) of zero mean and unit deviation."""
    field: Plane = noise(rng, (1, length), (1.0, scale), beta)[0]
    return field
