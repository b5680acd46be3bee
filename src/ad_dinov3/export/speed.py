"""How fast scorers are beside each other: one run, in turns, after a warm-up, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.infer.scorer import Scorer

_STATUS, _CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_METERS = Path("/sys/class/powercap")  # the processor packages' energy counters; not in most virtual machines


class PeakMemory:
    """How far the process's memory rises inside ``with`` blocks, in MB; None where the system does not say.

    Attributes:
        rise_mb: sum over the blocks of the highest memory inside above that at the start.
    """

    def __init__(self) -> None:
        self.rise_mb: float | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Add this block's rise."""
        try:
            _CLEAR_PEAK.write_text("5")
            before = _status_mb("VmRSS")
        except OSError:
            yield
            return
        yield
        self.rise_mb = (self.rise_mb or 0.0) + max(0.0, _status_mb("VmHWM") - before)


def _status_mb(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def energy_joules(meters: Path = _METERS) -> float | None:
    """Energy that the processor packages have counted so far; None where no counter can be read."""
    try:
        counts = [int((meter / "energy_uj").read_text()) for meter in meters.glob("*-rapl:[0-9]")]
    except OSError:
        return None
    return sum(counts) / 1e6 if counts else None


@dataclass(frozen=True)
class Contender:
    """A scorer that takes part.

    Attributes:
        name: what the table calls it.
        model: the model that it runs, as the user named it.
        scorer: scores inputs.
        size: (H, W) of its input in px.
        wait: ends what the scorer has begun, where its work goes on after its answer (a GPU).
        memory: what loading it took; its first call is added.
    """

    name: str
    model: str
    scorer: Scorer
    size: tuple[int, int]
    wait: Callable[[], None] = lambda: None
    memory: PeakMemory = field(default_factory=PeakMemory)


@dataclass(frozen=True)
class Speed:
    """What one contender needs at one batch size.

    Attributes:
        name: the contender's.
        model: the contender's.
        height, width: of its input in px.
        batch_size: images per call.
        calls: that were timed.
        images_per_second: by the median call.
        p50_ms, p95_ms, p99_ms: quantiles of a call's wall-clock time.
        cpu_ms: processor time per image over all threads, median; other programs' load hardly moves it.
        memory_mb: what loading it and its first calls added to the process at their peaks, libraries included that
            were not loaded before; None where the system does not tell.
        energy_j: what the whole processor package used per image, median; None where there is no counter.
    """

    name: str
    model: str
    height: int
    width: int
    batch_size: int
    calls: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mb: float | None
    energy_j: float | None


def race(contenders: Sequence[Contender], batch_size: int, rounds: int, warm_up: int = 2) -> list[Speed]:
    """Score random inputs with each contender in turn, 1 + ``warm_up`` + ``rounds`` times; only the last count.

    Turns are taken round by round, so that whatever else the machine does meets all contenders alike.
    """
    turns: list[list[_Turn]] = [[] for _ in contenders]
    pixels = np.random.default_rng(0)
    inputs = [pixels.integers(0, 256, (batch_size, 3, *one.size)).astype(np.uint8) for one in contenders]
    for contender, images in zip(contenders, inputs, strict=True):
        with contender.memory.watch():
            _turn(contender, images)
    for round_ in range(warm_up + rounds):
        for contender, images, taken in zip(contenders, inputs, turns, strict=True):
            turn = _turn(contender, images)
            if round_ >= warm_up:
                taken.append(turn)
    return [_speed(contender, batch_size, taken) for contender, taken in zip(contenders, turns, strict=True)]


@dataclass(frozen=True)
class _Turn:
    wall_s: float
    cpu_s: float
    energy_j: float | None


def _turn(contender: Contender, images: NDArray[np.uint8]) -> _Turn:
    energy, cpu, wall = energy_joules(), time.process_time(), time.perf_counter()
    contender.scorer.score(images, ["object"] * len(images))
    contender.wait()
    wall, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, energy_joules()
    used = None if energy is None or after is None or after < energy else after - energy  # a counter starts anew
    return _Turn(wall, cpu, used)


def _speed(contender: Contender, batch_size: int, turns: Sequence[_Turn]) -> Speed:
    p50, p95, p99 = (float(value) for value in np.percentile([1e3 * turn.wall_s for turn in turns], (50, 95, 99)))
    energies = [turn.energy_j for turn in turns if turn.energy_j is not None]
    return Speed(
        name=contender.name,
        model=contender.model,
        height=contender.size[0],
        width=contender.size[1],
        batch_size=batch_size,
        calls=len(turns),
        images_per_second=1e3 * batch_size / p50,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        cpu_ms=float(np.median([1e3 * turn.cpu_s for turn in turns])) / batch_size,
        memory_mb=contender.memory.rise_mb,
        energy_j=float(np.median(energies)) / batch_size if energies else None,
    )
