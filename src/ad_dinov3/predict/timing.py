"""Where the time of a run went: seconds by step, added up over threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StepTimes:
    """Adds up the wall-clock seconds of named steps; threads may share one. Steps keep the order of first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time inside the ``with`` block as ``name``'s."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def waiting(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """The values unchanged; the time until each arrives counts as ``name``'s."""
        remaining = iter(values)
        while True:
            with self.step(name):
                try:
                    value = next(remaining)
                except StopIteration:
                    return
            yield value

    def add(self, name: str, seconds: float) -> None:
        """Count ``seconds`` as ``name``'s."""
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """A copy of the sums so far."""
        with self._lock:
            return dict(self._seconds)
