"""Streaming states against the exact metrics, and their algebra."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, DataError, ShapeError
from ad_dinov3.metrics.ranking import auroc, average_precision, f1_max, ranking_metrics
from ad_dinov3.metrics.regions import aupro, count_regions
from ad_dinov3.metrics.streaming import StreamingPixels

Maps = list[NDArray[np.floating]]


def drawn(count: int, seed: int = 0, size: int = 64) -> tuple[Maps, list[NDArray[np.bool_]]]:
    rng = np.random.default_rng(seed)
    masks = [np.kron(rng.random((8, 8)) < 0.05 * (i % 3), np.ones((size // 8, size // 8))) > 0 for i in range(count)]
    maps = [(1 / (1 + np.exp(1 - rng.normal(size=m.shape) - 2 * m))).astype(np.float32) for m in masks]
    return maps, masks


def assert_same(left: StreamingPixels, right: StreamingPixels) -> None:
    for field in fields(StreamingPixels):
        np.testing.assert_allclose(getattr(left, field.name), getattr(right, field.name), rtol=1e-12)


def test_streaming_is_close_to_exact_and_within_its_own_bound() -> None:
    maps, masks = drawn(30)
    state = StreamingPixels.empty().update(maps, masks)
    counts, exact = state.counts(), ranking_metrics(maps, masks)
    assert exact.f1_max is not None
    error = abs(auroc(counts.ranking) - exact.auroc)  # type: ignore[operator]
    assert error <= 1e-6
    assert error <= state.auroc_error_bound()  # type: ignore[operator]
    assert average_precision(counts.ranking) == pytest.approx(exact.average_precision, abs=1e-4)
    assert f1_max(counts.ranking).value == pytest.approx(exact.f1_max.value, abs=1e-4)  # type: ignore[union-attr]
    assert aupro(counts) == pytest.approx(aupro(count_regions(maps, masks)), abs=1e-5)


@given(st.integers(0, 9), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_merged_states_equal_the_state_of_all_images(cut: int, seed: int) -> None:
    maps, masks = drawn(9, seed, size=16)
    empty = StreamingPixels.empty(bins=256)
    merged = empty.update(maps[:cut], masks[:cut]) + empty.update(maps[cut:], masks[cut:])
    assert_same(merged, empty.update(maps, masks))


@given(st.integers(2, 300), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_scores_on_bin_edges_lose_nothing(bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, bins, (9, 9))
    mask = rng.random((9, 9)) < 0.3
    mask[0, :2] = [True, False]
    state = StreamingPixels.empty(0.0, float(bins), bins).update([levels], [mask])
    exact = ranking_metrics([levels], [mask])
    assert auroc(state.counts().ranking) == pytest.approx(exact.auroc, abs=1e-12)
    assert average_precision(state.counts().ranking) == pytest.approx(exact.average_precision, abs=1e-12)
    assert f1_max(state.counts().ranking) == exact.f1_max


def test_update_leaves_the_earlier_state_alone() -> None:
    maps, masks = drawn(3)
    before = StreamingPixels.empty()
    before.update(maps, masks)
    assert_same(before, StreamingPixels.empty())


def test_state_does_not_grow_with_the_images() -> None:
    maps, masks = drawn(4, size=256)
    state = StreamingPixels.empty()
    tracemalloc.start()
    for _ in range(20):
        state = state.update(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state.images == 80
    assert peak < 8e6  # 80 such maps are 21 MB


def test_without_regions_the_ranking_is_the_same_and_aupro_undefined() -> None:
    maps, masks = drawn(6)
    counts = StreamingPixels.empty().update(maps, masks, with_regions=False).counts()
    assert auroc(counts.ranking) == auroc(StreamingPixels.empty().update(maps, masks).counts().ranking)
    assert aupro(counts) is None


def test_normal_images_alone_are_undefined() -> None:
    state = StreamingPixels.empty().update(np.full((4, 4), 0.5), np.zeros((4, 4)))
    assert auroc(state.counts().ranking) is None
    assert state.auroc_error_bound() is None


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_scores_outside_the_range_are_refused_not_clipped(bad: float) -> None:
    with pytest.raises(DataError, match="within"):
        StreamingPixels.empty().update(np.array([[0.5, bad]]), np.array([[0, 1]]))


def test_ends_of_the_range_belong_to_it() -> None:
    state = StreamingPixels.empty(bins=4).update(np.array([[0.0, 1.0]]), np.array([[0, 1]]))
    assert auroc(state.counts().ranking) == 1.0


def test_unlike_states_and_bad_ranges_are_refused() -> None:
    with pytest.raises(ConfigError, match="one range"):
        StreamingPixels.empty() + StreamingPixels.empty(bins=10)
    with pytest.raises(ConfigError, match="low < high"):
        StreamingPixels.empty(1.0, 1.0)
    with pytest.raises(ShapeError):
        StreamingPixels.empty().update(np.zeros((2, 2)), np.zeros((3, 3)))
