"""Requests that arrive together are scored together, by one thread.

No request waits for company: a batch is what has arrived while the one before it was scored.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Batcher:
    """A scorer for many threads at once.

    Args:
        scorer: called from one thread only.
        batch_size: most images per call of it.
    """

    def __init__(self, scorer: Scorer, batch_size: int) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        self._queue: Queue[_Request | None] = Queue()  # None: no more will come
        self._thread = Thread(target=self._work, name="score", daemon=True)
        self._thread.start()

    def score(self, pixels: NDArray[np.uint8], class_name: str) -> RawScore:
        """The model's answer to one input (3, h, w) uint8; returns when it is there.

        Raises:
            AdDinoError: whatever the scorer refuses.
            ScoreError: the answer holds NaN, infinity or a value outside [0, 1].
        """
        request = _Request(pixels, class_name)
        self._queue.put(request)
        return request.answer.result()

    def close(self) -> None:
        """Answer those that wait, and stop."""
        self._queue.put(None)
        self._thread.join()

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
        try:
            pixels = np.stack([request.pixels for request in group])
            raw = self._scorer.score(pixels, [request.class_name for request in group])
        except Exception as error:  # whatever it is, it is the answer; this thread has others to serve
            for request in group:
                request.answer.set_exception(error)
            return
        for row, request in enumerate(group):
            try:
                request.answer.set_result(raw.row(row))
            except ScoreError as error:
                request.answer.set_exception(error)
