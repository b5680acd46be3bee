"""Promises about false alarms, held against simulations, the Beta distribution and crepes's p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from ad_dinov3.errors import ConfigError
from ad_dinov3.references.conformal import (
    Promise,
    grouped,
    images_for,
    images_for_bound,
    p_value,
    p_values,
    percent,
    promise_for,
    robust_level,
    robust_threshold,
    strictest_promise,
    threshold,
)


def test_p_values_equal_a_count_and_ties_count_against_an_alarm() -> None:
    known, tests = [3.0, 1.0, 2.0, 2.0], [0.5, 2.0, 2.5, 9.0]
    counted = [(1 + sum(one >= test for one in known)) / 5 for test in tests]
    assert counted == [1.0, 0.8, 0.4, 0.2]
    np.testing.assert_allclose(p_values(known, tests), counted)
    np.testing.assert_allclose([p_value(known, test) for test in tests], counted)


def test_p_values_of_groups_and_the_alarms_by_their_thresholds_are_those_of_crepes() -> None:
    crepes = pytest.importorskip("crepes", reason="crepes is not installed")
    draw = np.random.default_rng(0)
    known, tests = draw.normal(size=90).round(1), draw.normal(0.5, 1, size=300).round(1)  # rounded: many ties
    known_groups, groups = np.repeat([0, 1, 2], [10, 21, 59]), draw.integers(0, 3, size=300)
    witness = crepes.ConformalClassifier().fit(known, bins=known_groups)
    expected = witness.predict_p(tests[:, None], bins=groups, smoothing=False)[:, 0]
    for group in range(3):
        own, shown = known[known_groups == group], groups == group
        np.testing.assert_array_equal(p_values(own, tests[shown]), expected[shown])
        promise = strictest_promise(len(own), 0.1)
        np.testing.assert_array_equal(tests[shown] > threshold(own, promise), expected[shown] <= promise.rate)


def test_a_jackknife_p_value_compares_each_good_image_with_the_score_that_it_did_not_help() -> None:
    assert p_value([3.0, 1.0, 2.0], [4.0, 0.5, 2.5]) == (1 + 1) / 4


@pytest.mark.parametrize(("images", "rate"), [(10, 0.1), (19, 0.05), (59, 0.05), (100, 0.1)])
def test_over_many_draws_the_false_alarm_rate_follows_the_beta_distribution(images: int, rate: float) -> None:
    draw = np.random.default_rng(images)
    promise = promise_for(rate, images)
    rates = [float((draw.gumbel(size=2000) > threshold(draw.gumbel(size=images), promise)).mean()) for _ in range(600)]
    assert np.mean(rates) == pytest.approx(promise.rate, abs=0.01)
    assert np.mean(np.array(rates) <= promise.bound()) == pytest.approx(0.95, abs=0.025)


def test_an_alarm_by_threshold_is_an_alarm_by_p_value() -> None:
    draw = np.random.default_rng(0)
    known, tests = draw.normal(size=40), draw.normal(1, 1, size=500)
    promise = promise_for(0.1, 40)
    np.testing.assert_array_equal(tests > threshold(known, promise), p_values(known, tests) <= 0.1)


def test_what_images_can_promise_is_the_table_of_the_literature() -> None:
    assert (images_for(0.05), images_for(0.01)) == (19, 99)
    assert (images_for_bound(0.1), images_for_bound(0.05), images_for_bound(0.01)) == (29, 59, 299)
    assert Promise(10, 1).bound() == pytest.approx(1 - 0.05 ** (1 / 10))
    assert Promise(100, 5).bound() == pytest.approx(beta.ppf(0.95, 5, 96))
    assert (strictest_promise(10).rank, strictest_promise(19).rank, strictest_promise(100).rank) == (1, 1, 5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            3,
            "with your 3 good images about 1 good part in 4 will be flagged; 95 % sure that fewer than 63 % will; "
            "59 good images would bring this to 5 %",
        ),
        (
            10,
            "with your 10 good images about 1 good part in 11 will be flagged; 95 % sure that fewer than 26 % will; "
            "59 good images would bring this to 5 %",
        ),
        (
            59,
            "with your 59 good images about 1 good part in 20 will be flagged; 95 % sure that fewer than 10 % will; "
            "a promise of 1.7 % would bring this to 5 %",
        ),
        (
            300,
            "with your 300 good images about 1 good part in 20 will be flagged; 95 % sure that fewer than 7.2 % will; "
            "a promise of 0.3 % would bring this to 1 %",
        ),
    ],
)
def test_the_sentence_says_rate_bound_and_what_would_help(images: int, words: str) -> None:
    assert strictest_promise(images).sentence() == words


def test_a_rate_that_cannot_be_promised_is_refused_with_the_numbers_that_can() -> None:
    with pytest.raises(ConfigError, match=r"10 good images cannot promise 5 %.*1 in 11.*19 promise.*59 with 95 %"):
        promise_for(0.05, 10)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        promise_for(5, 10)
    with pytest.raises(ConfigError, match="expected 3 calibration scores, got 2"):
        threshold([1, 2], Promise(3, 1))
    with pytest.raises(ConfigError, match="rank"):
        Promise(3, 4)


def test_percent_is_written_as_people_write_it() -> None:
    assert [percent(share) for share in (0.0909, 0.2589, 0.05, 0.0033, 0.1)] == [
        "9.1 %",
        "26 %",
        "5 %",
        "0.3 %",
        "10 %",
    ]


def test_near_duplicates_count_once_with_their_largest_score() -> None:
    assert sorted(grouped([1, 5, 2, 3], ["a", "b", "a", "b"])) == [2.0, 5.0]


@pytest.mark.parametrize("defects", [0, 20, 100])
def test_a_robust_threshold_flags_few_good_images_and_finds_defects_though_a_third_are(defects: int) -> None:
    draw = np.random.default_rng(0)
    good, bad = draw.lognormal(0, 0.2, 200), draw.lognormal(1.2, 0.2, defects)
    level = robust_threshold(np.concatenate([good, bad]))
    assert (good > level).mean() < 0.01
    assert np.count_nonzero(bad > level) > 0.9 * defects - 1


def test_a_robust_level_moves_with_the_values_and_takes_any_number_of_them() -> None:
    values = np.random.default_rng(1).normal(size=40)
    assert robust_level(5 + 2 * values) == pytest.approx(5 + 2 * robust_level(values))
    assert robust_level([0.3]) == pytest.approx(0.3 + 3.5e-3)
    assert robust_level([0.3, 0.3, 0.3]) == pytest.approx(0.3 + 3.5e-3)
    assert robust_level(np.float32([0.3, 0.5])) == pytest.approx(0.4 + 3.5 * 1.4826 * 0.1, abs=1e-6)
