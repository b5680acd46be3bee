"""What the normal images of one class make of an image: its distance from them, joined with the zero-shot map.

Both maps are put on one scale, deviations from what they are on the normal images themselves, and averaged with equal
weights: one setting for all products, chosen on development sets (docs/references.md). A deviation is what the largest
values on normal images make it, so that the map which normal images light up less in counts for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ad_dinov3.errors import ShapeError
from ad_dinov3.references.memory import Memory, Remembered
from ad_dinov3.references.tokens import Floats

_LEAST_CHANCE = 1e-3  # of a zero-shot map, beyond which its log odds mean nothing
_TAIL = 0.1  # share of a normal image's cells
_NORMAL_EXCESS = 0.4734  # mean distance of the largest tenth above the 90 % quantile, standard normal distribution
_HALF = 10.0  # deviations that a map value of 0.5 stands for before anything is calibrated


@dataclass(frozen=True)
class Scale:
    """Middle and deviation of some values, which both maps are measured by."""

    middle: float
    deviation: float

    @classmethod
    def of(cls, values: ArrayLike) -> Scale:
        """Median and 1.4826 MAD, neither moved by a few strange values; a constant has the deviation 1e-6."""
        flat = np.asarray(values, np.float64).ravel()
        middle = float(np.median(flat))
        return cls(middle, max(1.4826 * float(np.median(np.abs(flat - middle))), 1e-6))

    @classmethod
    def of_normal(cls, values: ArrayLike) -> Scale:
        """Median, and the deviation of a normal distribution whose largest tenth is as far above the 90 % quantile.

        If the tail falls exponentially, a value is rarer by the same factor for each deviation, so that the sum of two
        maps is the logarithm of the product of their chances (Fisher's combination).

        Args:
            values: of normal images alone, since strange ones would make strangeness look usual.
        """
        flat = np.asarray(values, np.float64).ravel()
        excess = np.maximum(flat - np.quantile(flat, 1 - _TAIL), 0).sum() / (_TAIL * flat.size)
        return cls(float(np.median(flat)), max(float(excess) / _NORMAL_EXCESS, 1e-6))

    def __call__(self, values: Floats) -> Floats:
        """The values in deviations from the middle."""
        return ((values - self.middle) / self.deviation).astype(np.float32)


def log_odds(chances: NDArray[np.floating]) -> Floats:
    """Log odds of a map in [0, 1], cut off at 1 : 1000."""
    kept = np.clip(chances.astype(np.float32), _LEAST_CHANCE, 1 - _LEAST_CHANCE)
    odds: Floats = np.log(kept / (1 - kept))
    return odds


def squashed(deviations: Floats) -> Floats:
    """Deviations from normal as a map in [0, 1): 0 for what is normal or better, 0.5 at 10."""
    above = np.maximum(deviations, 0)
    return (above / (above + np.float32(_HALF))).astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Known:
    """A memory of one class's normal images, and the scales of both maps on them.

    Attributes:
        memory: of the normal images.
        far: scale of the distances from the memory, on normal images.
        zero_shot: scale of the log odds of the zero-shot map, on normal images.
    """

    memory: Memory
    far: Scale
    zero_shot: Scale

    def distances(self, tokens: Floats) -> Floats:
        """Deviations (h, w) of comparison tokens (h, w, D) from what is normal."""
        return self.far(self.memory.distances(tokens.reshape(-1, tokens.shape[-1]))).reshape(tokens.shape[:2])

    def join(self, far: Floats, zero_shot: Floats) -> Floats:
        """Both maps as one, (h, w) in [0, 1).

        Args:
            far: `distances`, on the grid of the other map.
            zero_shot: (h, w) in [0, 1].
        """
        both: Floats = far + self.zero_shot(log_odds(zero_shot))
        return squashed(both * np.float32(0.5))

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything, as arrays."""
        scales = [self.far.middle, self.far.deviation, self.zero_shot.middle, self.zero_shot.deviation]
        return {**self.memory.tensors(), "map_scales": np.array(scales, np.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Known:
        """What `tensors` gave.

        Raises:
            ShapeError: an array is missing or has another shape.
        """
        if "map_scales" not in tensors or tensors["map_scales"].shape != (4,):
            raise ShapeError(f"expected map_scales (4,), got {', '.join(sorted(tensors))}")
        far, far_deviation, zero, zero_deviation = (float(value) for value in tensors["map_scales"])
        return cls(Memory.from_tensors(tensors), Scale(far, far_deviation), Scale(zero, zero_deviation))


class KnownNormals:
    """What can be known of some normal images, with all of them or without one.

    Args:
        tokens: comparison tokens (T, D) of each normal image.
        zero_shot: what the zero-shot map's values (any shape, in [0, 1]) are on each.

    Raises:
        ConfigError: there are no images.
    """

    def __init__(self, tokens: Sequence[Floats], zero_shot: Sequence[Floats]) -> None:
        self._remembered = Remembered(tokens)
        self._far = Scale.of_normal(np.concatenate(self._remembered.left_out))
        self._zero_shot = Scale.of_normal(np.concatenate([log_odds(values).ravel() for values in zero_shot]))

    def known(self, without: int | None = None) -> Known:
        """What all images tell, or all but one; the scales are of all in any case."""
        return Known(self._remembered.memory(without), self._far, self._zero_shot)
