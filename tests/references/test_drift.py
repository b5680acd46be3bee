"""The drift monitor: quiet on an unchanged line, loud after a change that is made."""

from __future__ import annotations

import numpy as np

from ad_dinov3.references.drift import DriftMonitor


def alarm_at(scores: np.ndarray, calibration: np.ndarray, seed: int) -> int | None:
    monitor = DriftMonitor(calibration, 0.05, seed)
    return next((place for place, score in enumerate(scores) if monitor.update(float(score))), None)


def test_an_unchanged_line_is_alarmed_about_at_most_as_often_as_promised() -> None:
    alarms = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        alarms += alarm_at(draw.gumbel(size=300), draw.gumbel(size=20), 10_000 + seed) is not None
    assert alarms / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_lamp_that_fades_is_noticed_within_a_few_dozen_images() -> None:
    found = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        line = draw.normal(size=200)
        line[50:] += 1.5
        found.append(alarm_at(line, draw.normal(size=50), 10_000 + seed))
    assert all(place is not None and place >= 50 for place in found)
    assert float(np.median([place for place in found if place is not None])) < 90


def test_an_alarm_stays_and_equal_scores_do_not_count_as_strange() -> None:
    monitor = DriftMonitor(np.zeros(20), 0.05)
    assert not any(monitor.update(0.0) for _ in range(300))
    assert any(monitor.update(1.0 + step) for step in range(100))
    assert monitor.update(0.0)
