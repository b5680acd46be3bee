"""Scores of good images, and what they make of a model's scores: 0.5 is where the promise lies, and p-values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ShapeError
from ad_dinov3.references.conformal import Promise, p_value, threshold
from ad_dinov3.references.normals import Known
from ad_dinov3.references.tokens import Floats


@dataclass(frozen=True, eq=False)
class Calibration:
    """What good images of one class score, each by a model that does not know it.

    Attributes:
        scores: (n,) image scores in [0, 1].
        peaks: (n,) largest map values in [0, 1].
        promise: where among them the thresholds lie, of the image score and of the map.
    """

    scores: NDArray[np.float64]
    peaks: NDArray[np.float64]
    promise: Promise

    def applied(self, maps: Floats, scores: Floats) -> tuple[Floats, Floats]:
        """Maps and scores on the scale where what lies above the thresholds is above 0.5, still in [0, 1]."""
        # what equals the threshold is no alarm, and a decision counts from 0.5 on
        levels = [threshold(known, self.promise) * (1 + 1e-5) + 1e-6 for known in (self.peaks, self.scores)]
        return centred(maps, levels[0]), centred(scores, levels[1])

    def p_value(self, score: float) -> float:
        """The share of good images, itself among them, that look at least as strange; of a score not yet `applied`."""
        return p_value(self.scores, score)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything, as arrays."""
        return {
            "good_scores": self.scores,
            "good_peaks": self.peaks,
            "promise": np.array([self.promise.images, self.promise.rank], np.int64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Calibration:
        """What `tensors` gave.

        Raises:
            ShapeError: an array is missing or has another length.
        """
        scores, peaks, promise = (tensors.get(key) for key in ("good_scores", "good_peaks", "promise"))
        if scores is None or peaks is None or promise is None or scores.shape != peaks.shape or promise.shape != (2,):
            raise ShapeError(f"expected good_scores, good_peaks and promise, got {', '.join(sorted(tensors))}")
        images, rank = (int(value) for value in promise)
        return cls(scores.astype(np.float64), peaks.astype(np.float64), Promise(images, rank))


def centred(values: Floats, level: float) -> Floats:
    """Values in [0, 1] whose odds are divided by those of a level, which becomes 0.5; 0 and 1 stay, and so does order.

    Where values are small, such as distances, the result is v / (v + level): twice the level is shown as 0.67, however
    low the level is.
    """
    level = min(max(level, 1e-6), 1 - 1e-6)
    above = np.asarray(values, np.float64) * (1 - level)  # single precision would swap neighbours
    return (above / (above + (1 - values) * level)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class References:
    """What a model knows of good images, by class; empty for most models.

    Attributes:
        known: memories of normal images.
        calibrations: scores of good images.
        view: in words, how the model looked at them, such as ``in tiles of 512 px``; empty: at whole images.
    """

    known: Mapping[str, Known] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    view: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not self.known and not self.calibrations

    @property
    def promises(self) -> dict[str, str]:
        """The sentence that a person reads, for each class with a calibration."""
        return {name: one.promise.sentence() for name, one in self.calibrations.items()}

    @property
    def fingerprint(self) -> str:
        """Digest of everything; empty if there is nothing."""
        if self.is_empty:
            return ""
        digest = hashlib.sha256(self.view.encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()[:16]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything but the view, as arrays named ARRAY/CLASS."""
        parts = [
            (name, part.tensors()) for part_of in (self.known, self.calibrations) for name, part in part_of.items()
        ]
        return {f"{key}/{name}": tensor for name, tensors in parts for key, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]], view: str = "") -> References:
        """What `tensors` gave.

        Raises:
            ShapeError: arrays are missing or do not fit together.
        """
        by_class: dict[str, dict[str, NDArray[np.generic]]] = {}
        for name, tensor in tensors.items():
            key, _, class_name = name.partition("/")
            by_class.setdefault(class_name, {})[key] = tensor
        known = {name: Known.from_tensors(parts) for name, parts in by_class.items() if "bank" in parts}
        calibrations = {name: Calibration.from_tensors(parts) for name, parts in by_class.items() if "promise" in parts}
        return cls(known, calibrations, view)
