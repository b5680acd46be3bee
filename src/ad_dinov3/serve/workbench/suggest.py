"""The threshold that agrees best with what people say of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suggestion:
    """A threshold, and what it does to the labelled images.

    Attributes:
        threshold: in [0, 1].
        missed: defects that it calls normal.
        defects: all of them.
        flagged: good images that it calls anomalous.
        good: all of them.
    """

    threshold: float
    missed: int
    defects: int
    flagged: int
    good: int


def suggest_threshold(good: Sequence[float], defects: Sequence[float]) -> Suggestion | None:
    """The threshold with the smallest sum of both error rates, in the middle of the widest gap where several tie.

    The sum of the share of defects missed and the share of good images flagged is least where Youden's J (1950) is
    largest; it does not depend on how many images there are of either kind. The images that choose the threshold cannot
    measure it: new images do worse.

    Args:
        good: scores of good images, in [0, 1].
        defects: scores of images with a defect, in [0, 1].

    Returns:
        None unless there are images of both kinds.
    """
    if not good or not defects:
        return None
    normal, anomalous = np.sort(np.asarray(good, np.float64)), np.sort(np.asarray(defects, np.float64))
    values = np.unique(np.concatenate([normal, anomalous]))
    lower, upper = np.append(0.0, values), np.append(values, 1.0)  # a threshold between them, or equal to the upper one
    missed = np.searchsorted(anomalous, upper[:-1], side="left")
    missed = np.append(missed, anomalous.size)
    flagged = normal.size - np.append(np.searchsorted(normal, upper[:-1], side="left"), normal.size)
    errors = missed / anomalous.size + flagged / normal.size
    tied = np.flatnonzero(np.isclose(errors, errors.min()))
    best = int(tied[np.argmax((upper - lower)[tied])])
    middle = (lower[best] + upper[best]) / 2
    return Suggestion(
        float(min(max(middle, 0.0), 1.0)), int(missed[best]), anomalous.size, int(flagged[best]), normal.size
    )
