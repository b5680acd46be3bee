"""A change of the line that is made on images, noticed behind the model's scores."""

from __future__ import annotations

import numpy as np
from toy_detector import ToyDetector

from ad_dinov3.infer.drift_watch import MOST_CLASSES, Drift, DriftWatch, WatchedScorer
from ad_dinov3.references.calibration import Calibration
from ad_dinov3.references.conformal import strictest_promise


def image(seed: int, noise: float = 30.0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.clip(120 + chance.normal(0, noise, (64, 64, 3)), 0, 255).astype(np.uint8)


def watched(images: list[np.ndarray], watch: DriftWatch, name: str = "part") -> Drift:
    scorer = WatchedScorer(ToyDetector(), watch)
    for one in images:
        scorer.score(scorer.prepare(one)[None], [name])
    return watch.drift


def test_a_noisier_camera_is_noticed_once_and_the_unchanged_line_is_left_alone() -> None:
    told: list[tuple[str, Drift]] = []
    watch = DriftWatch({}, lambda name, drift: told.append((name, drift)))
    watched([image(seed) for seed in range(100)], watch)
    assert not told
    now = watched([image(seed, noise=60.0) for seed in range(100, 160)], watch)
    assert [name for name, _ in told] == ["part"]
    assert 100 < told[0][1].images < 130
    assert "noticed at number" in told[0][1].words
    assert (now.images, now.has_changed) == (160, True)


def test_a_lens_that_blurs_makes_scores_lower_which_is_a_change_too() -> None:
    line = [image(seed) for seed in range(60)] + [image(seed, noise=5.0) for seed in range(60, 100)]
    assert watched(line, DriftWatch({})).has_changed


def test_it_changes_no_score_and_watches_each_class_on_its_own() -> None:
    watch = DriftWatch({})
    scorer, plain = WatchedScorer(ToyDetector(), watch), ToyDetector()
    for seed in range(30):
        pair = np.stack([plain.prepare(image(seed)), plain.prepare(image(seed, noise=60.0))])
        raw = scorer.score(pair, ["quiet", "noisy"])
        np.testing.assert_array_equal(raw.scores, plain.score(pair, ["quiet", "noisy"]).scores)
    assert not watch.drift.has_changed


def test_a_line_that_differs_from_the_good_images_from_the_start_is_noticed() -> None:
    good = np.random.default_rng(0).uniform(0.1, 0.3, 30)
    calibration = Calibration(good, good, strictest_promise(30))
    scale = calibration.applied(np.empty(0, np.float32), np.array([0.3, 0.6], np.float32))[1]
    for scores, known, changed in (
        (scale[1], calibration, True),
        (scale[1], None, False),
        (scale[0] / 9, calibration, False),
    ):
        watch = DriftWatch({} if known is None else {"part": known})
        watch.take(["part"] * 30, np.full(30, scores, np.float32))
        assert watch.drift.has_changed is changed


def test_names_of_classes_are_bounded_and_nan_is_none_of_its_business() -> None:
    watch = DriftWatch({})
    watch.take(["part"], np.array([np.nan], np.float32))
    assert not watch._monitors
    for number in range(2 * MOST_CLASSES):
        watch.take([f"{number}"], np.zeros(1, np.float32))
    assert len(watch._monitors) == MOST_CLASSES - 1
