"""Has the line changed: a bet against exchangeability that a fair line cannot win (Vovk, Gammerman, Shafer 2005)."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort

import numpy as np
from numpy.typing import ArrayLike, NDArray

_EXPONENTS = np.linspace(0.05, 0.95, 19)
_MOST_KNOWN = 10_000


class DriftMonitor:
    """Watches scores one by one, and tells when they no longer look like the good images'.

    Each score gets a p-value among all before it, ties broken by a seeded draw, so that on an unchanged line the
    p-values are independent and uniform. A mixture of power martingales bets on small ones, or on both ends; by
    Ville's inequality its largest value ever exceeds 1 / ``false_alarm`` with a chance of at most ``false_alarm``.
    Defects are strange too: many of them in a row are a change like any other.

    Args:
        calibration: scores of good images.
        false_alarm: chance of an alarm on a line that does not change.
        seed: of the draw that breaks ties.
        lower_too: scores that are too low are a change as well; only if calibration scores are neither higher nor lower
            than those of other good images, as they are by a memory of these images.
    """

    def __init__(
        self, calibration: ArrayLike, false_alarm: float = 0.01, seed: int = 0, lower_too: bool = False
    ) -> None:
        self._known = sorted(float(score) for score in np.asarray(calibration, np.float64))
        self._logs: NDArray[np.float64] = np.zeros((1 + lower_too, len(_EXPONENTS)))
        self._limit = -math.log(false_alarm)
        self._draw = np.random.default_rng(seed)
        self.alarmed = False

    @property
    def log_value(self) -> float:
        """Natural logarithm of the martingale now; 0 at the start."""
        top = float(self._logs.max())
        return top + math.log(float(np.exp(self._logs - top).mean()))

    def update(self, score: float) -> bool:
        """Take the next score; whether an alarm has been given, now or before."""
        left, right = bisect_left(self._known, score), bisect_right(self._known, score)
        above, equal = len(self._known) - right, right - left
        chance = (above + self._draw.random() * (equal + 1)) / (len(self._known) + 1)
        for logs, end in zip(self._logs, (chance, 1 - chance), strict=False):
            logs += np.log(_EXPONENTS) + (_EXPONENTS - 1) * math.log(max(end, 1e-12))
        if len(self._known) < _MOST_KNOWN:
            insort(self._known, score)
        self.alarmed = self.alarmed or self.log_value > self._limit
        return self.alarmed
