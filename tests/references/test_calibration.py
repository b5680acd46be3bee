"""Scales, joined maps and calibrations of references."""

from __future__ import annotations

import numpy as np
import pytest

from ad_dinov3.errors import ShapeError
from ad_dinov3.references.calibration import Calibration, References, centred
from ad_dinov3.references.conformal import Promise
from ad_dinov3.references.normals import Known, KnownNormals, Scale, log_odds, squashed
from ad_dinov3.references.tokens import unit


def normals(count: int = 4) -> KnownNormals:
    draw = np.random.default_rng(0)
    base = draw.normal(size=(36, 8))
    tokens = [unit(base + 0.2 * draw.normal(size=(36, 8))) for _ in range(count)]
    return KnownNormals(tokens, [draw.uniform(0, 0.2, 36).astype(np.float32) for _ in range(count)])


def calibration() -> Calibration:
    return Calibration(np.linspace(0.1, 0.4, 10), np.linspace(0.2, 0.5, 10), Promise(10, 1))


def test_a_scale_is_that_of_the_bulk() -> None:
    values = np.random.default_rng(0).normal(3, 2, 10_000).astype(np.float32)
    scale = Scale.of(np.concatenate([values, np.full(100, 1e6)]))
    assert (scale.middle, scale.deviation) == (pytest.approx(3, abs=0.1), pytest.approx(2, abs=0.1))
    assert Scale.of([1.0, 1.0])(np.ones(2, np.float32)).tolist() == [0, 0]


def test_the_scale_of_normal_images_is_that_of_their_largest_values() -> None:
    draw = np.random.default_rng(0)
    scale = Scale.of_normal(draw.normal(3, 2, 100_000))
    assert (scale.middle, scale.deviation) == (pytest.approx(3, abs=0.05), pytest.approx(2, abs=0.05))
    tail = draw.exponential(size=100_000)
    near, far = Scale.of_normal(tail), Scale.of_normal(3 * tail)
    assert (far.middle, far.deviation) == (pytest.approx(3 * near.middle), pytest.approx(3 * near.deviation))
    assert near.deviation == pytest.approx(1 / 0.4734, abs=0.05)  # exponential: the mean excess is 1 at any quantile
    assert Scale.of_normal([1.0, 1.0])(np.ones(2, np.float32)).tolist() == [0, 0]


def test_the_map_that_normal_images_light_up_in_counts_for_less() -> None:
    draw = np.random.default_rng(0)
    tokens = [unit(draw.normal(size=(36, 8))) for _ in range(4)]
    calm = [np.full(36, 0.1, np.float32) + 0.01 * draw.random(36, np.float32) for _ in range(4)]
    spotted = [np.where(np.arange(36) < 2, np.float32(0.9), one) for one in calm]
    scales = [KnownNormals(tokens, maps).known().zero_shot for maps in (calm, spotted)]
    assert scales[1].middle == pytest.approx(scales[0].middle, abs=0.02)
    assert scales[1].deviation > 10 * scales[0].deviation


def test_joined_maps_are_the_mean_of_both_in_deviations() -> None:
    known = normals().known()
    far, zero_shot = np.full((6, 6), 4.0, np.float32), np.full((6, 6), 0.1, np.float32)
    deviations = (4.0 + known.zero_shot(log_odds(zero_shot))) / 2
    np.testing.assert_allclose(known.join(far, zero_shot), squashed(deviations), rtol=1e-6)
    assert squashed(np.array([-5, 0, 10], np.float32)).tolist() == [0, 0, 0.5]


def test_a_strange_patch_stands_out_of_the_distances() -> None:
    known, tokens = normals().known(), unit(np.random.default_rng(0).normal(size=(36, 8))).reshape(6, 6, 8)
    tokens[2, 3] = -tokens[2, 3]
    assert np.unravel_index(known.distances(tokens).argmax(), (6, 6)) == (2, 3)


def test_a_calibration_puts_its_thresholds_just_below_one_half_and_keeps_the_order() -> None:
    values = np.array([0.0, 0.2, 0.4, 0.41, 1.0], np.float32)
    maps, scores = calibration().applied(values, values)
    assert scores[2] < 0.5 <= scores[3]
    assert (scores[0], scores[-1]) == (0, 1)
    assert maps[3] < 0.5
    assert (np.diff(scores) > 0).all()
    assert calibration().p_value(0.35) == 3 / 11


@pytest.mark.parametrize("level", [0.0, 0.01, 0.3, 0.999, 1.0])
def test_values_are_centred_by_their_odds(level: float) -> None:
    values = np.linspace(0, 1, 2001, dtype=np.float32)
    found = centred(values, level)
    assert (found[0], found[-1]) == (0, 1)
    steps = np.diff(found)
    assert (steps >= 0).all()
    assert (steps > 0).all() == (level > 0)  # a level of 1e-6 leaves no digits for what is far above it
    inside, kept = values[1:-1].astype(np.float64), min(max(level, 1e-6), 1 - 1e-6)
    expected = 1 / (1 + np.exp(np.log(kept / (1 - kept)) - np.log(inside / (1 - inside))))
    np.testing.assert_allclose(found[1:-1], expected, rtol=1e-4)


def test_a_small_distance_is_shown_by_how_many_thresholds_it_is_long() -> None:
    shown = centred(np.array([0.01, 0.02, 0.04], np.float32), 0.01)
    np.testing.assert_allclose(shown, [1 / 2, 2 / 3, 4 / 5], atol=0.01)


def test_references_come_back_from_their_arrays() -> None:
    references = References({"a": normals().known()}, {"a": calibration(), "b": calibration()}, "in tiles")
    again = References.from_tensors(references.tensors(), "in tiles")
    assert again.fingerprint == references.fingerprint != References({"a": normals().known()}).fingerprint
    assert again.calibrations["b"].promise == Promise(10, 1)
    tokens = np.random.default_rng(1).normal(size=(3, 3, 8)).astype(np.float32)
    np.testing.assert_array_equal(again.known["a"].distances(tokens), references.known["a"].distances(tokens))
    assert References().is_empty
    assert References().fingerprint == ""


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="map_scales"):
        Known.from_tensors({"bank": np.zeros((2, 2))})
    with pytest.raises(ShapeError, match="good_scores"):
        Calibration.from_tensors({"promise": np.array([1, 1])})
