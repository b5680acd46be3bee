"""AUROC, average precision and F1-max against scikit-learn and against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from ad_dinov3.errors import DataError, ShapeError
from ad_dinov3.metrics import ranking
from ad_dinov3.metrics.ranking import count_ranking, ranking_metrics

FloatArray = NDArray[np.floating]


@st.composite
def scored(draw: st.DrawFn) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Scores with many ties (few levels) or few, and labels with both classes."""
    n = draw(st.integers(2, 60))
    levels = draw(st.sampled_from([2, 5, 1000]))
    scores = np.array(draw(st.lists(st.integers(0, levels), min_size=n, max_size=n)), np.float32) / 7 - 3
    labels = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels[0], labels[1] = True, False
    return scores, labels


def sklearn_f1_max(labels: NDArray[np.bool_], scores: FloatArray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    return float(np.max(np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)))


@given(scored())
@settings(max_examples=200, deadline=None)
def test_metrics_equal_scikit_learn_with_and_without_ties(data: tuple[FloatArray, NDArray[np.bool_]]) -> None:
    scores, labels = data
    ours = ranking_metrics([scores], [labels])
    assert ours.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ours.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert ours.f1_max is not None
    assert ours.f1_max.value == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-12)


@given(scored())
@settings(max_examples=100, deadline=None)
def test_f1_threshold_applied_to_the_scores_gives_the_reported_figures(
    data: tuple[FloatArray, NDArray[np.bool_]],
) -> None:
    scores, labels = data
    best = ranking_metrics([scores], [labels]).f1_max
    assert best is not None
    called = scores >= best.threshold
    hits = int((called & labels).sum())
    assert best.precision == pytest.approx(hits / called.sum())
    assert best.recall == pytest.approx(hits / labels.sum())
    assert best.value == pytest.approx(2 * hits / (called.sum() + labels.sum()))


@given(scored(), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_order_and_splitting_of_the_scores_change_nothing(
    data: tuple[FloatArray, NDArray[np.bool_]], seed: int
) -> None:
    scores, labels = data
    order = np.random.default_rng(seed).permutation(scores.size)
    cut = seed % scores.size
    whole = ranking_metrics(scores, labels)
    parts = ranking_metrics(np.split(scores[order], [cut]), np.split(labels[order], [cut]))
    assert parts == whole


@given(scored())
@settings(max_examples=50, deadline=None)
def test_a_strictly_rising_map_of_the_scores_changes_nothing_but_the_threshold(
    data: tuple[FloatArray, NDArray[np.bool_]],
) -> None:
    scores, labels = data
    plain = ranking_metrics(scores, labels)
    warped = ranking_metrics(np.exp(scores.astype(np.float64)), labels)
    assert (warped.auroc, warped.average_precision) == (plain.auroc, plain.average_precision)
    assert plain.f1_max is not None
    assert warped.f1_max is not None
    assert warped.f1_max.value == plain.f1_max.value


def test_constant_scores_give_chance_auroc_and_prevalence() -> None:
    labels = np.array([1, 0, 0, 1, 0])
    result = ranking_metrics(np.full(5, 0.3), labels)
    assert result.auroc == 0.5
    assert result.average_precision == pytest.approx(0.4)
    assert result.f1_max is not None
    assert result.f1_max.value == pytest.approx(2 * 2 / (5 + 2))
    assert result.f1_max.threshold == 0.3


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_is_undefined_never_zero(label: int) -> None:
    result = ranking_metrics(np.array([0.1, 0.7, 0.7]), np.full(3, label))
    assert (result.auroc, result.average_precision, result.f1_max) == (None, None, None)


def test_no_arrays_at_all_is_undefined() -> None:
    assert ranking_metrics([], []).auroc is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.uint16, np.int64])
def test_every_real_score_type_gives_the_same_figures(dtype: type[np.generic]) -> None:
    rng = np.random.default_rng(3)
    levels = rng.integers(0, 200, 500)
    labels = rng.random(500) < levels / 400
    assert ranking_metrics(levels.astype(dtype), labels) == ranking_metrics(levels.astype(np.float64), labels)


def test_mixed_float32_and_float64_maps_keep_the_finer_differences() -> None:
    scores = [np.array([0.5], np.float32), np.array([0.5 + 1e-12, 0.5 - 1e-12])]
    labels = [np.array([0]), np.array([1, 1])]
    assert ranking_metrics(scores, labels).auroc == 0.5


def test_many_chunks_count_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps = [np.round(rng.random((13, 7 + i)), 2).astype(np.float32) for i in range(9)]
    masks = [rng.random(m.shape) < m / 3 for m in maps]
    one = count_ranking(maps, masks)
    monkeypatch.setattr(ranking, "_CHUNK_MIN", 10)
    monkeypatch.setattr(ranking, "_CHUNKS", 50)
    many = count_ranking(maps, masks)
    for name in ("thresholds", "positives", "negatives_above", "negatives_tied"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_maps_are_left_untouched() -> None:
    scores = np.random.default_rng(0).random((8, 8))
    before = scores.copy()
    ranking_metrics([scores], [scores > 0.5])
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("sort", [ranking._numpy_sort, ranking._radix_sort])
def test_many_scores_of_any_sign_are_sorted_and_counted_alike_by_either_sort(
    sort: Callable[[FloatArray], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate(
        [rng.normal(size=70_000) * 10.0 ** rng.integers(-30, 30, 70_000), rng.normal(size=9).repeat(99)]
    )
    scores = np.concatenate([values, [0.0, -0.0, np.inf, -np.inf]]).astype(np.float32)
    labels = rng.random(scores.size) < 0.01
    expected, few = np.sort(scores), np.unique(scores[labels])
    monkeypatch.setattr(ranking, "_faster_sort", lambda: sort)
    counts = count_ranking(scores, labels)
    np.testing.assert_array_equal(counts.thresholds, few[::-1])
    np.testing.assert_array_equal(counts.negatives_above, [(scores[~labels] > cut).sum() for cut in few[::-1]])
    ranking._sort(scores)
    np.testing.assert_array_equal(scores, expected)


def test_the_sort_is_tried_once_and_is_the_faster_of_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def slow(values: FloatArray) -> None:
        tried.append(values.size)
        ranking._radix_sort(values)
        ranking._radix_sort(values)

    monkeypatch.setattr(ranking, "_numpy_sort", slow)
    ranking._faster_sort.cache_clear()
    try:
        assert ranking._faster_sort() is ranking._radix_sort
        assert ranking._faster_sort() is ranking._radix_sort
    finally:
        ranking._faster_sort.cache_clear()
    assert tried == [ranking._TRIAL] * 2


@pytest.mark.parametrize("nan", [np.nan, -np.nan])
def test_a_nan_among_many_normal_pixels_is_refused(nan: float) -> None:
    scores = np.random.default_rng(6).normal(size=70_000).astype(np.float32)
    scores[123] = np.copysign(np.float32(np.nan), np.float32(nan))
    with pytest.raises(DataError, match="NaN"):
        ranking_metrics(scores, np.arange(scores.size) < 100)


@pytest.mark.parametrize("label", [0, 1])
def test_nan_is_refused_wherever_it_is(label: int) -> None:
    with pytest.raises(DataError, match="NaN"):
        ranking_metrics(np.array([0.1, np.nan, 0.5, 0.6]), np.array([0, label, 0, 1]))


def test_infinite_scores_rank_as_the_ends() -> None:
    assert ranking_metrics(np.array([-np.inf, 0.0, np.inf]), np.array([0, 0, 1])).auroc == 1.0


def test_mismatched_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="shape"):
        ranking_metrics([np.zeros((2, 3))], [np.zeros((3, 2))])
    with pytest.raises(ShapeError, match="as many"):
        ranking_metrics([np.zeros(3)], [])
