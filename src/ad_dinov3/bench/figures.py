"""Curves of a result as SVG, with the operating point where F1 is greatest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.measure import GroupResult
from ad_dinov3.files import write_text
from ad_dinov3.metrics.ranking import RankingCounts, f1_max
from ad_dinov3.metrics.regions import RegionCounts, pro_curve
from ad_dinov3.report.chart import Point, line_chart

_POINTS = 400


def write_curves(result: GroupResult, title: str, folder: Path) -> list[Path]:
    """ROC, precision-recall and PRO curves of pixels, and of images where both kinds are there.

    Args:
        result: measured over one group of images.
        title: what the figures are of.
        folder: gets ``pixel_roc.svg`` and so on.

    Returns:
        the files written; none for metrics that are undefined.
    """
    charts: dict[str, str] = {}
    pixels = result.pixel_counts
    if pixels is not None and pixels.ranking.is_defined:
        charts |= _ranking_charts("pixel", pixels.ranking, title)
        charts["pixel_pro"] = pro_chart(pixels, f"{title}: per-region overlap")
    if result.image_counts is not None and result.image_counts.is_defined:
        charts |= _ranking_charts("image", result.image_counts, title)
    for name, chart in charts.items():
        write_text(folder / f"{name}.svg", chart)
    return [folder / f"{name}.svg" for name in charts]


def _ranking_charts(kind: str, counts: RankingCounts, title: str) -> dict[str, str]:
    return {
        f"{kind}_roc": roc_chart(counts, f"{title}: {kind} ROC"),
        f"{kind}_pr": precision_recall_chart(counts, f"{title}: {kind} precision and recall"),
    }


def roc_chart(counts: RankingCounts, title: str) -> str:
    """True positive rate over false positive rate, from (0, 0) to (1, 1)."""
    total = counts.negative_total
    tpr = counts.true_positives / counts.positive_total
    # Between two positive scores only negatives pass: a flat piece up to the next score, then the step at it.
    across = np.column_stack([counts.negatives_above / total, counts.false_positives / total]).ravel()
    up = np.column_stack([np.append(0.0, tpr[:-1]), tpr]).ravel()
    best = _best(counts)
    return line_chart(
        {
            "ROC": thinned(np.concatenate([[0.0], across, [1.0]]), np.concatenate([[0.0], up, [1.0]])),
            "chance": [(0.0, 0.0), (1.0, 1.0)],
            _label(counts): _cross(counts.false_positives[best] / total, tpr[best]),
        },
        title,
        "false positive rate",
        "true positive rate",
    )


def precision_recall_chart(counts: RankingCounts, title: str) -> str:
    """Precision over recall at each threshold."""
    recall = counts.true_positives / counts.positive_total
    precision = counts.true_positives / (counts.true_positives + counts.false_positives)
    best = _best(counts)
    prevalence = counts.positive_total / (counts.positive_total + counts.negative_total)
    return line_chart(
        {
            "precision": thinned(recall, precision),
            "chance": [(0.0, prevalence), (1.0, prevalence)],
            _label(counts): _cross(recall[best], precision[best]),
        },
        title,
        "recall",
        "precision",
    )


def pro_chart(counts: RegionCounts, title: str) -> str:
    """Mean overlap of the regions over the false positive rate, the limit of AUPRO, and where F1 is greatest."""
    curve = pro_curve(counts)
    best = _best(counts.ranking)
    overlap = float(counts.region_mass[: best + 1].sum()) / counts.regions
    return line_chart(
        {
            "PRO": thinned(curve.fpr, curve.pro),
            "limit of AUPRO": [(0.3, 0.0), (0.3, 1.0)],
            _label(counts.ranking): _cross(
                counts.ranking.false_positives[best] / counts.ranking.negative_total, overlap
            ),
        },
        title,
        "false positive rate",
        "per-region overlap",
    )


def thinned(x: NDArray[np.floating], y: NDArray[np.floating]) -> list[Point]:
    """At most a few hundred points of a curve, evenly spread along its length, its ends among them."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    picked = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], _POINTS)).clip(0, x.size - 1))
    return [(float(x[i]), float(y[i])) for i in picked]


def _best(counts: RankingCounts) -> int:
    best = f1_max(counts)
    return int(np.flatnonzero(counts.thresholds == best.threshold)[0]) if best else 0


def _label(counts: RankingCounts) -> str:
    best = f1_max(counts)
    return f"F1 {best.value:.3f} at {best.threshold:.3f}" if best else "F1"


def _cross(x: float, y: float, arm: float = 0.015) -> list[Point]:
    """A small cross at a point, drawn as one line that stays within the unit square."""
    left, right = max(x - arm, 0.0), min(x + arm, 1.0)
    return [(left, y), (right, y), (x, y), (x, max(y - arm, 0.0)), (x, min(y + arm, 1.0))]
