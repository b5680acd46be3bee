"""The suggested threshold, held against trying all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ad_dinov3.serve.workbench.suggest import suggest_threshold

SCORES = st.lists(st.integers(0, 20).map(lambda value: value / 20), min_size=1, max_size=12)


def _errors(good: list[float], defects: list[float], threshold: float) -> float:
    missed = sum(score < threshold for score in defects) / len(defects)
    return missed + sum(score >= threshold for score in good) / len(good)


@given(SCORES, SCORES)
def test_no_threshold_has_fewer_errors_and_the_counts_are_its_own(good: list[float], defects: list[float]) -> None:
    found = suggest_threshold(good, defects)
    assert found is not None
    best = min(_errors(good, defects, step / 400) for step in range(401))
    assert _errors(good, defects, found.threshold) <= best + 1e-9
    assert found.missed == sum(score < found.threshold for score in defects)
    assert found.flagged == sum(score >= found.threshold for score in good)
    assert (found.good, found.defects) == (len(good), len(defects))


def test_between_two_separate_kinds_it_lies_in_the_middle_of_the_gap() -> None:
    found = suggest_threshold([0.1, 0.2], [0.6, 0.9])
    assert found is not None
    assert found.threshold == 0.4


def test_one_kind_alone_suggests_nothing() -> None:
    assert suggest_threshold([0.1], []) is None
    assert suggest_threshold([], [0.1]) is None
