"""A stream of images through a model into sinks, with decoding and writing beside the computing.

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
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.decode import DecodedImage
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import AdDinoError, DataError, ImageError, ScoreError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.infer.prediction import conclude
from ad_dinov3.infer.record import Decision
from ad_dinov3.infer.scorer import RawScore, Scorer
from ad_dinov3.predict.memory import MAKE_ROOM, MEMORY_MB, MakeRoom, Memory
from ad_dinov3.predict.timing import StepTimes
from ad_dinov3.predict.types import Failure, Outcome, Result, Scored, Sink, StoredScore

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
        rule: what makes an image anomalous, and outlines where.
        batch_size: images per call of the model.
        threads: for decoding, and as many again for writing.
        memory_mb: what the images in hand may take together, from decoding to written results; one that takes more
            alone is decoded reduced, or a failure.
        class_from_folder: an image in a folder shows what the outermost folder of its name says instead.
    """

    class_name: str = "object"
    rule: DecisionRule = field(default_factory=DecisionRule)
    batch_size: int = 8
    threads: int = field(default_factory=_thread_count)
    memory_mb: int = MEMORY_MB
    class_from_folder: bool = False

    def class_of(self, item: ImageFile) -> str:
        """The class name for an image."""
        if item.class_name is not None:
            return item.class_name
        folder, slash, _ = item.name.partition("/")
        return folder if self.class_from_folder and slash else self.class_name


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
        """Number of images done."""
        return self.anomalous + self.normal

    @property
    def exit_code(self) -> int:
        """The process's exit code: 0 all done, 3 some images failed, 130 interrupted."""
        return 130 if self.interrupted else 3 if self.failures else 0


@dataclass(frozen=True, eq=False)
class _Decoded:
    item: ImageFile
    image: DecodedImage
    tensor: NDArray[np.uint8]
    seconds: float


def drive(
    items: Iterable[ImageFile | StoredScore],
    detector: Scorer,
    sinks: Sequence[Sink],
    options: DriveOptions,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunSummary:
    """Score every item and hand the results to the sinks; one bad image is noted and skipped.

    Args:
        items: consumed lazily; may be endless.
        detector: scores batches, in this thread.
        sinks: take results, and are closed at the end whatever happens.
        options: the rule, batch size, memory.
        on_outcome: called in this thread for each item, in the items' order, when its files are written.
        should_stop: asked before each item; once true, only what is being scored or written is finished.

    Raises:
        DataError: results cannot be written at all (disk full).
    """
    times, started = StepTimes(), time.perf_counter()
    failures: list[Failure] = []
    counts: dict[Decision, int] = {"anomalous": 0, "normal": 0}

    def finish(scored: Scored) -> Outcome:
        result = judge(scored, options, times)
        for sink in sinks:
            with times.step(f"write {type(sink).__name__}"):
                sink.write(result)
        return Outcome(scored.item, "anomalous" if result.prediction.is_anomalous else "normal")

    try:
        for outcome in stream(items, detector, options, finish, times, should_stop):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                for sink in sinks:
                    sink.fail(outcome)
                outcome = Outcome(outcome.item, "failed", reason=outcome.reason)
            else:
                counts[outcome.decision] += 1
            on_outcome(outcome)
    except BaseException:
        for sink in sinks:
            with suppress(Exception):  # of two errors the first one tells what went wrong
                sink.close()
        raise
    for sink in sinks:
        with times.step(f"close {type(sink).__name__}"):
            sink.close()
    seconds = time.perf_counter() - started
    return RunSummary(counts["anomalous"], counts["normal"], tuple(failures), seconds, should_stop(), times.seconds())


def stream(
    items: Iterable[ImageFile | StoredScore],
    detector: Scorer,
    options: DriveOptions,
    finish: Callable[[Scored], T],
    times: StepTimes | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[T | Failure]:
    """What ``finish`` makes of each answer, or the failure, in the items' order; ``finish`` runs in other threads."""
    memory, clock = Memory(options.memory_mb), times or StepTimes()
    window = options.batch_size + options.threads

    def go_on(_: object) -> bool:
        return not should_stop()

    def decode(item: ImageFile | StoredScore) -> _Decoded | Scored | Failure:
        return _decode(item, detector, memory, clock)

    def end(scored: Scored | Failure) -> T | Failure:
        try:
            return scored if isinstance(scored, Failure) else _finish(scored, finish)
        finally:
            memory.give_back(scored.item)

    with (
        ThreadPoolExecutor(options.threads, "decode") as decoders,
        ThreadPoolExecutor(options.threads, "write") as writers,
    ):
        decoded = _ahead(decode, takewhile(go_on, items), decoders, window, memory)
        arriving = clock.waiting("wait for images", takewhile(go_on, decoded))
        batches = _in_batches(arriving, options.batch_size)
        scored = _score(batches, detector, options, clock)
        yield from _behind(end, scored, writers, window)


def _ahead(
    work: Callable[[ImageFile | StoredScore], T],
    items: Iterable[ImageFile | StoredScore],
    pool: ThreadPoolExecutor,
    limit: int,
    memory: Memory,
) -> Iterator[T | MakeRoom]:
    """``work`` of each item, in order, up to ``limit`` under way; where memory lacks, others are finished first."""
    window: deque[Future[T]] = deque()
    for item in items:
        source = item.item if isinstance(item, StoredScore) else item
        while not memory.take(source):
            yield window.popleft().result() if window else MAKE_ROOM
        window.append(pool.submit(work, item))
        while len(window) >= limit:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def _behind(
    work: Callable[[Scored | Failure], T],
    values: Iterable[Scored | Failure | MakeRoom],
    pool: ThreadPoolExecutor,
    limit: int,
) -> Iterator[T]:
    """``work`` of each value, in order; finished results are passed on before more values are asked for."""
    window: deque[Future[T]] = deque()
    for value in values:
        if not isinstance(value, MakeRoom):
            window.append(pool.submit(work, value))
        elif window:
            yield window.popleft().result()
        while len(window) >= limit or (window and window[0].done()):
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def _decode(
    item: ImageFile | StoredScore, detector: Scorer, memory: Memory, times: StepTimes
) -> _Decoded | Scored | Failure:
    source = item.item if isinstance(item, StoredScore) else item
    started = time.perf_counter()
    try:
        with times.step("decode"):
            image = source.load_within(memory.limit)
        if isinstance(item, StoredScore):
            raw = RawScore(item.store.read(item.map_name, read_map), item.score, item.p_value)
            seconds = time.perf_counter() - started
            return Scored(source, image.pixels, raw, item.grid, seconds, is_stored=True, reduction=image.reduction)
        with times.step("resize"):
            tensor = detector.prepare(image.pixels)
    except ImageError as error:
        return Failure(source, error.reason)
    except AdDinoError as error:
        return Failure(source, str(error))
    return _Decoded(source, image, tensor, time.perf_counter() - started)


def _in_batches(
    decoded: Iterable[_Decoded | Scored | Failure | MakeRoom], batch_size: int
) -> Iterator[list[_Decoded | Scored | Failure | MakeRoom]]:
    """Runs of images of one input shape, at most ``batch_size``; what needs no scoring stays at its place between."""
    batch: list[_Decoded | Scored | Failure | MakeRoom] = []
    shape: tuple[int, ...] = ()
    filled = 0
    for one in decoded:
        if isinstance(one, _Decoded):
            if filled and one.tensor.shape != shape:
                yield batch
                batch, filled = [], 0
            shape, filled = one.tensor.shape, filled + 1
        batch.append(one)
        if filled in (0, batch_size) or isinstance(one, MakeRoom):
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


def _score(
    batches: Iterable[list[_Decoded | Scored | Failure | MakeRoom]],
    detector: Scorer,
    options: DriveOptions,
    times: StepTimes,
) -> Iterator[Scored | Failure | MakeRoom]:
    for batch in batches:
        images = [one for one in batch if isinstance(one, _Decoded)]
        results = iter(_score_batch(images, detector, options, times) if images else [])
        for one in batch:
            yield next(results) if isinstance(one, _Decoded) else one


def _score_batch(
    images: Sequence[_Decoded], detector: Scorer, options: DriveOptions, times: StepTimes
) -> list[Scored | Failure]:
    started = time.perf_counter()
    with times.step("score"):
        class_names = [options.class_of(one.item) for one in images]
        raw = detector.score(np.stack([one.tensor for one in images]), class_names)
    each = (time.perf_counter() - started) / len(images)
    height, width = raw.maps.shape[1:]
    results: list[Scored | Failure] = []
    for row, one in enumerate(images):
        image, seconds = one.image, one.seconds + each
        try:
            answer = raw.row(row)
            results.append(Scored(one.item, image.pixels, answer, (height, width), seconds, reduction=image.reduction))
        except ScoreError as error:
            results.append(Failure(one.item, str(error), "score"))
    return results


def judge(scored: Scored, options: DriveOptions, times: StepTimes) -> Result:
    """What a run's rule makes of an answer."""
    started = time.perf_counter()
    with times.step("enlarge map"):
        rule = replace(options.rule, min_area_px=options.rule.area_of(scored.grid, scored.size))
        prediction = conclude(scored.raw, scored.size, rule, scored.item.name, options.class_of(scored.item))
    with times.step("find regions"):
        prediction.regions  # noqa: B018  kept by the prediction; every sink needs them
    return Result(scored, prediction, scored.seconds + time.perf_counter() - started)


def _finish(scored: Scored, finish: Callable[[Scored], T]) -> T | Failure:
    try:
        return finish(scored)
    except OSError as error:
        if error.errno in _FATAL:
            raise DataError(f"cannot write results: {error}; what is written stays, a re-run goes on there") from error
        return Failure(scored.item, f"its results cannot be written ({error.strerror or error})", "write")
    except DataError:
        raise
    except Exception as error:  # whatever one image sets off, the others are done
        return Failure(scored.item, f"its results cannot be made ({type(error).__name__}: {error})", "write")
