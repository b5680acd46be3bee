"""How strange is strange: p-values and thresholds from good images alone, and what n of them can promise.

The promise rests on exchangeability: the good images and the parts to come could have been taken in any order. It says
nothing once light, camera or product have changed. Vovk, Gammerman, Shafer 2005; Bates et al., Annals of Statistics
2023. Scores are larger for what is stranger; ties count for the part, against an alarm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from ad_dinov3.errors import ConfigError

CONFIDENCE = 0.95
"""With which the upper bound of a false-alarm rate is stated."""
VOID = "The promise is void where the images to come differ from the good ones in camera, light or product."


def p_value(calibration: ArrayLike, score: ArrayLike) -> float:
    """(1 + number of calibration scores at or above the test score) / (n + 1), in (0, 1].

    Args:
        calibration: n scores of good images that the test image is exchangeable with.
        score: one number; or n, the test score without the i-th good image's help (jackknife+, Barber et al. 2021,
            which guarantees P(p <= a) <= 2a and keeps about a in practice).
    """
    known = np.asarray(calibration, np.float64)
    return float((1 + np.count_nonzero(known >= np.asarray(score, np.float64))) / (known.size + 1))


def p_values(calibration: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """`p_value` of each of m test scores against the same n calibration scores."""
    known = np.sort(np.asarray(calibration, np.float64))
    at_or_above = known.size - np.searchsorted(known, np.asarray(scores, np.float64), side="left")
    return np.asarray((1 + at_or_above) / (known.size + 1), np.float64)


def rank_for(rate: float, images: int) -> int:
    """How many of n good images may lie above a threshold that promises a false-alarm rate, plus one; 0: it cannot."""
    return min(images, math.floor(rate * (images + 1) + 1e-9))


@dataclass(frozen=True)
class Promise:
    """What a threshold at the k-th largest of n good images' scores promises on good images to come.

    Attributes:
        images: n, good images that the threshold rests on; near-duplicates count once.
        rank: k, counted from the largest score.
    """

    images: int
    rank: int

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= self.images:
            raise ConfigError(f"expected a rank from 1 to {self.images} good images, got {self.rank}")

    @property
    def rate(self) -> float:
        """The false-alarm rate on average over calibrations, k / (n + 1)."""
        return self.rank / (self.images + 1)

    def bound(self, confidence: float = CONFIDENCE) -> float:
        """What the false-alarm rate stays below with this confidence: a quantile of Beta(k, n + 1 - k)."""
        return float(scipy.special.betaincinv(self.rank, self.images + 1 - self.rank, confidence))

    def sentence(self) -> str:
        """What a person reads."""
        plural = "image" if self.images == 1 else "images"
        said = (
            f"with your {self.images} good {plural} about 1 good part in {round(1 / self.rate)} will be flagged; "
            f"95 % sure that fewer than {percent(self.bound())} will"
        )
        if self.rank > 1:
            strict = Promise(self.images, 1)
            return f"{said}; a promise of {percent(strict.rate)} would bring this to {percent(strict.bound())}"
        better = next((rate for rate in (0.05, 0.01) if images_for_bound(rate) > self.images), None)
        return (
            said
            if better is None
            else (f"{said}; {images_for_bound(better)} good images would bring this to {percent(better)}")
        )


def percent(share: float) -> str:
    """A share in [0, 1] as people write it: ``9.1 %``, ``26 %``."""
    digits = 0 if share >= 0.0995 or abs(100 * share - round(100 * share)) < 0.05 else 1
    return f"{100 * share:.{digits}f} %"


def images_for(rate: float) -> int:
    """The fewest good images that can promise a false-alarm rate on average."""
    return math.ceil(1 / rate - 1 - 1e-9)


def images_for_bound(rate: float, confidence: float = CONFIDENCE) -> int:
    """The fewest good images whose largest score keeps the false-alarm rate below ``rate`` with this confidence."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate) - 1e-9)


def promise_for(rate: float, images: int) -> Promise:
    """The loosest threshold that promises a false-alarm rate on average.

    Raises:
        ConfigError: n images cannot promise it; the message says how many can.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"expected a false-alarm rate between 0 and 1, such as 5%, got {rate}")
    rank = rank_for(rate, images)
    if rank == 0:
        raise ConfigError(
            f"{images} good images cannot promise {percent(rate)} false alarms: they reach 1 in {images + 1} at best; "
            f"{images_for(rate)} promise it on average, {images_for_bound(rate)} with 95 % confidence. "
            f"Take more good images, or a rate from {percent(1 / (images + 1))} on"
        )
    return Promise(images, rank)


def strictest_promise(images: int, wanted: float = 0.05) -> Promise:
    """The promise at the wanted rate, or the nearest to it that so few images can give."""
    return Promise(images, max(1, rank_for(wanted, images)))


def threshold(calibration: ArrayLike, promise: Promise) -> float:
    """The k-th largest calibration score; what lies above it is an alarm, what equals it is none.

    Raises:
        ConfigError: the promise is of another number of images.
    """
    known = np.sort(np.asarray(calibration, np.float64))
    if known.size != promise.images:
        raise ConfigError(f"expected {promise.images} calibration scores, got {known.size}")
    return float(known[-promise.rank])


def grouped(scores: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """The largest score of each group: near-duplicates (a part seen twice, frames of a film) count as one image."""
    values = np.asarray(scores, np.float64)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    largest = np.full(index.max() + 1 if index.size else 0, -np.inf)
    np.maximum.at(largest, index, values)
    return largest


def robust_threshold(scores: ArrayLike) -> float:
    """A threshold from unlabelled scores > 0 that multiply, such as odds: `robust_level` of their logarithms."""
    return float(np.exp(robust_level(np.log(np.maximum(np.asarray(scores, np.float64), 1e-12)))))


def robust_level(values: ArrayLike, deviations: float = 3.5) -> float:
    """A threshold from unlabelled values, most of them of good images: it promises nothing.

    The middle of the good ones is that of the shortest interval that holds most of all values, where the median would
    move up with every defect; their deviation is 1.4826 times the median distance of the values below from it.

    Args:
        values: (n,), at least one.
        deviations: from the middle to the threshold.
    """
    known = np.sort(np.asarray(values, np.float64))
    half = known.size // 2 + 1
    start = int(np.argmin(known[half - 1 :] - known[: known.size - half + 1]))
    middle = float(np.median(known[start : start + half]))
    return middle + deviations * max(1.4826 * float(np.median(middle - known[known <= middle])), 1e-3)
