"""Files that arrive, by a clock that the test turns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_detector import draw_part

from ad_dinov3.data.watching import Arrivals


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arrivals(tmp_path: Path, clock: Clock) -> Arrivals:
    return Arrivals(tmp_path, quiet_s=1, clock=clock)


def later(arrivals: Arrivals, clock: Clock, seconds: float = 1) -> list[str]:
    clock.now += seconds
    return [item.name for item in arrivals.settled()]


def test_a_file_is_given_once_when_it_has_stopped_changing(arrivals: Arrivals, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    content = draw_part(tmp_path / "whole.txt.png").read_bytes()
    (tmp_path / "whole.txt.png").unlink()
    for end in (10, 20, len(content)):  # a slow writer
        path.write_bytes(content[:end])
        assert later(arrivals, clock) == []
    assert later(arrivals, clock, 0.5) == []
    assert later(arrivals, clock, 0.5) == ["a.png"]
    assert later(arrivals, clock) == []


def test_a_file_that_changes_afterwards_is_given_again(arrivals: Arrivals, clock: Clock, tmp_path: Path) -> None:
    path = draw_part(tmp_path / "a.png")
    assert [later(arrivals, clock), later(arrivals, clock)] == [[], ["a.png"]]
    os.utime(path, (1, 1))
    assert [later(arrivals, clock), later(arrivals, clock), later(arrivals, clock)] == [[], ["a.png"], []]


def test_new_folders_moved_files_and_partial_names_are_no_special_cases(
    arrivals: Arrivals, clock: Clock, tmp_path: Path
) -> None:
    assert later(arrivals, clock) == []
    draw_part(tmp_path / "cam" / "one" / "b.png")
    partial = draw_part(tmp_path / "c.png").rename(tmp_path / "c.png.part")
    assert [later(arrivals, clock), later(arrivals, clock)] == [[], ["cam/one/b.png"]]
    partial.rename(tmp_path / "c.png")
    assert [later(arrivals, clock), later(arrivals, clock)] == [[], ["c.png"]]


def test_a_folder_that_is_away_gives_nothing_and_its_files_when_it_is_back(clock: Clock, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    arrivals = Arrivals(drive, quiet_s=1, clock=clock)
    assert later(arrivals, clock) == []
    draw_part(drive / "a.png")
    assert [later(arrivals, clock), later(arrivals, clock)] == [[], ["a.png"]]
