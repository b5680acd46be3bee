"""Numbers that judge anomaly maps: numpy arrays in, numbers out; None where a number is undefined."""

from ad_dinov3.metrics.intervals import (
    Interval,
    bootstrap_images,
    bootstrap_pixels,
    image_histograms,
    interval,
    mean_replicates,
)
from ad_dinov3.metrics.ranking import (
    F1Max,
    RankingCounts,
    RankingMetrics,
    auroc,
    average_precision,
    count_ranking,
    f1_max,
    ranking_metrics,
)
from ad_dinov3.metrics.regions import RegionCounts, aupro, aupro_200, count_regions, pro_curve
from ad_dinov3.metrics.streaming import StreamingPixels

__all__ = [
    "F1Max",
    "Interval",
    "RankingCounts",
    "RankingMetrics",
    "RegionCounts",
    "StreamingPixels",
    "aupro",
    "aupro_200",
    "auroc",
    "average_precision",
    "bootstrap_images",
    "bootstrap_pixels",
    "count_ranking",
    "count_regions",
    "f1_max",
    "image_histograms",
    "interval",
    "mean_replicates",
    "pro_curve",
    "ranking_metrics",
]
