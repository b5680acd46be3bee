"""From uploads to predictions: a place is taken, the image decoded, scored in company, and decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from pydantic import BaseModel, ConfigDict, Field

from ad_dinov3.data.decode import DecodedImage
from ad_dinov3.errors import AdDinoError, ImageError, ScoreError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.prediction import Prediction, conclude
from ad_dinov3.infer.scorer import RawScore
from ad_dinov3.serve.models import Lease, Models
from ad_dinov3.serve.uploads import Upload


class Wish(BaseModel):
    """How images are to be judged; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, description="which of the service's models is asked; default: its first one")
    threshold: float | None = Field(None, ge=0, le=1, description="from here on anomalous; default: the model's")
    min_area: int | None = Field(
        None, ge=1, description="regions with fewer px do not count; default: a quarter of a cell of the model's map"
    )
    regions_on_normal: bool = Field(
        False, description="outline and list regions on an image that is called normal, too"
    )
    class_name: str | None = Field(None, description="what the image shows; default: the service's")


@dataclass(frozen=True, eq=False)
class Judged:
    """An image as it was decoded, what a model says of it, and that model's name."""

    image: DecodedImage
    prediction: Prediction
    model: str


@dataclass(frozen=True, eq=False)
class Failed:
    """An image of several that has no prediction, why, and the model that was asked."""

    name: str
    reason: str
    model: str


@dataclass(frozen=True, eq=False)
class _InHand:
    name: str
    image: DecodedImage
    answer: Future[RawScore]


class BusyError(AdDinoError):
    """As many images are in hand as may be; the request can be sent again."""


@dataclass(eq=False)
class Places:
    """How many images may be in hand, decoded or as a map, and what they may take together in bytes."""

    at_most: int
    at_most_bytes: int = 1_000_000_000
    taken: int = field(init=False, default=0)
    taken_bytes: int = field(init=False, default=0)
    _lock: Lock = field(init=False, default_factory=Lock)

    @contextmanager
    def take(self, parts: Sequence[int]) -> Iterator[None]:
        """Hold places inside the block, for images that take so many bytes each.

        Raises:
            BusyError: there are not so many, or not so much memory, left.
        """
        with self._lock:
            if self.taken + len(parts) > self.at_most:
                raise BusyError(f"{self.taken} of {self.at_most} images are in hand; try again")
            if self.taken_bytes + sum(parts) > self.at_most_bytes:
                raise BusyError(f"{self.taken} images in hand take {self.taken_bytes / 1e9:.1f} GB; try again")
            self.taken += len(parts)
            self.taken_bytes += sum(parts)
        try:
            yield
        finally:
            with self._lock:
                self.taken -= len(parts)
                self.taken_bytes -= sum(parts)

    def checked(self, upload: Upload) -> int:
        """What an upload takes in bytes.

        Raises:
            ImageError: that is more than there is.
        """
        needed = upload.bytes_in_hand(self.at_most_bytes)
        if needed > self.at_most_bytes:
            words = f"takes {needed / 1e9:.1f} GB to decode and judge, more than the limit of "
            raise ImageError(upload.name, f"{words}{self.at_most_bytes / 1e9:.1f} GB")
        return needed

    def together(self, uploads: Sequence[Upload], at_once: int) -> list[int]:
        """The largest parts of uploads that are judged ``at_once`` at a time, or of fewer that have room together."""
        parts = sorted((upload.bytes_in_hand(self.at_most_bytes) for upload in uploads), reverse=True)
        fitting = [part for part in parts if part <= self.at_most_bytes] or [0]
        while at_once > 1 and sum(fitting[:at_once]) > self.at_most_bytes:
            at_once -= 1
        return (fitting + [0] * at_once)[:at_once]


@dataclass(frozen=True, eq=False)
class Judge:
    """What decides on the images of every kind of request.

    Attributes:
        models: that can be asked.
        class_name: what images show, where a request does not say.
        places: for images in hand.
        on_judged: told of every prediction, and of the failures among several images.
    """

    models: Models
    class_name: str
    places: Places
    on_judged: Callable[[Judged | Failed], None] = lambda image: None

    def judge(self, upload: Upload, wish: Wish) -> Judged:
        """What a model says of an image.

        Raises:
            BusyError: no place is left.
            UnknownModelError: there is no such model.
            ImageError: the upload is no image.
            ConfigError: the wish cannot be.
            ScoreError: the model answers with NaN, infinity or a value outside [0, 1].
        """
        with self.places.take([self.places.checked(upload)]), self.models.lease(wish.model) as lease:
            judged = self._decided(self._begun(upload, lease, wish), lease, wish)
            self.on_judged(judged)
            return judged

    def judge_all(self, uploads: Sequence[Upload], wish: Wish) -> Iterator[Judged | Failed]:
        """The same for several images in their order, as many at once as the model takes; none ends the others.

        Raises:
            BusyError: no place is left.
            UnknownModelError: there is no such model.
            ConfigError: the wish cannot be.
        """
        parts = self.places.together(uploads, min(len(uploads), self.models.batch_size, self.places.at_most))
        at_once = len(parts)
        with self.places.take(parts), self.models.lease(wish.model) as lease:
            for start in range(0, len(uploads), at_once):
                begun = [self._begun_or_failed(upload, lease, wish) for upload in uploads[start : start + at_once]]
                for one in begun:
                    result = one if isinstance(one, Failed) else self._decided_or_failed(one, lease, wish)
                    self.on_judged(result)
                    yield result

    def _begun(self, upload: Upload, lease: Lease, wish: Wish) -> _InHand:
        self.places.checked(upload)
        image = upload.decoded(self.places.at_most_bytes)
        prepared = lease.model.scorer.prepare(image.pixels)
        return _InHand(upload.name, image, lease.batcher.submit(prepared, wish.class_name or self.class_name))

    def _begun_or_failed(self, upload: Upload, lease: Lease, wish: Wish) -> _InHand | Failed:
        try:
            return self._begun(upload, lease, wish)
        except ImageError as error:
            return Failed(upload.name, error.reason, lease.name)

    def _decided(self, image: _InHand, lease: Lease, wish: Wish) -> Judged:
        threshold = lease.model.threshold if wish.threshold is None else wish.threshold
        rule = DecisionRule(threshold, wish.min_area, wish.regions_on_normal, lease.model.areas)
        height, width, _ = image.image.pixels.shape
        class_name = wish.class_name or self.class_name
        prediction = conclude(image.answer.result(), (height, width), rule, image.name, class_name)
        return Judged(image.image, prediction, lease.name)

    def _decided_or_failed(self, image: _InHand, lease: Lease, wish: Wish) -> Judged | Failed:
        try:
            return self._decided(image, lease, wish)
        except ScoreError as error:
            return Failed(image.name, str(error), lease.name)
