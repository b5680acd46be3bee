"""How far an exported model is from the one it was made from, on images; and how far it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import AdDinoError
from ad_dinov3.infer.exported import Precision
from ad_dinov3.infer.scorer import RawScores

# One image's raw scores, from its input (3, h, w) uint8 and its class
ScoreOne = Callable[[NDArray[np.uint8], str], RawScores]


class ParityError(AdDinoError):
    """An exported model's maps are too far from those of the model that it was made from."""


@dataclass(frozen=True)
class Tolerance:
    """How far maps and scores in [0, 1] may move.

    Attributes:
        largest_map: largest difference of any map value.
        mean_map: mean absolute difference of map values.
        largest_score: largest difference of an image score.
        largest_token: largest distance, 1 - cosine, of a comparison token.
    """

    largest_map: float
    mean_map: float
    largest_score: float
    largest_token: float = 1e-4


# float32 differs by the order of sums only. The others by what their digits can hold; single cells of a map may move
# further than the mean, since a softmax with a gain of 100 is steep.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(2e-3, 1e-4, 1e-3, 1e-4),
    "fp16": Tolerance(5e-2, 2e-3, 2e-2, 1e-3),
    "bf16": Tolerance(2e-1, 1e-2, 5e-2, 1e-2),
    "int8": Tolerance(5e-1, 1e-2, 5e-2, 2e-1),
}


@dataclass(frozen=True)
class Parity:
    """Differences of maps and scores over some images, and the tolerance that they were held against.

    Attributes:
        images: compared.
        largest_map_difference: the largest difference of any map value.
        mean_map_difference: mean absolute, over all map values of all images.
        map_correlation: Pearson, over all map values.
        largest_score_difference: the largest difference of any image score.
        decision_flips: images that the model's threshold decides otherwise.
        pixel_flips: share of map values that it decides otherwise.
        threshold: the model's.
        tolerance: what is allowed.
        largest_token_distance: 1 - cosine, of any comparison token; None where the graph tells none.
        speed_over_fp32: how many times as fast 8 bits are as the same graph in fp32, by processor time, on the machine
            that exported it; None of other precisions.
        processor: that machine's, and what it has; None where its system does not tell.
    """

    images: int
    largest_map_difference: float
    mean_map_difference: float
    map_correlation: float
    largest_score_difference: float
    decision_flips: int
    pixel_flips: float
    threshold: float
    tolerance: Tolerance
    largest_token_distance: float | None = None
    speed_over_fp32: float | None = None
    processor: str | None = None

    def check(self) -> None:
        """Do nothing if all is within the tolerance.

        Raises:
            ParityError: it is not; the message has the numbers.
        """
        limits = self.tolerance
        pairs = {
            "largest map difference": (self.largest_map_difference, limits.largest_map),
            "mean map difference": (self.mean_map_difference, limits.mean_map),
            "largest score difference": (self.largest_score_difference, limits.largest_score),
        }
        if self.largest_token_distance is not None:
            pairs["largest token distance"] = (self.largest_token_distance, limits.largest_token)
        beyond = [f"{name} {found:.2g} > {limit:.2g}" for name, (found, limit) in pairs.items() if not found <= limit]
        if beyond:
            raise ParityError(
                f"the exported model is not the model: {'; '.join(beyond)} over {self.images} images, "
                f"{self.decision_flips} decisions flipped; nothing was written. Take a wider --precision, or for int8 "
                "calibrate on more images like those to come"
            )

    def summary(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def token_distance(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest 1 - cosine between unit tokens (..., D) at the same places."""
    return float(1 - np.einsum("...d,...d->...", expected, found, dtype=np.float64).min())


def compare(
    model: ScoreOne,
    exported: ScoreOne,
    inputs: Sequence[NDArray[np.uint8]],
    classes: Sequence[str],
    *,
    threshold: float,
    tolerance: Tolerance,
) -> Parity:
    """Run both on the same inputs (3, h, w) uint8; each input shows one of the classes, in turn."""
    maps: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    scores: list[tuple[float, float]] = []
    for number, pixels in enumerate(inputs):
        name = classes[number % len(classes)]
        want, got = model(pixels, name), exported(pixels, name)
        maps.append((want.maps.ravel(), got.maps.ravel()))
        scores.append((float(want.scores[0]), float(got.scores[0])))
    expected, found = (np.concatenate([pair[side] for pair in maps]) for side in (0, 1))
    away = np.abs(expected - found)
    first, second = np.array(scores).T
    moving = expected.std() > 0 and found.std() > 0
    return Parity(
        images=len(inputs),
        largest_map_difference=float(away.max()),
        mean_map_difference=float(away.mean(dtype=np.float64)),
        map_correlation=float(np.corrcoef(expected, found)[0, 1]) if moving else 1.0,
        largest_score_difference=float(np.abs(first - second).max()),
        decision_flips=int(((first >= threshold) != (second >= threshold)).sum()),
        pixel_flips=float(((expected >= threshold) != (found >= threshold)).mean()),
        threshold=threshold,
        tolerance=tolerance,
    )
