"""From stored maps to a group's metrics: held against scikit-learn on the pixels themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_toys import BrightnessDetector, subject_with
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from ad_dinov3.bench.measure import GroupResult, StoredMaps, StoredMasks, mean_of, measure, read_pairs
from ad_dinov3.bench.metric_table import Estimate
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.run import score
from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample

PROTOCOL = replace(PROTOCOLS["native"], resamples=20)


def _packed(*masks: np.ndarray) -> StoredMasks:
    return StoredMasks([(np.packbits(mask).tobytes(), mask.shape) for mask in masks])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (7, 13)])
def test_a_mask_comes_back_from_its_bits(size: tuple[int, int]) -> None:
    masks = [np.random.default_rng(seed).random(size) > 0.5 for seed in range(3)]
    stored = _packed(*masks)
    assert len(stored) == 3
    for mask, kept in zip(masks, stored, strict=True):
        np.testing.assert_array_equal(kept, mask)
    np.testing.assert_array_equal(stored[1:][1], masks[2])
    np.testing.assert_array_equal(stored.pick([2, 0])[1], masks[0])


def test_an_image_without_a_mask_has_a_size_and_no_pixels() -> None:
    stored = StoredMasks([(None, (4, 6))])
    assert stored.size(0) == (4, 6)
    with pytest.raises(DataError, match="no pixels to measure"):
        stored[0]


def test_pixel_and_image_figures_are_those_of_scikit_learn(toy: TestSet, tmp_path: Path) -> None:
    items, _ = score(subject_with(BrightnessDetector()), toy, PROTOCOL, tmp_path)
    masks = read_pairs([item.sample for item in items], PROTOCOL).masks
    result = measure(items, masks, PROTOCOL)
    maps = StoredMaps(items, masks)
    values = np.concatenate([one.ravel() for one in maps])
    truth = np.concatenate([one.ravel() for one in masks])
    assert result.estimates["pixel_auroc"].value == pytest.approx(roc_auc_score(truth, values))
    assert result.estimates["pixel_ap"].value == pytest.approx(average_precision_score(truth, values))
    assert result.pixels == truth.size
    assert result.anomalous_images == sum(item.sample.is_anomalous for item in items)
    for name in ("pixel_auroc", "image_auroc"):
        estimate = result.estimates[name]
        assert estimate.value is not None
        assert estimate.interval is not None
        assert estimate.interval.low <= estimate.value <= estimate.interval.high


def test_binned_figures_of_many_pixels_are_close_to_the_exact_ones(toy: TestSet, tmp_path: Path) -> None:
    items, _ = score(subject_with(BrightnessDetector()), toy, PROTOCOL, tmp_path)
    masks = read_pairs([item.sample for item in items], PROTOCOL).masks
    exact = measure(items, masks, PROTOCOL)
    binned = measure(items, masks, replace(PROTOCOL, exact_up_to_px=0))
    assert exact.estimator == "exact"
    assert binned.estimator == "65536 bins"
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        if name in exact.estimates:
            assert binned.estimates[name].value == pytest.approx(exact.estimates[name].value, abs=1e-3)


def test_what_cannot_be_paired_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "image.png")
    Image.new("L", (5, 4)).save(tmp_path / "mask.png")
    normal = Sample(tmp_path / "image.png", None, "nut", False)
    unequal = Sample(tmp_path / "image.png", tmp_path / "mask.png", "nut", True, "cut")
    absent = Sample(tmp_path / "absent.png", None, "nut", False)
    pairs = read_pairs([normal, unequal, absent], PROTOCOL)
    assert pairs.samples == (normal,)
    assert pairs.masks.size(0) == (4, 6)
    assert len(pairs.problems) == 2
    assert "mask.png" in pairs.problems[0]
    assert "absent.png" in pairs.problems[1]


def _group(value: float | None, images: int) -> GroupResult:
    return GroupResult({"pixel_auroc": Estimate(value)}, images, 1, 10, 0.5, "exact", 1, None, None)


def test_the_mean_over_classes_is_unweighted_and_ignores_what_is_undefined() -> None:
    together = mean_of([_group(0.9, 100), _group(0.5, 1), _group(None, 7)], PROTOCOL)
    assert together.estimates["pixel_auroc"].value == pytest.approx(0.7)
    assert (together.images, together.pixels, together.seconds) == (108, 30, 1.5)
    nothing = mean_of([_group(None, 1)], PROTOCOL)
    assert nothing.estimates["pixel_auroc"].value is None
