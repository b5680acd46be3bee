"""What scores images: the behaviour that a detector and an exported session share, and its raw answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ShapeError

NOT_FINITE = "the model answered with NaN or infinity; try a wider precision"
_SLACK = 1e-5  # rounding of a smoothed or enlarged map


@dataclass(frozen=True)
class RawScores:
    """What a detector says of a batch before anyone decides.

    Attributes:
        maps: (B, h, w) float32 in [0, 1], the anomaly maps on the patch grid.
        scores: (B,) float32 in [0, 1], the image scores.
    """

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.maps.ndim != 3 or self.scores.shape != self.maps.shape[:1]:
            raise ShapeError(f"expected maps (B, h, w) and scores (B,), got {self.maps.shape} and {self.scores.shape}")

    def problem(self, row: int) -> str | None:
        """Why one image's map and score are no answer: NaN, infinity, values outside [0, 1]; None if they are one."""
        score = float(self.scores[row])
        low, high = min(float(self.maps[row].min()), score), max(float(self.maps[row].max()), score)
        if not (np.isfinite(self.maps[row]).all() and np.isfinite(score)):
            return NOT_FINITE
        if low < -_SLACK or high > 1.0 + _SLACK:
            return f"expected a map and a score in [0, 1], the model answered with [{low:.6g}, {high:.6g}]"
        return None


class Scorer(Protocol):
    """The part of a detector that the driver needs; numpy at the boundary, so that it runs without torch."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The model's input (3, h, w) uint8 of an image (H, W, 3) uint8; called from several threads."""
        ...

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names)."""
        ...
