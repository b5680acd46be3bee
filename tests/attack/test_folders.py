"""Odd names, odd trees and odd output folders: every image is scored or named, and nothing is half-written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import held, remove_unfinished, replacing
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.predict.drive import DriveOptions, drive
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.types import Failure, Result

OPTIONS = DriveOptions(rule=DecisionRule(0.3), batch_size=4, threads=2)
NAMES = [
    b"bad\xff\xfe.png",
    b"n" * 251 + b".png",
    ("\u6f22" * 83).encode() + b".png",
    b"=cmd|' ' !A1.png",
    b"@sum.png",
    b"+1.png",
    b"-x.png",
    b"a\nb\x1b[31m.png",
    b"<img src=x onerror=alert(1)>.png",
    "\u202egnp.exe.png".encode(),
]


def score(folder: Path, out: Path) -> FolderSummary:
    run = FolderRun(out, "toy", "f1", OPTIONS, tables=("csv", "coco"))
    return score_into_folder(find_images([str(folder)]), ToyDetector(), run)


def rows(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def whole_and_broken(folder: Path, name: bytes) -> None:
    """An image of a name, and beside it a broken one of nearly the same."""
    draw_part(folder / "part.png", blemish=True)
    (folder / "part.png").rename(os.fsdecode(os.fsencode(folder) + b"/" + name[:255]))
    (folder / "broken").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "broken").rename(os.fsdecode(os.fsencode(folder) + b"/0" + name[-250:]))


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_is_scored_with_all_its_files_and_a_broken_one_is_named(tmp_path: Path, name: bytes) -> None:
    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    whole_and_broken(parts, name)
    summary = score(parts, out)
    assert (summary.run.scored, len(summary.run.failures)) == (1, 1)
    (scored,) = (row for row in rows(out) if row["decision"] != "failed")
    assert all((out / str(scored[kind])).is_file() for kind in ("overlay", "map", "mask"))
    assert (out / "report.html").is_file()
    assert score(parts, out).skipped == 1


def test_a_file_beside_a_folder_of_its_outputs_name_gets_its_files(tmp_path: Path) -> None:
    parts, out = tmp_path / "parts", tmp_path / "out"
    for name in ("a.png", "a.png.jpg/b.png", "a.png.tiff/b.png", "a.png.png/b.png"):
        draw_part(parts / name)
    assert score(parts, out).run.scored == 4
    written = [row[kind] for row in rows(out) for kind in ("overlay", "map", "mask")]
    assert len(set(written)) == 12
    assert all((out / str(name)).is_file() for name in written)


def test_text_that_a_spreadsheet_would_run_is_escaped(tmp_path: Path) -> None:
    parts, out = tmp_path / "parts", tmp_path / "out"
    for name in ("=1+1.png", "@x.png", "+x.png", "-x.png", "plain.png"):
        draw_part(parts / name)
    score(parts, out)
    with (out / "results.csv").open(newline="") as file:
        names = sorted(row["image"] for row in csv.DictReader(file))
    assert names == sorted(["'=1+1.png", "'@x.png", "'+x.png", "'-x.png", "plain.png"])


class _Careless:
    """A sink that fails for one image."""

    def write(self, result: Result) -> None:
        if result.scored.item.name == "b.png":
            raise ZeroDivisionError("in a sink")

    def fail(self, failure: Failure) -> None:
        """Nothing to note."""

    def close(self) -> None:
        """Nothing to write."""


def test_whatever_one_image_sets_off_in_a_sink_the_others_are_done() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    items = [ImageFile(Path("camera"), f"{name}.png", frame=image) for name in "abc"]
    summary = drive(items, ToyDetector(), [_Careless()], OPTIONS)
    assert summary.scored == 2
    assert [failure.item.name for failure in summary.failures] == ["b.png"]


@pytest.mark.parametrize("height", [65_500, 100_000])
def test_an_image_taller_than_a_jpeg_keeps_map_and_mask(tmp_path: Path, height: int) -> None:
    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    Image.new("RGB", (20, height), (90, 90, 90)).save(parts / "tall.png")
    assert score(parts, out).run.scored == 1
    (row,) = rows(out)
    assert read_map(out / str(row["map"])).shape == (height, 20)
    assert Image.open(out / str(row["mask"])).size == (20, height)
    assert Image.open(out / str(row["overlay"])).height < 65_500


def test_images_in_hand_never_take_more_than_the_run_may(tmp_path: Path) -> None:
    taken, most = 0, 0

    class Scorer(ToyDetector):
        def prepare(self, image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            nonlocal taken, most
            taken += 1
            most = max(most, taken)
            return super().prepare(image)

    class Release(_Careless):
        def write(self, result: Result) -> None:
            nonlocal taken
            taken -= 1

    image = np.zeros((1000, 1000, 3), np.uint8)  # 22 MB in hand
    items = [ImageFile(Path("camera"), f"{number}.png", frame=image) for number in range(20)]
    options = DriveOptions(rule=DecisionRule(0.3), batch_size=8, threads=4, memory_mb=64)
    assert drive(items, Scorer(), [Release()], options).scored == 20
    assert most <= 3
    tight = DriveOptions(rule=DecisionRule(0.3), memory_mb=20)
    assert "more than the limit" in drive(items[:1], ToyDetector(), [], tight).failures[0].reason


def test_a_second_run_into_a_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    draw_part(tmp_path / "parts" / "x.png")
    with held(tmp_path / "out"), pytest.raises(ConfigError, match="another run is writing there"):
        score(tmp_path / "parts", tmp_path / "out")
    assert score(tmp_path / "parts", tmp_path / "out").run.scored == 1


def test_what_killed_runs_left_is_removed_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    gone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with replacing(tmp_path / "maps" / "x.tiff") as mine:
        named = (mine.name.replace(f"-{os.getpid()}.", f"-{pid}.") for pid in (gone, os.getppid()))
        dead, alive = map(mine.with_name, named)
        mine.touch()
    foreign, notes = tmp_path / f".y.png.0123abcd-{gone}.part", tmp_path / ".notes.part"
    abandoned = tmp_path / f".z.png.0123abcd-{os.getppid()}.part"
    for path in (dead, alive, foreign, notes, abandoned):
        path.touch()
    os.utime(abandoned, (time.time() - 90_000,) * 2)
    remove_unfinished(tmp_path)
    assert [path.exists() for path in (dead, alive, foreign, notes, abandoned)] == [False, True, True, True, False]


@pytest.mark.parametrize("out", ["file", "/proc/nowhere", "/dev/full"])
def test_an_output_that_cannot_be_is_one_line_and_exit_code_2(tmp_path: Path, out: str) -> None:
    draw_part(tmp_path / "x.png")
    (tmp_path / "file").write_text("no folder")
    command = [sys.executable, "-m", "ad_dinov3", "predict", str(tmp_path / "x.png"), "-o", str(tmp_path / out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
