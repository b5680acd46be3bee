"""Seconds by step, added up over threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ad_dinov3.predict.timing import StepTimes


def test_the_time_of_threads_adds_up() -> None:
    times = StepTimes()

    def work(_: int) -> None:
        with times.step("sleep"):
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert times.seconds()["sleep"] >= 8 * 0.02  # though two rounds of four took a quarter of it


def test_no_addition_is_lost_between_threads() -> None:
    times = StepTimes()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: times.add("step", 1.0), range(4000)))
    assert times.seconds() == {"step": 4000.0}


def test_a_step_that_fails_counts_and_its_error_goes_on() -> None:
    times = StepTimes()
    with pytest.raises(ZeroDivisionError), times.step("divide"):
        raise ZeroDivisionError
    assert times.seconds()["divide"] >= 0


def test_waiting_counts_what_the_source_takes_and_not_what_the_reader_does() -> None:
    def slow_source() -> Iterator[int]:
        for value in range(3):
            time.sleep(0.02)
            yield value

    times, seen = StepTimes(), []
    for value in times.waiting("wait", slow_source()):
        seen.append(value)
        time.sleep(0.05)
    assert seen == [0, 1, 2]
    assert 0.06 <= times.seconds()["wait"] < 0.06 + 3 * 0.05


def test_steps_keep_the_order_of_first_use_and_the_sums_are_a_copy() -> None:
    times = StepTimes()
    for name in ("decode", "score", "decode", "write"):
        times.add(name, 1.0)
    sums = times.seconds()
    sums["decode"] = 0.0
    assert list(times.seconds()) == ["decode", "score", "write"]
    assert times.seconds()["decode"] == 2.0
