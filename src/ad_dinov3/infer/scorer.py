"""What scores images: the behaviour that a detector and an exported session share, and its raw answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ScoreError, ShapeError

_ROUNDING = 1e-5  # blended tiles and smoothed maps may pass 1 by a few units in the last place


@dataclass(frozen=True, eq=False)
class RawScore:
    """What a model says of one image before anyone decides.

    Attributes:
        patch_map: (h, w) float32 in [0, 1], the anomaly map at the model's own resolution.
        score: the image score in [0, 1].
        p_value: share of good images that look at least as strange, where some have calibrated the model.

    Raises:
        ScoreError: a value is NaN, infinite or outside [0, 1].
    """

    patch_map: NDArray[np.float32]
    score: float
    p_value: float | None = None

    def __post_init__(self) -> None:
        low, high = float(self.patch_map.min()), float(self.patch_map.max())
        if not all(map(math.isfinite, (low, high, self.score))):
            raise ScoreError("the model answered with NaN or infinity; try a wider precision")
        if min(low, self.score) < -_ROUNDING or max(high, self.score) > 1 + _ROUNDING:
            raise ScoreError(
                f"expected a map and a score in [0, 1], got a map in [{low:.4g}, {high:.4g}] and the score "
                f"{self.score:.4g}; check the model's weights and precision"
            )


@dataclass(frozen=True, eq=False)
class RawScores:
    """What a model says of a batch.

    Attributes:
        maps: (B, h, w) float32 in [0, 1], the anomaly maps at the model's own resolution.
        scores: (B,) float32 in [0, 1], the image scores.
        p_values: (B,) in (0, 1], NaN for an image whose class is not calibrated; None: none is.
    """

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    p_values: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.maps.ndim != 3 or self.scores.shape != self.maps.shape[:1]:
            raise ShapeError(f"expected maps (B, h, w) and scores (B,), got {self.maps.shape} and {self.scores.shape}")

    def row(self, index: int) -> RawScore:
        """One image's part.

        Raises:
            ScoreError: a value of it is NaN, infinite or outside [0, 1].
        """
        p_value = math.nan if self.p_values is None else float(self.p_values[index])
        return RawScore(self.maps[index], float(self.scores[index]), None if math.isnan(p_value) else p_value)


class Scorer(Protocol):
    """The part of a detector that the driver needs; numpy at the boundary, so that it runs without torch."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The model's input (3, h, w) uint8 of an image (H, W, 3) uint8; called from several threads."""
        ...

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names)."""
        ...


class Described(Protocol):
    """What a model can say of itself."""

    @property
    def method(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    @property
    def normal_classes(self) -> tuple[str, ...]: ...


def described(model: Described, place: str, size: tuple[int, int]) -> str:
    """A model's ``repr``: its method, what it runs on, its input's ``size`` (H, W) in px, threshold, normal classes."""
    normals = f", compares with normal images of {', '.join(model.normal_classes)}" if model.normal_classes else ""
    input_size = f"input {size[1]} x {size[0]} px"
    return f"<{type(model).__name__} {model.method} on {place}, {input_size}, threshold {model.threshold:.3f}{normals}>"
