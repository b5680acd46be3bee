"""AUPRO against loops over every threshold, written here from the definition."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from sklearn.metrics import auc

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.metrics import ranking, regions
from ad_dinov3.metrics.ranking import count_ranking
from ad_dinov3.metrics.regions import aupro, aupro_200, count_regions, pro_curve, region_weights

Maps = list[NDArray[np.floating]]
Masks = list[NDArray[np.bool_]]


def drawn(seed: int, levels: int = 0) -> tuple[Maps, Masks]:
    """A few small maps with blobs as masks, one image normal, sizes unequal; quantised if levels are given."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i, shape in enumerate([(17, 23), (20, 20), (9, 31)]):
        mask = np.zeros(shape, bool)
        for _ in range(0 if i == 1 else 3):
            y, x = rng.integers(0, shape[0] - 3), rng.integers(0, shape[1] - 3)
            mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
        score = (rng.normal(size=shape) + 1.5 * mask).astype(np.float32)
        maps.append(np.round(score * levels) / levels if levels else score)
        masks.append(mask)
    return maps, masks


def brute_force_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    """Every unique score is a threshold; each region's overlap is taken by itself; cut by linear interpolation."""
    fprs, pros = [0.0], [0.0]
    normal = sum(int((~m).sum()) for m in masks)
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlaps = [
            np.mean(score[tuple(region.coords.T)] >= threshold)
            for score, mask in zip(maps, masks, strict=True)
            for region in regionprops(label(mask, connectivity=2))
        ]
        pros.append(float(np.mean(overlaps)))
        fprs.append(sum(int(((s >= threshold) & ~m).sum()) for s, m in zip(maps, masks, strict=True)) / normal)
    edge = float(np.interp(limit, fprs, pros))
    kept = [(x, y) for x, y in zip(fprs, pros, strict=True) if x <= limit]
    return float(np.trapezoid([y for _, y in kept] + [edge], [x for x, _ in kept] + [limit])) / limit


def field_loop_aupro(maps: Maps, masks: Masks, limit: float = 0.3, steps: int = 200) -> float:
    """The zero-shot field's routine, step by step, from its description in docs/metrics.md."""
    scores, truth = np.stack(maps), np.stack(masks)
    low, high = scores.min(), scores.max()
    fprs, pros = [], []
    for threshold in np.arange(low, high, (high - low) / steps):
        called = scores > threshold
        overlaps = [
            called[i][tuple(region.coords.T)].mean()
            for i, mask in enumerate(truth)
            for region in regionprops(label(mask))
        ]
        pros.append(np.mean(overlaps))
        fprs.append((called & ~truth).sum() / (~truth).sum())
    x, y = np.array(fprs), np.array(pros)
    kept = x < limit
    stretched = (x[kept] - x[kept].min()) / (x[kept].max() - x[kept].min())
    return float(auc(stretched, y[kept]))


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [0, 1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_aupro_equals_the_loop_over_every_threshold(seed: int, levels: int, limit: float) -> None:
    maps, masks = drawn(seed, levels)
    assert aupro(count_regions(maps, masks), limit) == pytest.approx(brute_force_aupro(maps, masks, limit), abs=1e-9)


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.parametrize("levels", [0, 3])
def test_aupro_is_the_same_whatever_is_integrated_at_once(
    monkeypatch: pytest.MonkeyPatch, block: int, levels: int
) -> None:
    counts = count_regions(*drawn(2, levels))
    whole = [aupro(counts, limit) for limit in (0.01, 0.3, 1.0)]
    monkeypatch.setattr(regions, "_BLOCK", block)
    assert [aupro(counts, limit) for limit in (0.01, 0.3, 1.0)] == pytest.approx(whole, abs=1e-12)


def test_aupro_takes_a_third_of_the_scores_memory_beside_them() -> None:
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.random((8, 8)) < 0.02, np.ones((32, 32))) > 0 for _ in range(60)]
    maps = [(rng.random(mask.shape) + 0.5 * mask).astype(np.float32) for mask in masks]
    ranking._faster_sort()  # its trial, once in a process, has memory of its own
    tracemalloc.start()
    aupro(count_regions(maps, masks))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(m.nbytes for m in maps) / 3


@pytest.mark.parametrize("seed", range(3))
def test_aupro_200_equals_the_fields_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [np.kron(rng.random((6, 6)) < 0.1, np.ones((5, 5))) > 0 for _ in range(4)]
    maps = [(rng.gamma(2.0, size=(30, 30)) + mask).astype(np.float32) for mask in masks]
    assert aupro_200(maps, masks) == pytest.approx(field_loop_aupro(maps, masks), abs=1e-6)


def test_aupro_200_moves_with_the_scores_range_where_aupro_does_not() -> None:
    maps, masks = drawn(0)
    stretched = [np.exp(3 * m) for m in maps]
    assert aupro(count_regions(stretched, masks)) == pytest.approx(aupro(count_regions(maps, masks)), abs=1e-12)
    assert aupro_200(stretched, masks) != pytest.approx(aupro_200(maps, masks), abs=1e-2)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_order_of_images_changes_nothing(seed: int) -> None:
    maps, masks = drawn(seed)
    assert aupro(count_regions(maps[::-1], masks[::-1])) == pytest.approx(aupro(count_regions(maps, masks)), abs=1e-12)


def test_counts_hold_the_same_ranking_as_the_plain_count() -> None:
    maps, masks = drawn(5, levels=3)
    ours, plain = count_regions(maps, masks).ranking, count_ranking(maps, masks)
    for name in ("thresholds", "positives", "negatives_above", "negatives_tied"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))


def test_large_and_small_regions_count_alike() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0:5, 0:5] = True
    mask[9, 9] = True
    found_small, found_large = np.where(mask, 0.2, 0.5), np.where(mask, 0.2, 0.5)
    found_small[9, 9] = found_large[0:5, 0:5] = 0.9
    small, large = (aupro(count_regions([found], [mask])) for found in (found_small, found_large))
    assert small == pytest.approx(large)


def test_perfect_map_gives_one_and_constant_map_the_chord() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    assert aupro(count_regions([mask.astype(np.float32)], [mask])) == pytest.approx(1.0)
    assert aupro(count_regions([np.full((8, 8), 0.5)], [mask])) == pytest.approx(0.15)  # PRO = FPR, 0.3² / 2 / 0.3


@pytest.mark.parametrize("fill", [False, True])
def test_without_regions_or_without_normal_pixels_it_is_undefined(fill: bool) -> None:
    maps, masks = [np.random.default_rng(0).random((5, 5))], [np.full((5, 5), fill)]
    assert aupro(count_regions(maps, masks)) is None
    assert aupro_200(maps, masks) is None


def test_aupro_200_of_a_constant_map_is_undefined() -> None:
    assert aupro_200([np.ones((4, 4))], [np.eye(4) > 0]) is None


def test_diagonal_neighbours_are_one_region() -> None:
    weights, regions = region_weights(np.eye(4, dtype=bool))
    assert regions == 1
    np.testing.assert_allclose(weights, 0.25)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_weights_sum_to_the_number_of_regions_of_another_library(seed: int) -> None:
    mask = np.random.default_rng(seed).random((12, 15)) < 0.3
    weights, regions = region_weights(mask)
    assert regions == label(mask, connectivity=2).max()
    assert weights.sum() == pytest.approx(regions)
    assert weights.size == mask.sum()


def test_curve_runs_from_origin_to_one_and_never_falls() -> None:
    curve = pro_curve(count_regions(*drawn(2, levels=5)))
    assert (curve.fpr[0], curve.pro[0], curve.fpr[-1], curve.pro[-1]) == (0, 0, 1, pytest.approx(1))
    assert (np.diff(curve.fpr) >= 0).all()
    assert (np.diff(curve.pro) >= -1e-12).all()


def test_bad_limit_and_bad_mask_are_refused() -> None:
    maps, masks = drawn(0)
    with pytest.raises(ConfigError, match="limit"):
        aupro(count_regions(maps, masks), 0.0)
    with pytest.raises(ShapeError, match="H, W"):
        count_regions([np.zeros((2, 3, 3))], [np.ones((2, 3, 3), bool)])
