"""The values that an image becomes on its way through a run, in their order, and where they end.

ImageFile or StoredScore -> Scored -> Result or Failure -> Row (`results`), and an Outcome for who watches
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.levels import without_equal_channels
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.record import Decision
from ad_dinov3.infer.scorer import RawScore
from ad_dinov3.predict.store import Store


@dataclass(frozen=True, eq=False)
class Scored:
    """One image with the model's answer.

    Attributes:
        item: where it came from.
        image: (H, W, 3) uint8 RGB.
        raw: the map and the score, as the model gave them, or as an earlier run's files hold them.
        grid: (h, w) of the map as the model gave it.
        seconds: from the file to the answer; a batch's time is shared out evenly.
        is_stored: the answer comes from an earlier run's files, where the map has the image's own size.
        reduction: 1, 2, 4 or 8, by which a very large image's sides were divided in decoding.
    """

    item: ImageFile
    image: NDArray[np.uint8]
    raw: RawScore
    grid: tuple[int, int]
    seconds: float
    is_stored: bool = False
    reduction: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """The decoded image's size (H, W) in px."""
        height, width, _ = self.image.shape
        return height, width

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """The image to draw on: (H, W) where it is grey, else (H, W, 3)."""
        return without_equal_channels(self.image)


@dataclass(frozen=True, eq=False)
class Result:
    """One image with what is decided, as sinks take it.

    Attributes:
        scored: the image and the model's answer.
        prediction: the map at the image's own size, and the decisions.
        seconds: from the file to the decision; writing is not counted.
    """

    scored: Scored
    prediction: Prediction
    seconds: float


@dataclass(frozen=True)
class Failure:
    """One image that could not be done, at which step, and why, in words for the person who owns the file."""

    item: ImageFile
    reason: str
    step: Literal["decode", "score", "write"] = "decode"


@dataclass(frozen=True)
class Outcome:
    """What came of one image, without its pixels.

    Attributes:
        item: where it came from.
        decision: what came out.
        is_new: False if an earlier run had done it.
        reason: why it failed, else empty.
    """

    item: ImageFile
    decision: Decision
    is_new: bool = True
    reason: str = ""


@dataclass(frozen=True)
class StoredScore:
    """An image whose answer an earlier run has written: only the decision is to be made anew.

    Attributes:
        item: where it came from.
        store: where the anomaly map is, at the image's own size.
        map_name: its file's name there.
        score: the image score in [0, 1].
        grid: (h, w) of the map as the model gave it.
        p_value: share of good images that look at least as strange, where some have calibrated the model.
    """

    item: ImageFile
    store: Store
    map_name: str
    score: float
    grid: tuple[int, int]
    p_value: float | None = None


class Sink(Protocol):
    """Where results go. Sinks are served in their order, so the last one may take a result as safely written."""

    def write(self, result: Result) -> None:
        """Take one result; called from several threads at once. An OSError makes the image a failure."""
        ...

    def fail(self, failure: Failure) -> None:
        """Take note of an image that could not be done; called from the driving thread."""
        ...

    def close(self) -> None:
        """Write what can only be written at the end; called once, in the sinks' order, after an interruption too."""
        ...
