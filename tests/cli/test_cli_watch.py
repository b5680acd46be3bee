"""The command: killed and started again, it scores every file once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import draw_part

from ad_dinov3.cli import watch
from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.results import read_rows

_WATCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from toy_detector import ToyDetector
from ad_dinov3.cli import watch
from ad_dinov3.infer import opening

class Toy(ToyDetector):
    threshold, promises = 0.3, {}
    def seen_through(self, view): return self
    def remember(self, images, class_name, view): pass
    fingerprint = "toy"
    def score(self, batch, names):
        with open(sys.argv[4], "a") as log: log.write("x" * len(batch))
        return super().score(batch, names)

opening.load = lambda *a, **k: Toy()
watch.watch(sys.argv[1], Path(sys.argv[2]), normals=sys.argv[5], every=0.1, as_json=True)
"""


def rows(out: Path) -> dict[str, str]:
    file = out / "results.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return {row["image"]: row["decision"] for row in map(json.loads, lines)}


def wait_for(out: Path, count: int) -> None:
    until = time.monotonic() + 120
    while len(rows(out)) < count:
        assert time.monotonic() < until, rows(out)
        time.sleep(0.05)


def test_killed_and_started_again_it_scores_every_file_once(tmp_path: Path) -> None:
    inbox, out, log = tmp_path / "inbox", tmp_path / "out", tmp_path / "scored"
    inbox.mkdir()
    room = str(Path(__file__).parents[1] / "infer")
    draw_part(tmp_path / "normals" / "known.png")  # as the good ones of the inbox, and unlike the bad ones
    command = [sys.executable, "-c", _WATCH, str(inbox), str(out), room, str(log), str(tmp_path / "normals")]
    for turn, ending in enumerate((signal.SIGKILL, signal.SIGTERM)):
        with (
            (tmp_path / f"told {turn}").open("w") as told,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=told, env={**os.environ, "COLUMNS": "200"}, text=True
            ) as run,
        ):
            assert run.stdout is not None
            draw_part(inbox / f"day {turn}" / "good.png")
            draw_part(inbox / f"{turn} bad.png", blemish=True)
            (inbox / "empty.png").touch()
            wait_for(out, 2 * turn + 3)
            run.send_signal(ending)
            said = run.stdout.read()
            run.wait(60)
    assert rows(out) == {
        "0 bad.png": "anomalous",
        "1 bad.png": "anomalous",
        "empty.png": "failed",
        "day 0/good.png": "normal",
        "day 1/good.png": "normal",
    }
    assert log.read_text() == "x" * 4
    assert run.returncode == 0
    assert json.loads(said) == {
        "out": str(out),
        "anomalous": 1,
        "normal": 1,
        "failed": 1,
    }  # what the second start decided
    assert (out / "report.html").is_file()
    assert "failed    empty.png the file is empty" in (tmp_path / "told 1").read_text()
    assert (tmp_path / "told 1").read_text().count("is nearly a normal one (day 1/good.png is like") == 1


def test_a_stream_is_compared_with_its_past_as_predict_does(tmp_path: Path) -> None:
    inbox, chance = tmp_path / "inbox", np.random.default_rng(0)
    inbox.mkdir()
    for number in range(13):
        picture = np.full((64, 64, 3), 120.0) + chance.normal(0, 5, (64, 64, 3))
        if number == 12:
            picture[20:40, 20:40] = chance.uniform(0, 255, (20, 20, 3))
        Image.fromarray(picture.astype(np.uint8)).save(inbox / f"{number:02d}.png")
    command = [sys.executable, "-m", "ad_dinov3"]
    chosen = ["--compare", "stream", "--offline", "-o"]
    subprocess.run([*command, "predict", str(inbox), *chosen, str(tmp_path / "all")], check=True, capture_output=True)
    live = [*command, "watch", str(inbox), *chosen, str(tmp_path / "live"), "--every", "0.1"]
    with subprocess.Popen(live, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        wait_for(tmp_path / "live", 13)
        run.send_signal(signal.SIGTERM)
        assert "each image is compared with those before it" in " ".join(run.stdout.read().split())
    found = [{row.image: row.score for row in read_rows(tmp_path / name)} for name in ("all", "live")]
    assert found[0] == found[1]
    assert found[0]["12.png"] == max(score or 0 for name, score in found[0].items() if name > "09.png")


def test_a_folder_that_is_not_there_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder to watch"):
        watch.watch(str(tmp_path / "none"), tmp_path / "out", model="nowhere")


def test_a_folder_below_its_own_results_is_refused_as_nothing_in_it_would_be_scored(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    for out in (tmp_path, tmp_path / "inbox"):
        with pytest.raises(ConfigError, match="where results are"):
            watch.watch(str(tmp_path / "inbox"), out, model="nowhere")


def test_a_watch_that_saw_nothing_names_no_report(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    command = [sys.executable, "-m", "ad_dinov3", "watch", str(tmp_path / "inbox"), "-o", str(tmp_path / "out")]
    with subprocess.Popen([*command, "--offline"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("watching")
        time.sleep(0.5)
        run.send_signal(signal.SIGTERM)
        assert run.stdout.read().endswith("no image has arrived\n")
