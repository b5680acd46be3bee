"""Every metric of the bench, once: what rows call it, what people read, and how it is computed.

A new metric is a row of `METRICS` and the function that the row names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.metrics.intervals import BootstrapMetrics, Interval, Replicates, interval
from ad_dinov3.metrics.ranking import RankingCounts, auroc, average_precision, f1_max
from ad_dinov3.metrics.regions import RegionCounts, aupro, aupro_200

Level = Literal["pixel", "image"]


@dataclass(frozen=True)
class Estimate:
    """One metric's value; None where undefined.

    Attributes:
        value: in [0, 1].
        interval: over resampled images; None where undefined or not computed.
        threshold: where F1 is greatest; None for other metrics.
        replicates: of the bootstrap, for means over classes.
    """

    value: float | None
    interval: Interval | None = None
    threshold: float | None = None
    replicates: Replicates | None = None


@dataclass(frozen=True)
class Evidence:
    """What the metrics of one level are computed from.

    Attributes:
        ranking: counts at every threshold.
        drawn: the metrics of resamples of the images.
        protocol: what counts.
        regions: counts with the regions' overlap; of pixels alone.
        maps: (H, W) each, at the size of evaluation; of pixels that are measured exactly alone.
        masks: their ground truth.
    """

    ranking: RankingCounts
    drawn: BootstrapMetrics
    protocol: Protocol
    regions: RegionCounts | None = None
    maps: Sequence[NDArray[np.float32]] = ()
    masks: Sequence[NDArray[np.bool_]] = ()

    def estimate(self, value: float | None, replicates: Replicates, threshold: float | None = None) -> Estimate:
        """A value with its interval at the protocol's level."""
        if value is None:
            return Estimate(None)
        return Estimate(value, interval(replicates, value, self.protocol.level), threshold, replicates)


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: what rows call it.
        level: whether pixels or images are ranked.
        short: what people call it, the level aside.
        compute: from the evidence of its level.
        digits: decimals of the figure in percent; figures that are equal as shown share a rank.
        is_asked: whether a protocol wants it.
    """

    name: str
    level: Level
    short: str
    compute: Callable[[Evidence], Estimate]
    digits: int = 1
    is_asked: Callable[[Protocol], bool] = lambda protocol: True

    @property
    def title(self) -> str:
        """What people call it, such as ``Pixel AUROC``."""
        return f"{self.level.capitalize()} {self.short}"

    def shown(self, value: float | None) -> str:
        """A value in percent; n/a where undefined."""
        return "n/a" if value is None else f"{100 * value:.{self.digits}f}"


def estimate_all(evidence: Mapping[Level, Evidence], protocol: Protocol) -> dict[str, Estimate]:
    """Every metric that the protocol asks for, by name; undefined where its level has no evidence."""
    return {
        name: metric.compute(evidence[metric.level]) if metric.level in evidence else Estimate(None)
        for name, metric in METRICS.items()
        if metric.is_asked(protocol)
    }


def _auroc(of: Evidence) -> Estimate:
    return of.estimate(auroc(of.ranking), of.drawn.auroc)


def _average_precision(of: Evidence) -> Estimate:
    return of.estimate(average_precision(of.ranking), of.drawn.average_precision)


def _f1_max(of: Evidence) -> Estimate:
    best = f1_max(of.ranking)
    return of.estimate(best.value, of.drawn.f1_max, best.threshold) if best else Estimate(None)


def _aupro(of: Evidence) -> Estimate:
    return of.estimate(aupro(of.regions, of.protocol.fpr_limit) if of.regions else None, of.drawn.aupro)


def _aupro_200(of: Evidence) -> Estimate:
    return Estimate(aupro_200(of.maps, of.masks, of.protocol.fpr_limit) if len(of.maps) else None)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pixel_auroc", "pixel", "AUROC", _auroc),
        Metric("pixel_f1_max", "pixel", "F1-max", _f1_max),
        Metric("pixel_ap", "pixel", "AP", _average_precision),
        Metric("pixel_aupro", "pixel", "AUPRO", _aupro),
        Metric("pixel_aupro_200", "pixel", "AUPRO-200", _aupro_200, is_asked=lambda protocol: protocol.legacy_aupro),
        Metric("image_auroc", "image", "AUROC", _auroc),
        Metric("image_f1_max", "image", "F1-max", _f1_max),
        Metric("image_ap", "image", "AP", _average_precision),
    )
}
