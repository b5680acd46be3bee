"""High resolution: an image in overlapping tiles whose maps are blended, or whole but with its aspect kept.

Both stand in front of any scorer, torch or exported, and are scorers themselves: maps come out on a grid that covers
the image exactly, whatever its size, so all that follows works as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.transforms import Interpolation, resize_image
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.infer.scorer import RawScores, Scorer

_LEAST_WEIGHT = 1e-3  # at a tile's rim; keeps pixels that a single tile sees


@dataclass(frozen=True)
class _Axis:
    """How one tile's map enters the whole map along one axis.

    Attributes:
        cells: the part of the whole map's cells that the tile covers.
        mixing: (cells, n), bilinear shares of the tile's n map rows, times ``weight``.
        weight: (cells,) of the tile there, from its rim inwards up to 1.
    """

    cells: slice
    mixing: NDArray[np.float32]
    weight: NDArray[np.float32]


class Tiled:
    """A scorer that looks at an image tile by tile, in the image's own resolution.

    The image score is the highest of its tiles': a defect that fills a tile's share counts, however large the image.

    Args:
        inner: scores one tile.
        input_size: (h, w) in px of its input.
        tile_px: longer side of a tile in px of the image; a tile has the input's aspect and is resized to it.
        overlap: share of a tile that it has in common with the next one, in [0, 0.9].
        batch_size: tiles per call of ``inner``.

    Raises:
        ConfigError: a tile of less than 16 px, or an overlap out of range.
    """

    def __init__(
        self, inner: Scorer, input_size: tuple[int, int], tile_px: int, overlap: float = 0.25, batch_size: int = 8
    ) -> None:
        if tile_px < 16 or not 0 <= overlap <= 0.9:
            raise ConfigError(f"expected tiles of at least 16 px that overlap by 0 to 0.9, got {tile_px} and {overlap}")
        scale = tile_px / max(input_size)
        self._inner = inner
        self._tile = (round(input_size[0] * scale), round(input_size[1] * scale))
        self._overlap = overlap
        self._batch_size = batch_size

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 RGB itself, channels first and not copied; it is cut into tiles when scored."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
        return image.transpose(2, 0, 1)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B images (B, 3, H, W) uint8 whose classes are named (B names); maps (B, h, w) cover them."""
        done = [self._scan(image, name) for image, name in zip(batch, class_names, strict=True)]
        return RawScores(np.stack([one.maps[0] for one in done]), np.concatenate([one.scores for one in done]))

    def _scan(self, image: NDArray[np.uint8], class_name: str) -> RawScores:
        _, height, width = image.shape
        rows = tile_starts(height, self._tile[0], self._overlap)
        columns = tile_starts(width, self._tile[1], self._overlap)
        whole = np.zeros((0, 0), np.float32)
        across: list[_Axis] = []
        down: list[_Axis] = []
        best = -math.inf
        places = list(product(range(len(rows)), range(len(columns))))
        for batch in _in_turn(places, self._batch_size):
            cuts = [self._cut(image, rows[row], columns[column]) for row, column in batch]
            raw = self._inner.score(np.stack([self._inner.prepare(cut) for cut in cuts]), [class_name] * len(cuts))
            if not down:
                down = _axes(rows, self._tile[0], height, raw.maps.shape[1], self._overlap)
                across = _axes(columns, self._tile[1], width, raw.maps.shape[2], self._overlap)
                whole = np.zeros((down[-1].cells.stop, across[-1].cells.stop), np.float32)
            for (row, column), tile_map in zip(batch, raw.maps, strict=True):
                part = down[row].mixing @ tile_map @ across[column].mixing.T
                whole[down[row].cells, across[column].cells] += part
            best = max(best, float(raw.scores.max()))
        whole /= _total(down)[:, None]
        whole /= _total(across)
        return RawScores(whole[None], np.array([best], np.float32))

    def _cut(self, image: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        """One tile (h, w, 3); beyond the image's edges it is mirrored."""
        rows = _mirrored(top, self._tile[0], image.shape[1])
        columns = _mirrored(left, self._tile[1], image.shape[2])
        return np.ascontiguousarray(image[:, rows][:, :, columns].transpose(1, 2, 0))


class Fitted:
    """A scorer that fits the whole image into the input without changing its aspect; the rest is mirrored image.

    Args:
        inner: scores inputs of one size.
        input_size: (h, w) in px of its input.
        interpolation: antialiased filter of the resize.
    """

    def __init__(self, inner: Scorer, input_size: tuple[int, int], interpolation: Interpolation) -> None:
        self._inner = inner
        self._size = input_size
        self._interpolation = interpolation

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 RGB as (3, h, w), as large as fits into the input."""
        scale = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        return resize_image(image, size, self._interpolation)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B fitted images (B, 3, h, w) uint8 whose classes are named (B names)."""
        height, width = batch.shape[2:]
        rows, columns = _mirrored(0, self._size[0], height), _mirrored(0, self._size[1], width)
        raw = self._inner.score(np.ascontiguousarray(batch[:, :, rows][:, :, :, columns]), class_names)
        (down,) = _axes([0], self._size[0], height, raw.maps.shape[1], 0)
        (across,) = _axes([0], self._size[1], width, raw.maps.shape[2], 0)
        maps = (down.mixing @ raw.maps @ across.mixing.T).astype(np.float32)
        return RawScores(maps, raw.scores)


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side of ``length`` px: evenly, the first at 0, the last flush with the end."""
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / (tile * (1 - overlap))) + 1
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _in_turn(places: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _mirrored(start: int, count: int, length: int) -> slice | NDArray[np.intp]:
    """Indices of ``count`` px from ``start`` on, turned back at the end of ``length`` px."""
    if start + count <= length:
        return slice(start, start + count)
    index = np.arange(start, start + count) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _axes(starts: Sequence[int], tile: int, length: int, cells_of_tile: int, overlap: float) -> list[_Axis]:
    """Each tile's part along one axis of a whole map whose cells have a tile's size and cover ``length`` px exactly."""
    count = max(1, round(length * cells_of_tile / tile))
    centre = (np.arange(count) + 0.5) * (length / count)  # in px of the image
    axes = []
    for start in starts:
        inside = np.flatnonzero((centre >= start) & (centre < start + tile))
        share = (centre[inside] - start) / tile  # of the way through the tile
        rim = np.minimum(share, 1 - share)
        weight = np.clip(rim / overlap, _LEAST_WEIGHT, 1) if overlap else np.ones_like(rim)
        position = np.clip(share * cells_of_tile - 0.5, 0, cells_of_tile - 1)
        lower = np.minimum(position.astype(np.intp), max(cells_of_tile - 2, 0))
        mixing = np.zeros((len(inside), cells_of_tile), np.float32)
        row = np.arange(len(inside))
        mixing[row, lower] = 1 - (position - lower)
        mixing[row, np.minimum(lower + 1, cells_of_tile - 1)] += position - lower
        cells = slice(int(inside[0]), int(inside[-1]) + 1)
        axes.append(_Axis(cells, mixing * weight[:, None].astype(np.float32), weight.astype(np.float32)))
    return axes


def _total(axes: Sequence[_Axis]) -> NDArray[np.float32]:
    """Sum of all tiles' weights in each cell along an axis."""
    total = np.zeros(axes[-1].cells.stop, np.float32)
    for axis in axes:
        total[axis.cells] += axis.weight
    return total
