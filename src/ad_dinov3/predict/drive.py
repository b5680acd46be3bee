"""A stream of images through a detector into sinks, with decoding and writing beside the computing.

    items -> decode ahead (threads) -> batches -> score (this thread) -> write behind (threads) -> outcomes, in order

Each arrow is a generator, and the two that use threads keep a bounded number of images in hand: when writing is the
slowest step, scoring waits for it, and memory depends on the size of the images but not on their number.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import AdDinoError, DataError, ImageError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.predict.timing import StepTimes

_FATAL = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}  # no later image would fare better

S = TypeVar("S")
T = TypeVar("T")


def _thread_count() -> int:
    return max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True)
class DriveOptions:
    """How a run decides and how much it does at once.

    Attributes:
        class_name: what the images show, for the prompts.
        class_from_folder: an image in a folder shows what the outermost folder of its name says instead.
        threshold: in [0, 1]; scores and map values at or above it are anomalous.
        min_area_px: smaller regions are dropped.
        batch_size: images per call of the detector.
        threads: for decoding, and as many again for writing.
        memory_mb: what the decoded images in flight may take together; large images make smaller batches.
    """

    class_name: str = "object"
    threshold: float = 0.5
    min_area_px: int = 1
    batch_size: int = 8
    threads: int = field(default_factory=_thread_count)
    memory_mb: int = 512
    class_from_folder: bool = False

    def class_of(self, item: ImageFile) -> str:
        """The class name for an image."""
        if item.class_name is not None:
            return item.class_name
        folder, slash, _ = item.name.partition("/")
        return folder if self.class_from_folder and slash else self.class_name


@dataclass(frozen=True, eq=False)
class RawScored:
    """One image with the model's answer, before anyone decides.

    Attributes:
        item: where it came from.
        image: (H, W, 3) uint8 RGB.
        patch_map: (h, w) float32 in [0, 1].
        score: in [0, 1].
        seconds: from the file to here; a batch's time is shared out evenly.
    """

    item: ImageFile
    image: NDArray[np.uint8]
    patch_map: NDArray[np.float32]
    score: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Scored:
    """One image on its way out.

    Attributes:
        item: where it came from.
        image: (H, W, 3) uint8 RGB.
        patch_map: (h, w) float32 in [0, 1], as the detector gave it.
        prediction: the map at the image's own size, and the decisions.
        seconds: from the file to the decision; a batch's time is shared out evenly, writing is not counted.
    """

    item: ImageFile
    image: NDArray[np.uint8]
    patch_map: NDArray[np.float32]
    prediction: Prediction
    seconds: float


@dataclass(frozen=True)
class Success:
    """One image that is done, without its pixels."""

    item: ImageFile
    score: float
    is_anomalous: bool
    seconds: float


@dataclass(frozen=True)
class Failure:
    """One image that could not be done, at which step, and why, in words for the person who owns the file."""

    item: ImageFile
    reason: str
    step: Literal["decode", "score", "write"] = "decode"


class Sink(Protocol):
    """Where results go. Sinks are served in their order, so the last one may take a result as safely written."""

    def write(self, scored: Scored) -> None:
        """Take one result; called from several threads at once. An OSError makes the image a failure."""
        ...

    def fail(self, failure: Failure) -> None:
        """Take note of an image that could not be done; called from the driving thread."""
        ...

    def close(self) -> None:
        """Write what can only be written at the end; called once, after an interruption too."""
        ...


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes:
        anomalous: images whose score reached the threshold.
        normal: images whose score did not.
        failures: images that could not be done.
        seconds: wall-clock time of the run.
        interrupted: whether it was told to stop before the end.
        step_seconds: where the time went, added up over threads.
    """

    anomalous: int
    normal: int
    failures: tuple[Failure, ...]
    seconds: float
    interrupted: bool
    step_seconds: dict[str, float]

    @property
    def scored(self) -> int:
        """Number of images scored."""
        return self.anomalous + self.normal

    @property
    def exit_code(self) -> int:
        """The process's exit code: 0 all done, 3 some images failed, 130 interrupted."""
        return 130 if self.interrupted else 3 if self.failures else 0


@dataclass(frozen=True, eq=False)
class _Decoded:
    item: ImageFile
    image: NDArray[np.uint8]
    tensor: NDArray[np.uint8]
    seconds: float


class _Allowance:
    """How many images each of the three places (ahead, in a batch, behind) may hold, by the largest image seen."""

    def __init__(self, memory_mb: int) -> None:
        self._bytes_per_place = memory_mb * 2**20 // 3
        self._largest = 1

    def see(self, image: NDArray[np.uint8]) -> None:
        self._largest = max(self._largest, image.nbytes)

    def images(self, wanted: int) -> int:
        return max(1, min(wanted, self._bytes_per_place // self._largest))


def drive(
    items: Iterable[ImageFile],
    detector: Scorer,
    sinks: Sequence[Sink],
    options: DriveOptions,
    on_outcome: Callable[[Success | Failure], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunSummary:
    """Score every item and hand the results to the sinks; one bad image is noted and skipped.

    Args:
        items: consumed lazily; may be endless.
        detector: scores batches, in this thread.
        sinks: take results, and are closed at the end whatever happens.
        options: thresholds, batch size, memory.
        on_outcome: called in this thread for each item, in the items' order, when its files are written.
        should_stop: asked before each item; once true, only what is being scored or written is finished.

    Raises:
        DataError: results cannot be written at all (disk full).
    """
    times, started = StepTimes(), time.perf_counter()
    failures: list[Failure] = []
    counts = {True: 0, False: 0}

    def finish(raw: RawScored) -> Success:
        scored = _conclude(raw, options, times)
        for sink in sinks:
            with times.step(f"write {type(sink).__name__}"):
                sink.write(scored)
        return Success(scored.item, scored.prediction.score, scored.prediction.is_anomalous, scored.seconds)

    try:
        for outcome in stream(items, detector, options, finish, times, should_stop):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                for sink in sinks:
                    sink.fail(outcome)
            else:
                counts[outcome.is_anomalous] += 1
            on_outcome(outcome)
    finally:
        for sink in sinks:
            with times.step(f"close {type(sink).__name__}"):
                sink.close()
    seconds = time.perf_counter() - started
    return RunSummary(counts[True], counts[False], tuple(failures), seconds, should_stop(), times.seconds())


def stream(
    items: Iterable[ImageFile],
    detector: Scorer,
    options: DriveOptions,
    finish: Callable[[RawScored], T],
    times: StepTimes | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[T | Failure]:
    """What ``finish`` makes of each result, or the failure, in the items' order; ``finish`` runs in other threads."""
    allowance, clock = _Allowance(options.memory_mb), times or StepTimes()

    def window() -> int:
        return allowance.images(options.batch_size + options.threads)

    def go_on(_: object) -> bool:
        return not should_stop()

    def decode(item: ImageFile) -> _Decoded | Failure:
        return _decode(item, detector, clock)

    def complete(raw: RawScored | Failure) -> T | Failure:
        return raw if isinstance(raw, Failure) else _finish(raw, finish)

    with (
        ThreadPoolExecutor(options.threads, "decode") as decoders,
        ThreadPoolExecutor(options.threads, "write") as writers,
    ):
        decoded = _in_order(decode, takewhile(go_on, items), decoders, window)
        arriving = clock.waiting("wait for images", takewhile(go_on, decoded))
        batches = _in_batches(arriving, allowance, options.batch_size)
        raw = _score(batches, detector, options, clock)
        yield from _in_order(complete, raw, writers, window, keep_full=False)


def _in_order(
    work: Callable[[S], T],
    values: Iterable[S],
    pool: ThreadPoolExecutor,
    limit: Callable[[], int],
    keep_full: bool = True,
) -> Iterator[T]:
    """``work`` of each value, in order, with up to ``limit()`` of them under way in the pool.

    Ahead of the consumer the window is kept full; behind the producer (not ``keep_full``) finished results are passed
    on before more values are asked for.
    """
    window: deque[Future[T]] = deque()
    for value in values:
        window.append(pool.submit(work, value))
        while len(window) >= limit() or (not keep_full and window and window[0].done()):
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def _decode(item: ImageFile, detector: Scorer, times: StepTimes) -> _Decoded | Failure:
    started = time.perf_counter()
    try:
        with times.step("decode"):
            image = item.load()
        with times.step("resize"):
            tensor = detector.prepare(image)
    except ImageError as error:
        return Failure(item, error.reason)
    except AdDinoError as error:
        return Failure(item, str(error))
    return _Decoded(item, image, tensor, time.perf_counter() - started)


def _in_batches(
    decoded: Iterable[_Decoded | Failure], allowance: _Allowance, batch_size: int
) -> Iterator[list[_Decoded | Failure]]:
    """Runs of images of one input shape, at most ``batch_size``; failures stay at their places between them."""
    batch: list[_Decoded | Failure] = []
    shape: tuple[int, ...] = ()
    filled = 0
    for one in decoded:
        if isinstance(one, _Decoded):
            allowance.see(one.image)
            if filled and (one.tensor.shape != shape or filled >= allowance.images(batch_size)):
                yield batch
                batch, filled = [], 0
            shape, filled = one.tensor.shape, filled + 1
        batch.append(one)
        if filled in (0, batch_size):
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


def _score(
    batches: Iterable[list[_Decoded | Failure]], detector: Scorer, options: DriveOptions, times: StepTimes
) -> Iterator[RawScored | Failure]:
    for batch in batches:
        images = [one for one in batch if isinstance(one, _Decoded)]
        results = iter(_score_batch(images, detector, options, times) if images else [])
        for one in batch:
            yield one if isinstance(one, Failure) else next(results)


def _score_batch(
    images: Sequence[_Decoded], detector: Scorer, options: DriveOptions, times: StepTimes
) -> list[RawScored | Failure]:
    started = time.perf_counter()
    with times.step("score"):
        class_names = [options.class_of(one.item) for one in images]
        raw = detector.score(np.stack([one.tensor for one in images]), class_names)
    each = (time.perf_counter() - started) / len(images)
    results: list[RawScored | Failure] = []
    for row, (one, patch_map, score) in enumerate(zip(images, raw.maps, raw.scores, strict=True)):
        problem = raw.problem(row)
        if problem is None:
            results.append(RawScored(one.item, one.image, patch_map, float(score), one.seconds + each))
        else:
            results.append(Failure(one.item, problem, "score"))
    return results


def _conclude(raw: RawScored, options: DriveOptions, times: StepTimes) -> Scored:
    started = time.perf_counter()
    item, image = raw.item, raw.image
    height, width, _ = image.shape
    with times.step("enlarge map"):
        anomaly_map = upsample(raw.patch_map, (height, width))
    prediction = Prediction(
        anomaly_map, raw.score, item.name, options.class_of(item), options.threshold, options.min_area_px
    )
    with times.step("find regions"):
        prediction.regions  # noqa: B018  kept by the prediction; every sink needs them
    return Scored(item, image, raw.patch_map, prediction, raw.seconds + time.perf_counter() - started)


def _finish(raw: RawScored, finish: Callable[[RawScored], T]) -> T | Failure:
    try:
        return finish(raw)
    except OSError as error:
        if error.errno in _FATAL:
            raise DataError(f"cannot write results: {error}; what is written stays, a re-run goes on there") from error
        return Failure(raw.item, f"its results cannot be written ({error.strerror or error})", "write")
