"""The images of a stream against those that came before: a ring of the last ones behind a gate."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ad_dinov3.references.mutual import LEAST_IMAGES, nearest_mean
from ad_dinov3.references.tokens import Floats, unit

_MOST_REFUSALS = 3
_GATE_QUANTILE = 0.8
_MOST_SCORES = 300


@dataclass
class Beginning:
    """The first images of a stream by the mean of their tokens: they stay, so that nothing later changes the measure.

    Attributes:
        images: so many are kept.
    """

    images: int = 10
    _kept: list[Floats] = field(default_factory=list, repr=False)

    def apart(self, tokens: Floats) -> float | None:
        """How far unit tokens (T, D) are from those of the most similar first image, in [0, 2]; None for these."""
        mean = unit(tokens.mean(axis=0))
        if len(self._kept) < self.images:
            self._kept.append(mean)
            return None
        return float(1 - max(mean @ kept for kept in self._kept))


@dataclass
class Stream:
    """A ring of the last images' tokens, which past images alone decide.

    An image enters unless its score lies above the gate, the 80 % quantile of the last scores. A new product is strange
    for longer than a defect: after three refusals in a row the next image enters all the same.

    Attributes:
        window: images that are kept.
        warm_up: images at the start that enter unseen; until then the stream learns and has no distances to give.
    """

    window: int = 48
    warm_up: int = 10
    _ring: deque[Floats] = field(default_factory=deque, repr=False)
    _scores: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_SCORES), repr=False)
    _refused: int = 0
    _seen: int = 0

    @property
    def learning(self) -> bool:
        """Whether too little has been seen to compare with."""
        return self._seen < self.warm_up or len(self._ring) < LEAST_IMAGES

    @property
    def last_scores(self) -> tuple[float, ...]:
        """Scores of the last images after the warm-up, those that did not enter among them."""
        return tuple(self._scores)

    def distances(self, tokens: Floats) -> Floats | None:
        """Mean distance of unit tokens (T, D) to the nearest 30 % of the ring: (T,) in [0, 2]; None while learning."""
        if self.learning:
            return None
        cosines = np.stack([(tokens @ kept.T).max(axis=1) for kept in self._ring])
        return nearest_mean(np.sqrt(np.maximum(2 - 2 * cosines, 0), dtype=np.float32))

    def take(self, tokens: Floats, score: float | None) -> bool:
        """Offer an image, with the score that its distances gave it (None while learning); whether it entered."""
        self._seen += 1
        is_strange = score is not None and self._is_strange(score)
        if score is not None:
            self._scores.append(score)
        if is_strange and self._refused < _MOST_REFUSALS:
            self._refused += 1
            return False
        self._refused = 0
        self._ring.append(np.asarray(tokens, np.float32))
        if len(self._ring) > self.window:
            self._ring.popleft()
        return True

    def _is_strange(self, score: float) -> bool:
        known = self.last_scores
        return len(known) >= self.warm_up and score > float(np.quantile(known, _GATE_QUANTILE))
