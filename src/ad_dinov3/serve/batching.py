"""Requests that arrive together are scored together.

No request waits for company: a batch is what has arrived while all threads that score were busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ScoreError
from ad_dinov3.infer.scorer import RawScore, Scorer


@dataclass(frozen=True, eq=False)
class _Request:
    pixels: NDArray[np.uint8]
    class_name: str
    answer: Future[RawScore] = field(default_factory=Future)
    arrived: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class BatchTimes:
    """Seconds that each image of a call of the model had waited, and that the call took."""

    waited: tuple[float, ...]
    seconds: float


class Batcher:
    """A scorer for many threads at once.

    Args:
        scorer: called from as many threads as there are calls at once.
        batch_size: most images per call of it.
        on_batch: told of every call.
        calls: of the scorer at once.
    """

    def __init__(
        self,
        scorer: Scorer,
        batch_size: int,
        on_batch: Callable[[BatchTimes], None] = lambda times: None,
        calls: int = 1,
    ) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._queue: Queue[_Request | None] = Queue()  # None: no more will come to one of the threads
        self._threads = [Thread(target=self._work, name="score", daemon=True) for _ in range(calls)]
        for thread in self._threads:
            thread.start()

    def score(self, pixels: NDArray[np.uint8], class_name: str) -> RawScore:
        """The model's answer to one input (3, h, w) uint8; returns when it is there.

        Raises:
            AdDinoError: whatever the scorer refuses.
            ScoreError: the answer holds NaN, infinity or a value outside [0, 1].
        """
        return self.submit(pixels, class_name).result()

    def submit(self, pixels: NDArray[np.uint8], class_name: str) -> Future[RawScore]:
        """The answer of `score`, some time; several that are submitted together are scored together."""
        request = _Request(pixels, class_name)
        self._queue.put(request)
        return request.answer

    def close(self) -> None:
        """Answer those that wait, and stop."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        more_to_come = True
        while more_to_come:
            arrived = self._arrived()
            more_to_come = arrived[-1] is not None
            groups: dict[tuple[tuple[int, ...], str], list[_Request]] = {}
            for request in filter(None, arrived):
                groups.setdefault((request.pixels.shape, request.class_name), []).append(request)
            for group in groups.values():
                self._answer(group)

    def _arrived(self) -> list[_Request | None]:
        """What is waiting, one at least and a batch at most; None can only be the last."""
        arrived = [self._queue.get()]
        with suppress(Empty):
            while arrived[-1] is not None and len(arrived) < self._batch_size:
                arrived.append(self._queue.get_nowait())
        return arrived

    def _answer(self, group: Sequence[_Request]) -> None:
        started = time.perf_counter()
        try:
            pixels = np.stack([request.pixels for request in group])
            raw = self._scorer.score(pixels, [request.class_name for request in group])
        except Exception as error:  # whatever it is, it is the answer; this thread has others to serve
            for request in group:
                request.answer.set_exception(error)
            return
        self._on_batch(BatchTimes(tuple(started - one.arrived for one in group), time.perf_counter() - started))
        for row, request in enumerate(group):
            try:
                request.answer.set_result(raw.row(row))
            except ScoreError as error:
                request.answer.set_exception(error)
