"""Watches what a model says for a change of the line: another lamp, another lens, another batch of material."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.infer.scorer import RawScores, Scorer
from ad_dinov3.references.calibration import Calibration
from ad_dinov3.references.drift import DriftMonitor

MOST_CLASSES = 64
"""Classes that are watched; a service is told names of classes by whoever asks it."""


@dataclass(frozen=True)
class Drift:
    """What is known of a change.

    Attributes:
        images: that were watched.
        odds: in favour of a change now, on a logarithmic scale: 2 is a hundred to one.
        has_changed: the odds have reached a hundred to one at some image.
    """

    images: int
    odds: float
    has_changed: bool

    @property
    def words(self) -> str:
        """What a person reads when a change is noticed."""
        return (
            f"the images have changed, noticed at number {self.images}: an unchanged line looks like that less "
            "than once in a hundred lines; look at camera, light and product, and take new good images"
        )


class DriftWatch:
    """Watches image scores, class by class.

    Where good images have calibrated a class, scores are held against theirs and against all since, and only higher
    ones are a change: good images that a memory was made of score higher than others. Else scores are held against
    all since the first one, and lower ones are a change too.

    Args:
        calibrations: of what gives the scores, by class.
        on_change: told once of each class that has changed, with its name.
    """

    def __init__(
        self,
        calibrations: Mapping[str, Calibration],
        on_change: Callable[[str, Drift], None] = lambda name, drift: None,
    ) -> None:
        self._calibrations = calibrations
        self._on_change = on_change
        self._monitors: dict[str, DriftMonitor] = {}
        self._seen: dict[str, int] = {}

    @property
    def drift(self) -> Drift:
        """What is known of the class that has changed most."""
        known = [self._drift(name) for name in tuple(self._monitors)]
        return max(known, key=lambda one: (one.has_changed, one.odds), default=Drift(0, 0.0, False))

    def take(self, class_names: Sequence[str], scores: NDArray[np.float32]) -> None:
        """Take the scores of the next images, in their order, each a function of its image alone; NaN says nothing."""
        for name, score in zip(class_names, scores, strict=True):
            if name in self._seen or len(self._seen) < MOST_CLASSES:
                self._seen[name] = self._seen.get(name, 0) + 1
                if math.isfinite(score):
                    self._take(name, float(score))

    def _take(self, name: str, score: float) -> None:
        if name not in self._monitors:
            good = self._good_scores(name)
            self._monitors[name] = DriftMonitor(good, lower_too=not good.size)
        monitor = self._monitors[name]
        had_changed = monitor.alarmed
        if monitor.update(score) and not had_changed:
            self._on_change(name, self._drift(name))

    def _good_scores(self, name: str) -> NDArray[np.floating]:
        """What good images score on the calibrated scale; none if the class is not calibrated."""
        calibration = self._calibrations.get(name)
        if calibration is None:
            return np.empty(0)
        return calibration.applied(np.empty(0, np.float32), calibration.scores.astype(np.float32))[1]

    def _drift(self, name: str) -> Drift:
        monitor = self._monitors[name]
        return Drift(self._seen[name], monitor.log_value / math.log(10), monitor.alarmed)


class WatchedScorer:
    """A scorer that passes on what another one says, while a watch takes note of it."""

    def __init__(self, inner: Scorer, watch: DriftWatch) -> None:
        self._inner = inner
        self._watch = watch

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the inner one does."""
        return self._inner.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """What the inner one says."""
        raw = self._inner.score(batch, class_names)
        self._watch.take(class_names, raw.scores)
        return raw
