"""Pixel metrics in constant memory: a state that is updated image by image, and states that add.

Scores fall into equal bins over a stated range; a bin's scores count as ties. The state's size does not depend on
how many images it has seen, states from batches or processes add up to the state of all images, and the state
bounds its own error (`StreamingPixels.auroc_error_bound`). The counts that come out feed the same functions as the
exact ones: `ranking.auroc`, `ranking.average_precision`, `ranking.f1_max`, `regions.aupro`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.metrics.ranking import Array, Arrays, RankingCounts, as_label, as_lists
from ad_dinov3.metrics.regions import RegionCounts, region_weights

BINS = 65_536
_BLOCK = 1 << 17


@dataclass(frozen=True)
class StreamingPixels:
    """Histograms of the pixels seen so far; immutable, `update` and `+` give a new state.

    Attributes:
        low: least score that may come.
        high: greatest score that may come.
        positives: (bins,) int64, anomalous pixels per bin of scores.
        negatives: (bins,) int64, normal pixels per bin.
        region_mass: (bins,) float64, sum of 1 / (area of its region) over the anomalous pixels of a bin.
        regions: regions seen.
        images: images seen.
    """

    low: float
    high: float
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    region_mass: NDArray[np.float64]
    regions: int
    images: int

    @classmethod
    def empty(cls, low: float = 0.0, high: float = 1.0, bins: int = BINS) -> StreamingPixels:
        """A state that has seen nothing.

        Args:
            low: least score that may come; a score outside is refused, never clipped.
            high: greatest score that may come.
            bins: how many scores can be told apart.

        Raises:
            ConfigError: the range is empty or there are fewer than two bins.
        """
        if not low < high or bins < 2:
            raise ConfigError(f"expected low < high and at least 2 bins, got {low}, {high} and {bins}")
        zeros = np.zeros(bins, np.int64)
        return cls(low, high, zeros, zeros, np.zeros(bins), 0, 0)

    def update(self, maps: Arrays, masks: Arrays, *, with_regions: bool = True) -> StreamingPixels:
        """The state after some more images.

        Args:
            maps: anomaly maps (H, W) within [low, high]; a list, or one map.
            masks: ground truth of the same sizes; nonzero is anomalous.
            with_regions: False leaves out the regions, which only AUPRO needs.

        Raises:
            ShapeError: a mask does not have its map's shape.
            DataError: a score is NaN or outside the range.
        """
        bins = self.positives.size
        every, positives, mass = np.zeros(bins, np.int64), self.positives.copy(), self.region_mass.copy()
        regions = self.regions
        map_list, mask_list = as_lists(maps, masks)
        for score, mask in zip(map_list, mask_list, strict=True):
            is_positive = as_label(score, mask)
            _add_histogram(every, score, self.low, self.high)
            if is_positive.any():
                picked = bin_indices(score[is_positive], self.low, self.high, bins)
                np.add.at(positives, picked, 1)
                if with_regions:
                    weights, count = region_weights(is_positive)
                    np.add.at(mass, picked, weights)
                    regions += count
        negatives = self.negatives + every - (positives - self.positives)
        return replace(
            self,
            positives=positives,
            negatives=negatives,
            region_mass=mass,
            regions=regions,
            images=self.images + len(map_list),
        )

    def __add__(self, other: StreamingPixels) -> StreamingPixels:
        """The state of the images of both.

        Raises:
            ConfigError: the states do not share range and bins.
        """
        mine, theirs = (self.low, self.high, self.positives.size), (other.low, other.high, other.positives.size)
        if mine != theirs:
            raise ConfigError(f"expected states of one range and bin count (low, high, bins), got {mine} and {theirs}")
        return StreamingPixels(
            self.low,
            self.high,
            self.positives + other.positives,
            self.negatives + other.negatives,
            self.region_mass + other.region_mass,
            self.regions + other.regions,
            self.images + other.images,
        )

    def counts(self) -> RegionCounts:
        """The counts that the metric functions take; a bin's lower edge stands for its scores."""
        held = np.flatnonzero(self.positives)[::-1]
        below_or_in = np.cumsum(self.negatives)
        total = int(below_or_in[-1])
        edges = self.low + held * ((self.high - self.low) / self.positives.size)
        ranking = RankingCounts(edges, self.positives[held], total - below_or_in[held], self.negatives[held], total)
        return RegionCounts(ranking, self.region_mass[held], self.regions)

    def auroc_error_bound(self) -> float | None:
        """The greatest distance from the exact AUROC that the binning can have caused; None if undefined.

        Within a bin every order of positives and negatives is possible, and half of the pairs are counted as won.
        """
        ranking = self.counts().ranking
        if not ranking.is_defined:
            return None
        pairs = float(ranking.positives @ ranking.negatives_tied.astype(np.float64))
        return 0.5 * pairs / (ranking.positive_total * ranking.negative_total)


def bin_indices(score: Array, low: float, high: float, bins: int) -> NDArray[np.intp]:
    """The bin of each score: equal bins over [low, high], the last one closed.

    Raises:
        DataError: a score is NaN or outside the range.
    """
    if score.size and not (low <= score.min() and score.max() <= high):
        raise DataError(
            f"expected scores within [{low}, {high}], got [{score.min()}, {score.max()}]; state the range of the scores"
        )
    position = np.subtract(score, low, dtype=np.result_type(score.dtype, np.float32))
    position *= bins / (high - low)
    indices = position.astype(np.intp)
    return np.minimum(indices, bins - 1, out=indices)


def _add_histogram(total: NDArray[np.int64], score: Array, low: float, high: float) -> None:
    """Add a map's scores to a histogram, in blocks that stay in the processor's cache."""
    flat = score.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        indices = bin_indices(flat[start : start + _BLOCK], low, high, total.size)
        total += np.bincount(indices, minlength=total.size)
