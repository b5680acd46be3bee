"""From scores to decisions: a patch map at the image's own size, a mask at a threshold, regions, words about them.

Pure functions over numpy arrays; nothing here knows of models or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.infer.areas import ALL_OF_IT, Areas

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_OUTLINE_TOLERANCE_PX = 1.0  # the corners of a staircase between pixels stick out by less
_SCRATCH_ELONGATION = 4.0
_BAND_PX = 1 << 20
_SPOT_SHARE = 0.002  # of the image's area
_SPECK_PX = 9  # fewer pixels are noise at any resolution

Point = tuple[int, int]


@dataclass(frozen=True)
class DecisionRule:
    """The one rule that makes an image anomalous and outlines where.

    An image is anomalous if its score reaches the threshold. Its regions are the connected pixels whose map value
    reaches the threshold; an image that is called normal has none, unless they are asked for.

    Attributes:
        threshold: in [0, 1], for the image score and the map alike.
        min_area_px: regions with fewer pixels do not count; None: those below `smallest_region_px`.
        regions_on_normal: also outline and list regions on images that are called normal.
        areas: where images are looked at.

    Raises:
        ConfigError: the threshold is outside [0, 1].
    """

    threshold: float = 0.5
    min_area_px: int | None = None
    regions_on_normal: bool = False
    areas: Areas = ALL_OF_IT

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"expected a threshold in [0, 1], got {self.threshold}")

    def area_of(self, grid: tuple[int, int], size: tuple[int, int]) -> int:
        """The smallest region that counts, in px, of a map computed on ``grid`` (h, w) for an image of ``size``."""
        return self.min_area_px if self.min_area_px is not None else smallest_region_px(grid, size)


def smallest_region_px(grid: tuple[int, int], size: tuple[int, int]) -> int:
    """A quarter of the pixels that one cell of a map (h, w) covers in an image of ``size`` (H, W); at least 9.

    Smaller regions are the tip of an interpolated peak, finer than anything that the model has looked at.
    """
    return max(_SPECK_PX, round(size[0] * size[1] / (4 * grid[0] * grid[1])))


@dataclass(frozen=True)
class Region:
    """One connected set of pixels (8 neighbours) at or above the threshold."""

    box: Annotated[tuple[int, int, int, int], Field(description="x0, y0, x1, y1 in px, x1 and y1 exclusive")]
    area_px: Annotated[int, Field(description="number of pixels")]
    peak: Annotated[float, Field(description="largest value of the anomaly map inside, in [0, 1]")]
    mean: Annotated[float, Field(description="mean value of the anomaly map inside, in [0, 1]")]
    centroid: Annotated[tuple[float, float], Field(description="x, y in px, pixel centres at .5")]
    elongation: Annotated[
        float, Field(description="length over width, at least 1, of the ellipse with the region's second moments")
    ]
    polygon: Annotated[
        tuple[Point, ...],
        Field(
            description="outer outline as corners x, y between pixels, clockwise on screen, holes left out; within "
            "1 px of the exact outline"
        ),
    ]


def upsample(patch_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a patch map (h, w) bilinearly, half-pixel centres, to ``size`` = (H, W) in px; float32.

    Equal to ``torch.nn.functional.interpolate(..., mode="bilinear", align_corners=False)`` when enlarging. The work
    goes by bands of output rows that lie between the same two patch rows, so each pixel is written once while its
    band is in the processor's cache, and nothing but the result is allocated at full size.

    Raises:
        ShapeError: the map is not (h, w) or the size is not positive.
    """
    if patch_map.ndim != 2 or 0 in patch_map.shape or min(size) < 1:
        raise ShapeError(f"expected a patch map (h, w) and a size of at least 1x1 px, got {patch_map.shape} and {size}")
    if patch_map.shape == size:
        return patch_map.astype(np.float32)
    (rows, columns), (height, width) = patch_map.shape, size
    left, share = _neighbours(columns, width)
    right = np.minimum(left + 1, columns - 1)
    wide = patch_map[:, left] * (1 - share) + patch_map[:, right] * share
    wide = wide.astype(np.float32, copy=False)
    upper, share = _neighbours(rows, height)
    band_starts = np.append(np.searchsorted(upper, np.arange(rows)), height)
    result = np.empty(size, dtype=np.float32)
    for row in range(rows):
        band = slice(band_starts[row], band_starts[row + 1])
        if band.start < band.stop:
            step = wide[min(row + 1, rows - 1)] - wide[row]
            np.multiply.outer(share[band], step, out=result[band])
            result[band] += wide[row]
    return result


def smooth(maps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian on each of the maps (B, h, w); ``sigma`` is a share of their height. 0 leaves them as they are."""
    if not sigma:
        return maps
    cells = sigma * maps.shape[1]
    smoothed: NDArray[np.float32] = scipy.ndimage.gaussian_filter(maps, (0, cells, cells))
    return smoothed


def _neighbours(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of ``target`` positions: the lower of its two source indices, and the upper one's share in [0, 1]."""
    position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    lower = np.minimum(position.astype(np.intp), max(source - 2, 0))
    return lower, (position - lower).astype(np.float32)


def threshold_mask(anomaly_map: NDArray[np.float32], threshold: float, min_area_px: int = 1) -> NDArray[np.bool_]:
    """Where the anomaly map (H, W) reaches ``threshold``; connected regions below ``min_area_px`` are dropped.

    Raises:
        ConfigError: the threshold is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"expected a threshold in [0, 1], got {threshold}")
    mask = anomaly_map >= np.float32(threshold)
    if min_area_px > 1:
        labels, count = scipy.ndimage.label(mask, _EIGHT_NEIGHBOURS)
        area = np.zeros(count + 1, np.intp)
        for rows in _bands(labels.shape):
            area += np.bincount(labels[rows].ravel(), minlength=count + 1)
        is_kept = area >= min_area_px
        is_kept[0] = False
        for rows in _bands(labels.shape):
            mask[rows] = is_kept[labels[rows]]
    return mask


def _bands(size: tuple[int, ...]) -> Iterator[slice]:
    """Rows by about a million px: numpy turns what it counts and looks up by into 64 bits first."""
    step = max(1, _BAND_PX // size[1])
    return (slice(start, start + step) for start in range(0, size[0], step))


def find_regions(anomaly_map: NDArray[np.float32], threshold: float, min_area_px: int = 1) -> list[Region]:
    """The connected regions of ``threshold_mask``, the one with the highest peak first, then the largest."""
    return find_with_mask(anomaly_map, threshold, min_area_px).regions


@dataclass(frozen=True, eq=False)
class Found:
    """Where a map reaches a threshold.

    Attributes:
        mask: (H, W), as `threshold_mask` gives it.
        regions: as `find_regions` gives them.
    """

    mask: NDArray[np.bool_]
    regions: list[Region]


def find_with_mask(anomaly_map: NDArray[np.float32], threshold: float, min_area_px: int = 1) -> Found:
    """Mask and regions at once, which saves connecting the mask's pixels twice."""
    mask = threshold_mask(anomaly_map, threshold)
    used_rows, used_columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if used_rows.size == 0:
        return Found(mask, [])
    top, left = int(used_rows[0]), int(used_columns[0])
    used = slice(top, int(used_rows[-1]) + 1), slice(left, int(used_columns[-1]) + 1)
    labels, _ = scipy.ndimage.label(mask[used], _EIGHT_NEIGHBOURS)
    regions = []
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == number
        x, y = columns.start + left, rows.start + top
        window = slice(y, rows.stop + top), slice(x, columns.stop + left)
        if np.count_nonzero(inside) >= min_area_px:
            regions.append(_measure(inside, anomaly_map[window], (x, y)))
        else:
            mask[window] &= ~inside
    return Found(mask, sorted(regions, key=lambda region: (-region.peak, -region.area_px, region.box)))


def region_masks(mask: NDArray[np.bool_], regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Each region's own pixels (N, H, W), of the mask (H, W) that the N regions were found in."""
    labels, _ = scipy.ndimage.label(mask, _EIGHT_NEIGHBOURS)
    numbers = {}
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        area_px = int(np.count_nonzero(labels[rows, columns] == number))
        numbers[(columns.start, rows.start, columns.stop, rows.stop), area_px] = number
    wanted = np.array([numbers[region.box, region.area_px] for region in regions], labels.dtype)
    masks: NDArray[np.bool_] = labels == wanted[:, None, None]
    return masks


def _measure(inside: NDArray[np.bool_], window: NDArray[np.float32], origin: Point) -> Region:
    (x, y), (height, width) = origin, inside.shape
    values = window[inside]
    in_row = np.count_nonzero(inside, axis=1)
    x_centre, x_spread = _moments(np.count_nonzero(inside, axis=0))
    y_centre, y_spread = _moments(in_row)
    columns = np.arange(width, dtype=np.float64)
    x_sum_in_row = np.concatenate([inside[rows] @ columns for rows in _bands(inside.shape)])
    mixed = float((np.arange(height) - y_centre) @ (x_sum_in_row - x_centre * in_row)) / values.size
    minor, major = np.linalg.eigvalsh([[x_spread, mixed], [mixed, y_spread]])
    return Region(
        box=(x, y, x + width, y + height),
        area_px=int(values.size),
        peak=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        centroid=(x_centre + x + 0.5, y_centre + y + 0.5),
        elongation=float(np.sqrt(major / minor)),
        polygon=tuple((cx + x, cy + y) for cx, cy in simplify(outline(inside), _OUTLINE_TOLERANCE_PX)),
    )


def _moments(counts: NDArray[np.intp]) -> tuple[float, float]:
    """Mean and variance of positions 0, 1, … that occur ``counts`` times, each a pixel's width of 1 wide."""
    position = np.arange(counts.size)
    centre = float(counts @ position / counts.sum())
    # a pixel is a square, not a point: 1/12 is its own variance, which keeps one-pixel lines finite
    return centre, float(counts @ (position - centre) ** 2 / counts.sum()) + 1 / 12


def outline(mask: NDArray[np.bool_]) -> list[Point]:
    """The exact outer boundary of the region (8 neighbours) that holds a mask's first pixel, as (x, y) corners.

    Walks along the edges between pixels with the region on the right-hand side, clockwise on screen, and notes only
    the corners. Empty for an empty mask.
    """
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = mask
    stride = padded.shape[1]
    pixels = padded.tobytes()
    start = pixels.find(b"\x01")
    if start < 0:
        return []
    # A corner has the number of the pixel at its lower right. Ahead of a walker: (step, pixel left, pixel right).
    ahead = ((1, -stride, 0), (stride, 0, -1), (-1, -1, -stride - 1), (-stride, -stride - 1, -stride))
    corner, heading = start, 0
    corners: list[Point] = []
    while True:
        corners.append((corner % stride - 1, corner // stride - 1))
        step, _, _ = ahead[heading]
        turn = 0
        while turn == 0:
            corner += step
            _, left, right = ahead[heading]
            # left first: two pixels that touch at a corner belong together
            turn = -1 if pixels[corner + left] else 0 if pixels[corner + right] else 1
        heading = (heading + turn) % 4
        if corner == start and heading == 0:
            return corners


def simplify(ring: Sequence[Point], tolerance_px: float) -> list[Point]:
    """A closed ring with fewer corners, none of the dropped ones farther than ``tolerance_px`` from the new ring.

    Douglas and Peucker 1973, on the two halves between the first corner and the one farthest from it. A ring that
    would shrink to a line is returned as it is.
    """
    if len(ring) <= 4:
        return list(ring)
    closed = np.array([complex(*corner) for corner in [*ring, ring[0]]])
    kept = np.array([0, np.abs(closed - closed[0]).argmax(), len(ring)])
    while True:
        span = np.arange(kept.size - 1).repeat(kept[1:] - kept[:-1])
        starts = closed[kept[:-1]]
        distance = _distance_to_segment(closed[:-1] - starts[span], (closed[kept[1:]] - starts)[span])
        farthest = np.maximum.reduceat(distance, kept[:-1])
        candidates = ((distance == farthest[span]) & (farthest > tolerance_px)[span]).nonzero()[0]
        if not candidates.size:
            break
        spans = span[candidates]
        chosen = candidates[1:][spans[1:] > spans[:-1]]  # of equals, the first in each span
        kept = np.concatenate([kept, candidates[:1], chosen])
        kept.sort()
    return [ring[int(index)] for index in kept[:-1]] if kept.size > 3 else list(ring)


def _distance_to_segment(points: NDArray[np.complex128], ends: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Distance of each point x + iy to the segment from 0 to its end, which may be 0 as well."""
    share = (points * ends.conj()).real / np.maximum(np.abs(ends) ** 2, 1e-12)
    distance: NDArray[np.float64] = np.abs(points - np.minimum(np.maximum(share, 0), 1) * ends)
    return distance


def position_words(centroid: tuple[float, float], size: tuple[int, int]) -> str:
    """Where a point (x, y) lies in an image of ``size`` (H, W), in thirds: "upper left", "centre", "centre right"."""
    column = ("left", "", "right")[min(int(3 * centroid[0] / size[1]), 2)]
    row = ("upper", "centre", "lower")[min(int(3 * centroid[1] / size[0]), 2)]
    return f"{row} {column}" if column else row if row == "centre" else f"{row} centre"


def shape_word(region: Region, size: tuple[int, int]) -> str:
    """What a region looks like, by its elongation and its share of the image (H, W): a line, a spot or an area."""
    if region.elongation >= _SCRATCH_ELONGATION:
        return "scratch-like"
    return "spot-like" if region.area_px < _SPOT_SHARE * size[0] * size[1] else "patch-like"


def severity_word(peak: float, threshold: float) -> str:
    """How far a peak rises above the threshold, as a share of what is left up to 1: faint, clear or strong."""
    rise = (peak - threshold) / max(1 - threshold, 1e-9)
    return "faint" if rise < 1 / 3 else "clear" if rise < 2 / 3 else "strong"


def describe_region(region: Region, size: tuple[int, int], threshold: float) -> str:
    """One line for people: "strong scratch-like region, 512 px², centre right, peak 0.93"."""
    kind = f"{severity_word(region.peak, threshold)} {shape_word(region, size)} region"
    return f"{kind}, {region.area_px:,} px², {position_words(region.centroid, size)}, peak {region.peak:.2f}"
