"""AUPRO: the area under the per-region overlap curve, exact, and as the field's 200-threshold loop computes it.

PRO(t) is the mean over all ground-truth regions (8-connected) of the share of the region's pixels with score >= t;
FPR(t) is the share of all normal pixels, in normal images too, with score >= t. AUPRO integrates PRO over FPR from
0 to a limit (0.3), divided by the limit [Bergmann et al., MVTec AD, IJCV 2021, sec. 5.1.2]. PRO changes only at the
scores of anomalous pixels, so the exact curve needs one vertex before and one at each unique positive score; a tie
between a positive and a negative makes the straight piece between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.metrics.ranking import (
    Array,
    RankingCounts,
    as_label,
    as_lists,
    count_negatives,
    positives_of,
    unique_counts,
)

FPR_LIMIT = 0.3
_EIGHT_NEIGHBOURS = np.ones((3, 3), np.uint8)
_BLOCK = 1 << 15  # thresholds that are integrated at once


@dataclass(frozen=True)
class RegionCounts:
    """What all pixel metrics need to know of maps and masks: the ranking, and the regions' share in it.

    Attributes:
        ranking: counts over pixels.
        region_mass: (U,) float64, the sum over the positives at each threshold of 1 / (area of their region).
        regions: the number of ground-truth regions; the masses sum to it.
    """

    ranking: RankingCounts
    region_mass: NDArray[np.float64]
    regions: int


@dataclass(frozen=True)
class ProCurve:
    """PRO over FPR, both ascending from (0, 0) to (1, 1), straight between neighbours."""

    fpr: NDArray[np.float64]
    pro: NDArray[np.float64]


def region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """For each anomalous pixel of a mask (H, W), in row order, 1 / (pixels of its 8-connected region).

    Returns:
        the weights (P,), and the number of regions, which is also their sum.

    Raises:
        ShapeError: the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise ShapeError(f"expected a mask (H, W), got {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.empty(0), 0
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # labelling the rest of the image is wasted
    labels, regions = ndimage.label(box, _EIGHT_NEIGHBOURS)
    ids = labels[box]
    return 1.0 / np.bincount(ids)[ids], int(regions)


def count_regions(maps: Sequence[Array], masks: Sequence[Array]) -> RegionCounts:
    """Count pixels and regions at each unique score of an anomalous pixel.

    The sequences are read three times and may load their items lazily.

    Args:
        maps: anomaly maps (H, W), sizes may differ; higher is more anomalous.
        masks: ground truth of the same sizes; nonzero is anomalous.

    Raises:
        ShapeError: a mask is not (H, W) of its map's size.
        DataError: a score is NaN.
    """
    map_list, mask_list = as_lists(maps, masks)
    scores, negative_total = positives_of(map_list, mask_list)
    thresholds, positives = unique_counts(scores, negative_total)
    del scores
    mass, regions = _mass_at(thresholds, map_list, mask_list)
    above, tied = count_negatives(map_list, mask_list, thresholds, negative_total)
    ranking = RankingCounts(thresholds[::-1], positives[::-1], above[::-1], tied[::-1], negative_total)
    return RegionCounts(ranking, mass[::-1], regions)


def pro_curve(counts: RegionCounts) -> ProCurve:
    """The exact PRO curve: for each threshold the vertex before it and the vertex at it."""
    ranking = counts.ranking
    pro = np.cumsum(counts.region_mass) / max(counts.regions, 1)
    total = max(ranking.negative_total, 1)
    before, at = ranking.negatives_above / total, ranking.false_positives / total
    fpr = np.concatenate([[0.0], np.column_stack([before, at]).ravel(), [1.0]])
    overlap = np.concatenate([[0.0], np.column_stack([np.append(0.0, pro[:-1]), pro]).ravel(), pro[-1:]])
    return ProCurve(fpr, overlap)


def aupro(counts: RegionCounts, limit: float = FPR_LIMIT) -> float | None:
    """Area under the exact PRO curve from FPR 0 to the limit, divided by the limit; None if undefined.

    The curve is cut at the limit by linear interpolation.

    Args:
        counts: from `count_regions`, or from a streaming state.
        limit: greatest false positive rate, in (0, 1].

    Raises:
        ConfigError: the limit is not in (0, 1].
    """
    if not 0.0 < limit <= 1.0:
        raise ConfigError(f"expected a limit of the false positive rate in (0, 1], got {limit}")
    if not counts.ranking.is_defined or counts.regions == 0:
        return None
    ranking, total = counts.ranking, counts.ranking.negative_total
    area, fpr, pro = 0.0, 0.0, 0.0
    for start in range(0, ranking.thresholds.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        before = ranking.negatives_above[part] / total
        at = before + ranking.negatives_tied[part] / total
        reached = pro + np.cumsum(counts.region_mass[part]) / counts.regions
        area += _area_to(limit, (fpr, pro), before, at, reached)
        fpr, pro = float(at[-1]), float(reached[-1])
        if fpr >= limit:
            break
    return (area + pro * max(limit - fpr, 0.0)) / limit


def _area_to(
    limit: float,
    origin: tuple[float, float],
    before: NDArray[np.float64],
    at: NDArray[np.float64],
    reached: NDArray[np.float64],
) -> float:
    """Area under a piece of the PRO curve, from its origin (FPR, PRO) on and left of the limit.

    Up to each threshold the curve is flat, from there to the threshold's own vertex it is straight: all (U,).
    """
    fpr, pro = np.append(origin[0], at[:-1]), np.append(origin[1], reached[:-1])
    flat = np.minimum(before, limit) - np.minimum(fpr, limit)
    across = np.minimum(at, limit) - np.minimum(before, limit)
    width = at - before
    rise = np.divide((reached - pro) * across, width, out=np.zeros_like(width), where=width > 0)
    return float(pro @ flat + (pro + 0.5 * rise) @ across)


def aupro_200(
    maps: Sequence[Array], masks: Sequence[Array], limit: float = FPR_LIMIT, steps: int = 200
) -> float | None:
    """AUPRO as the zero-shot field computes it, for comparison with published numbers only.

    Equally spaced thresholds between the least and the greatest score, ``score > threshold``, FPR < limit, and the
    kept FPRs stretched to [0, 1] before integration (the routine shared by the APRIL-GAN, AnomalyCLIP and WinCLIP
    re-implementations). It has no point at the limit and depends on the scores' range: on heavy-tailed maps few of
    the thresholds are below the limit and it is off by 0.01 and more. The same value as the loop, without the loop.

    Args:
        maps: anomaly maps (H, W), sizes may differ.
        masks: ground truth of the same sizes; nonzero is anomalous.
        limit: greatest false positive rate, in (0, 1].
        steps: how many thresholds.

    Raises:
        ShapeError: a mask is not (H, W) of its map's size.
        DataError: a score is NaN.
    """
    map_list, mask_list = as_lists(maps, masks)
    scores, negative_total = positives_of(map_list, mask_list)
    if not scores.size or not negative_total:
        return None
    weights, regions = _all_region_weights(map_list, mask_list)
    low, high = min(m.min() for m in map_list), max(m.max() for m in map_list)
    if not low < high:
        return None
    thresholds = np.arange(low, high, (high - low) / steps).astype(scores.dtype, copy=False)
    above, _ = count_negatives(map_list, mask_list, thresholds, negative_total)
    order = np.argsort(scores)
    mass_up_to = np.append(0.0, np.cumsum(weights[order]))
    pro = 1.0 - mass_up_to[np.searchsorted(scores[order], thresholds, side="right")] / regions
    fpr = above / negative_total
    kept = fpr < limit
    span = np.ptp(fpr[kept]) if kept.any() else 0.0
    # Thresholds ascend, so FPR descends: the integral is taken backwards.
    return float(-np.trapezoid(pro[kept], fpr[kept]) / span) if span > 0 else None


def _mass_at(
    thresholds: NDArray[np.floating], maps: Sequence[Array], masks: Sequence[Array]
) -> tuple[NDArray[np.float64], int]:
    """`RegionCounts.region_mass` at the ascending thresholds, and the number of regions; image by image."""
    mass, regions = np.zeros(thresholds.size), 0
    for score, mask in zip(maps, masks, strict=True):
        is_positive = as_label(score, mask)
        weights, count = region_weights(is_positive)
        regions += count
        scores = score[is_positive].astype(thresholds.dtype, copy=False)
        order = np.argsort(scores)  # neighbouring keys are found several times faster than scattered ones
        np.add.at(mass, np.searchsorted(thresholds, scores[order]), weights[order])
    return mass, regions


def _all_region_weights(maps: Sequence[Array], masks: Sequence[Array]) -> tuple[NDArray[np.float64], int]:
    """`region_weights` of all masks in one array, and the number of all regions."""
    weights, regions = [np.empty(0)], 0
    for score, mask in zip(maps, masks, strict=True):
        part, count = region_weights(as_label(score, mask))
        weights.append(part)
        regions += count
    return np.concatenate(weights), regions
