"""How fast scorers are beside each other: one run, in turns, after a warm-up, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.infer.drive import Scorer


@dataclass(frozen=True)
class Contender:
    """A scorer that takes part.

    Attributes:
        name: what the table calls it.
        scorer: scores inputs.
        size: (H, W) of its input in px.
        wait: ends what the scorer has begun, where its work goes on after its answer (a GPU).
    """

    name: str
    scorer: Scorer
    size: tuple[int, int]
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Speed:
    """What one contender needs at one batch size.

    Attributes:
        name: the contender's.
        height, width: of its input in px.
        batch_size: images per call.
        calls: that were timed.
        images_per_second: by the median call.
        p50_ms, p95_ms, p99_ms: quantiles of a call's wall-clock time.
        cpu_ms: processor time per image over all threads, median; other programs' load hardly moves it.
    """

    name: str
    height: int
    width: int
    batch_size: int
    calls: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


def race(contenders: Sequence[Contender], batch_size: int, rounds: int, warm_up: int = 2) -> list[Speed]:
    """Score random inputs with each contender in turn, ``warm_up`` + ``rounds`` times; the warm-up does not count.

    Turns are taken round by round, so that whatever else the machine does meets all contenders alike.
    """
    wall: list[list[float]] = [[] for _ in contenders]
    cpu: list[list[float]] = [[] for _ in contenders]
    pixels = np.random.default_rng(0)
    inputs = [pixels.integers(0, 256, (batch_size, 3, *one.size)).astype(np.uint8) for one in contenders]
    names = ["object"] * batch_size
    for round_ in range(warm_up + rounds):
        for place, contender in enumerate(contenders):
            cpu_started, started = time.process_time(), time.perf_counter()
            contender.scorer.score(inputs[place], names)
            contender.wait()
            if round_ >= warm_up:
                wall[place].append(1e3 * (time.perf_counter() - started))
                cpu[place].append(1e3 * (time.process_time() - cpu_started) / batch_size)
    return [
        _speed(contender, batch_size, np.array(wall[place]), np.array(cpu[place]))
        for place, contender in enumerate(contenders)
    ]


def _speed(contender: Contender, batch_size: int, wall: NDArray[np.float64], cpu: NDArray[np.float64]) -> Speed:
    p50, p95, p99 = (float(value) for value in np.percentile(wall, (50, 95, 99)))
    return Speed(
        name=contender.name,
        height=contender.size[0],
        width=contender.size[1],
        batch_size=batch_size,
        calls=len(wall),
        images_per_second=1e3 * batch_size / p50,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=float(np.median(cpu)),
    )
