"""The table of metrics: every row against scikit-learn or a plain loop, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from ad_dinov3.bench.metric_table import METRICS, Evidence, estimate_all
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.metrics.intervals import bootstrap_images, bootstrap_pixels, image_histograms
from ad_dinov3.metrics.ranking import count_ranking
from ad_dinov3.metrics.regions import count_regions

RELEASED = PROTOCOLS["released"]


def image_evidence(scores: np.ndarray, labels: np.ndarray) -> Evidence:
    return Evidence(count_ranking(scores, labels), bootstrap_images(scores, labels, resamples=20), RELEASED)


@pytest.fixture(scope="module")
def maps_and_masks() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(3)
    masks = [np.zeros((24, 24), bool) for _ in range(4)]
    masks[0][2:8, 3:9] = masks[0][15:20, 15:23] = masks[1][5:9, 5:20] = True
    return [rng.random((24, 24)).astype(np.float32) * 0.7 + 0.3 * mask for mask in masks], masks


@pytest.fixture(scope="module")
def pixel_evidence(maps_and_masks: tuple[list[np.ndarray], list[np.ndarray]]) -> Evidence:
    maps, masks = maps_and_masks
    counts = count_regions(maps, masks)
    drawn = bootstrap_pixels(image_histograms(maps, masks, counts), resamples=20)
    return Evidence(counts.ranking, drawn, RELEASED, counts, maps, masks)


def test_ranking_rows_hold_scikit_learns_values_at_both_levels(
    maps_and_masks: tuple[list[np.ndarray], list[np.ndarray]], pixel_evidence: Evidence
) -> None:
    maps, masks = maps_and_masks
    pixels, truth = np.concatenate([one.ravel() for one in maps]), np.concatenate([one.ravel() for one in masks])
    image_scores, labels = np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False])
    found = estimate_all({"pixel": pixel_evidence, "image": image_evidence(image_scores, labels)}, RELEASED)
    for level, scores, is_positive in (("pixel", pixels, truth), ("image", image_scores, labels)):
        precision, recall, _ = precision_recall_curve(is_positive, scores)
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert found[f"{level}_auroc"].value == pytest.approx(roc_auc_score(is_positive, scores))
        assert found[f"{level}_ap"].value == pytest.approx(average_precision_score(is_positive, scores))
        assert found[f"{level}_f1_max"].value == pytest.approx(best)
        threshold = found[f"{level}_f1_max"].threshold
        assert threshold is not None
        called = scores >= threshold
        assert 2 * (called & is_positive).sum() / (called.sum() + is_positive.sum()) == pytest.approx(best)


def test_the_row_of_aupro_is_the_area_of_a_plain_loop(
    maps_and_masks: tuple[list[np.ndarray], list[np.ndarray]], pixel_evidence: Evidence
) -> None:
    maps, masks = maps_and_masks
    regions = [
        (scores, labels == number)
        for scores, mask in zip(maps, masks, strict=True)
        for labels, count in [ndimage.label(mask, np.ones((3, 3)))]
        for number in range(1, count + 1)
    ]
    negatives = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    thresholds = np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]
    fpr = np.array([0.0, *((negatives >= t).mean() for t in thresholds)])
    pro = np.array([0.0, *(np.mean([(scores[area] >= t).mean() for scores, area in regions]) for t in thresholds)])
    grid = np.linspace(0, 0.3, 300_001)
    expected = np.trapezoid(np.interp(grid, fpr, pro), grid) / 0.3
    found = METRICS["pixel_aupro"].compute(pixel_evidence)
    assert found.value == pytest.approx(expected, abs=2e-3)
    assert METRICS["pixel_aupro_200"].compute(pixel_evidence).value == pytest.approx(expected, abs=0.05)


def test_metrics_without_evidence_or_with_one_kind_alone_are_undefined_and_shown_as_na() -> None:
    one_kind = image_evidence(np.array([0.2, 0.9]), np.array([True, True]))
    found = estimate_all({"image": one_kind}, RELEASED)
    assert {name: estimate.value for name, estimate in found.items()} == dict.fromkeys(METRICS)
    assert {metric.shown(None) for metric in METRICS.values()} == {"n/a"}


def test_the_row_of_200_thresholds_is_there_only_where_the_protocol_asks() -> None:
    images = image_evidence(np.array([0.2, 0.9]), np.array([False, True]))
    assert set(METRICS) - set(estimate_all({"image": images}, PROTOCOLS["paper"])) == {"pixel_aupro_200"}


def test_names_begin_with_their_level_and_figures_have_the_rows_digits() -> None:
    for name, metric in METRICS.items():
        assert (metric.name, name.partition("_")[0]) == (name, metric.level)
        assert metric.title.startswith(("Pixel ", "Image "))
        assert len(metric.shown(0.12345).partition(".")[2]) == metric.digits
