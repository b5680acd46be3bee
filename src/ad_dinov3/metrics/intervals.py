"""Bootstrap confidence intervals over images for pixel and image metrics.

Pixels of one image are not independent, so whole images are drawn with replacement, normal and anomalous images
apart, so that each resample has as many of either as the set. Each image is reduced once to histograms over about a
thousand bins whose edges are quantiles of the pooled scores; a resample is then a weighted sum of the histograms,
and a thousand resamples of thousands of images are one matrix product. Metrics of the binned scores differ a little
from the exact ones, so the percentiles are shifted by (exact value - binned value of the whole set).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.metrics.ranking import Array, as_label, as_lists
from ad_dinov3.metrics.regions import FPR_LIMIT, RegionCounts, region_weights

Floats = NDArray[np.float64]
_BLOCK = 64  # resamples that are computed at once
_MAX_IMAGE_BINS = 2048


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low: lower end.
        high: upper end.
        level: the coverage aimed at, such as 0.95.
    """

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class ImageHistograms:
    """Each image's pixels over common bins of scores, highest bin first.

    Attributes:
        positives: (N, K) float32, anomalous pixels.
        negatives: (N, K) float32, normal pixels.
        region_mass: (N, K) float32, sum of 1 / (area of its region) over the anomalous pixels.
        regions: (N,) float32, regions in the image.
    """

    positives: NDArray[np.float32]
    negatives: NDArray[np.float32]
    region_mass: NDArray[np.float32]
    regions: NDArray[np.float32]


@dataclass(frozen=True)
class Replicates:
    """A metric of each of B resamples, NaN where undefined, and of the set itself from the same bins.

    Attributes:
        values: (B,) float64.
        whole: the metric of the whole set from the binned scores; NaN where undefined.
    """

    values: Floats
    whole: float


@dataclass(frozen=True)
class BootstrapMetrics:
    """Replicates of every metric; for images `aupro` is NaN throughout."""

    auroc: Replicates
    average_precision: Replicates
    f1_max: Replicates
    aupro: Replicates


def image_histograms(
    maps: Sequence[Array], masks: Sequence[Array], counts: RegionCounts, bins: int = 1024
) -> ImageHistograms:
    """Reduce each image to histograms over bins cut at quantiles of the whole set's scores.

    Args:
        maps: anomaly maps (H, W), sizes may differ; read once.
        masks: ground truth of the same sizes; nonzero is anomalous.
        counts: `count_regions` or a streaming state's counts of the same maps; where the edges come from.
        bins: about how many bins; half at equal shares of the positives, half denser towards high scores.

    Raises:
        ShapeError: a mask does not have its map's shape.
    """
    map_list, mask_list = as_lists(maps, masks)
    edges = _quantile_edges(counts, bins)
    shape = (len(map_list), edges.size + 1)
    positives, negatives, mass = (np.zeros(shape, np.float32) for _ in range(3))
    regions = np.zeros(len(map_list), np.float32)
    for i, (score, mask) in enumerate(zip(map_list, mask_list, strict=True)):
        is_positive = as_label(score, mask)
        ordered = np.sort(score[~is_positive])
        cuts = np.searchsorted(ordered, edges)
        negatives[i] = np.diff(cuts, prepend=0, append=ordered.size)
        weights, regions[i] = region_weights(is_positive)
        bin_of = np.searchsorted(edges, score[is_positive], side="right")
        positives[i] = np.bincount(bin_of, minlength=shape[1])
        mass[i] = np.bincount(bin_of, weights, shape[1])
    return ImageHistograms(positives[:, ::-1], negatives[:, ::-1], mass[:, ::-1], regions)


def bootstrap_pixels(
    histograms: ImageHistograms, *, resamples: int = 1000, seed: int = 0, fpr_limit: float = FPR_LIMIT
) -> BootstrapMetrics:
    """Pixel metrics of resamples of the images.

    Args:
        histograms: from `image_histograms`.
        resamples: B, how many.
        seed: what the draws start from; equal seeds give equal replicates.
        fpr_limit: where AUPRO stops.

    Raises:
        ConfigError: fewer than one resample.
    """
    has_anomaly = histograms.positives.sum(axis=1) > 0
    return _bootstrap(histograms, _draws(has_anomaly, resamples, seed), fpr_limit)


def bootstrap_images(scores: Array, labels: Array, *, resamples: int = 1000, seed: int = 0) -> BootstrapMetrics:
    """Image metrics of resamples of the images; each unique score is a bin, up to 2,048 of them.

    Args:
        scores: (N,) image scores.
        labels: (N,) nonzero is anomalous.
        resamples: B, how many.
        seed: what the draws start from; equal seeds give equal replicates.

    Raises:
        ShapeError: scores and labels are not (N,) alike.
        ConfigError: fewer than one resample.
    """
    if scores.ndim != 1:
        raise ShapeError(f"expected image scores (N,), got {scores.shape}")
    is_positive = as_label(scores, labels)
    unique, bin_of = np.unique(-scores.astype(np.float64), return_inverse=True)
    bins = min(unique.size, _MAX_IMAGE_BINS)
    bin_of = bin_of * bins // max(unique.size, 1)
    held = np.zeros((scores.size, bins), np.float32)
    held[np.arange(scores.size), bin_of] = 1.0
    positives, negatives = held * is_positive[:, None], held * ~is_positive[:, None]
    nothing = np.zeros_like(held)
    histograms = ImageHistograms(positives, negatives, nothing, np.zeros(scores.size, np.float32))
    return _bootstrap(histograms, _draws(is_positive, resamples, seed), FPR_LIMIT)


def mean_replicates(classes: Sequence[Replicates]) -> Replicates:
    """The macro mean's replicates from those of its classes, drawn independently of each other.

    Raises:
        ConfigError: there are no classes.
        ShapeError: the classes do not have equally many replicates.
    """
    if not classes:
        raise ConfigError("expected at least one class to take the mean of")
    if len({c.values.size for c in classes}) > 1:
        raise ShapeError(f"expected equally many replicates of each class, got {[c.values.size for c in classes]}")
    return Replicates(np.mean([c.values for c in classes], axis=0), float(np.mean([c.whole for c in classes])))


def interval(replicates: Replicates, value: float, level: float = 0.95) -> Interval | None:
    """The percentile interval around an exact value, within [0, 1]; None if the metric is undefined.

    Args:
        replicates: from one of the bootstraps.
        value: the exact metric of the whole set; the percentiles are shifted by what binning changed.
        level: coverage, in (0, 1).

    Raises:
        ConfigError: the level is not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"expected a level of confidence in (0, 1), got {level}")
    if np.isnan(replicates.values).any() or np.isnan(replicates.whole):
        return None
    ends = np.quantile(replicates.values, [(1 - level) / 2, (1 + level) / 2]) + (value - replicates.whole)
    low, high = np.clip(ends, 0.0, 1.0)
    return Interval(float(low), float(high), level)


def _quantile_edges(counts: RegionCounts, bins: int) -> NDArray[np.floating]:
    """Ascending thresholds, a new one whenever another share of the positives or of the negatives is passed."""
    ranking = counts.ranking
    recall = ranking.true_positives / max(ranking.positive_total, 1)
    fall_out = ranking.negatives_above / max(ranking.negative_total, 1)
    # The square root puts more edges where few negatives are: that is where precision and AUPRO are decided.
    step = np.floor(recall * (bins / 2)) + np.floor(np.sqrt(fall_out) * (bins / 2))
    kept = np.flatnonzero(np.diff(step, prepend=-1.0))
    if ranking.thresholds.size:
        kept = np.union1d(kept, [ranking.thresholds.size - 1])  # below the last threshold there are negatives only
    return ranking.thresholds[kept][::-1]


def _draws(is_anomalous: NDArray[np.bool_], resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each image is in each resample, (B, N); the first row is the set itself."""
    if resamples < 1:
        raise ConfigError(f"expected at least one resample, got {resamples}")
    rng = np.random.default_rng(seed)
    draws = np.ones((resamples + 1, is_anomalous.size), np.float32)
    for stratum in (is_anomalous, ~is_anomalous):
        size = int(stratum.sum())
        if size:
            draws[1:, stratum] = rng.multinomial(size, np.full(size, 1 / size), resamples)
    return draws


def _bootstrap(histograms: ImageHistograms, draws: NDArray[np.float32], fpr_limit: float) -> BootstrapMetrics:
    starts = range(0, len(draws), _BLOCK)
    blocks = [_metrics_of(histograms, draws[start : start + _BLOCK], fpr_limit) for start in starts]
    table = np.concatenate(blocks, axis=1)
    replicates = [Replicates(row[1:], float(row[0])) for row in table]
    return BootstrapMetrics(*replicates)


def _metrics_of(histograms: ImageHistograms, draws: NDArray[np.float32], fpr_limit: float) -> Floats:
    """AUROC, average precision, F1-max and AUPRO of each draw, (4, B)."""
    positives = (draws @ histograms.positives).astype(np.float64)
    negatives = (draws @ histograms.negatives).astype(np.float64)
    hits, alarms = np.cumsum(positives, axis=1), np.cumsum(negatives, axis=1)
    actual, normal = hits[:, -1:], alarms[:, -1:]
    mass = np.cumsum((draws @ histograms.region_mass).astype(np.float64), axis=1)
    regions = (draws @ histograms.regions).astype(np.float64)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN: undefined
        lost = ((alarms - 0.5 * negatives) * positives).sum(axis=1, keepdims=True)
        auroc = 1.0 - lost / (actual * normal)
        precision = np.where(positives > 0, hits / (hits + alarms), 0.0)
        average_precision = (precision * positives).sum(axis=1, keepdims=True) / actual
        f1 = (2.0 * hits / (hits + alarms + actual)).max(axis=1, keepdims=True)
        area = _area_to_limit(alarms / normal, mass / regions, fpr_limit)
    table = np.concatenate([auroc, average_precision, f1, area], axis=1).T
    table[:, ((actual == 0) | (normal == 0))[:, 0]] = np.nan
    return table


def _area_to_limit(fpr: Floats, pro: Floats, limit: float) -> Floats:
    """AUPRO (B, 1) of curves (B, K): trapezoids from FPR 0 to the limit, the last one cut, over the limit."""
    x0, y0 = (np.concatenate([np.zeros((len(v), 1)), v[:, :-1]], axis=1) for v in (fpr, pro))
    width = fpr - x0
    inside = np.clip(limit - x0, 0.0, width)
    rise = np.where(width > 0, (pro - y0) * inside / np.where(width > 0, width, 1.0), 0.0)
    area: Floats = ((y0 + 0.5 * rise) * inside).sum(axis=1, keepdims=True) / limit
    return area
