"""`kill -9` at random points of cache filling, `train`, `evaluate` and `predict`, each run again to its end.

    python tests/attack/kills.py --count 20 --seed 0 --out DIR

The run that follows a kill must give what an undisturbed one gives: head.safetensors and every map, mask and overlay to
the byte, cached tensors, rows and logs but for times, and no unfinished file. Exit code 0 if all do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

_TIMES = {"seconds", "peak_memory_mb"}
_LIMIT_S = 600


@dataclass(frozen=True)
class Work:
    """A command that is killed.

    Attributes:
        arguments: of ad-dinov3, for a folder of a trial.
        again: what is added when it is run again.
        begins: the file in a trial's folder with whose appearance the work begins.
        ends: the file with whose appearance it ends; None: with the process.
        result: everything that must be equal, for a trial's folder.
        warm: a folder that each trial begins with a copy of.
    """

    arguments: Callable[[Path], list[str]]
    again: list[str]
    begins: str
    ends: str | None
    result: Callable[[Path], object]
    warm: Path | None = None


def make_data(root: Path, images: int) -> None:
    """A data set in MVTec AD's shape: noise, every second image with a bright square."""
    noise = np.random.default_rng(0)
    for index in range(images):
        image, mask = noise.integers(60, 100, (96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8)
        defect = "square" if index % 2 else "good"
        if index % 2:
            top, left = noise.integers(4, 60, 2)
            mask[top : top + 24, left : left + 24] = 255
            image[mask > 0] = 230
            _save(mask, root / "tile" / "ground_truth" / defect / f"{index:03d}_mask.png")
        _save(image, root / "tile" / "test" / defect / f"{index:03d}.png")


def works(data: Path, warm: Path) -> dict[str, Work]:
    """The four kinds of work by name."""

    def train(trial: Path) -> list[str]:
        settings = ["--preset", "embedded", "--set", "train.epochs=4", "--set", "input.height=128"]
        return ["train", "--data", str(data), "--out", str(trial / "out"), *settings, "--set", "input.width=128"]

    def evaluate(trial: Path) -> list[str]:
        return ["evaluate", "--data", str(data), "--out", str(trial / "out"), "--batch-size", "2"]

    def predict(trial: Path) -> list[str]:
        return ["predict", str(data / "tile" / "test"), "--out", str(trial / "out"), "--batch-size", "2"]

    log = "out/train.jsonl"
    return {
        "cache": Work(train, ["--resume"], "cache/*/group.json", log, trained),
        "train": Work(train, ["--resume"], log, None, trained, warm),
        "evaluate": Work(evaluate, [], "out/store", None, lambda trial: lines(trial / "out" / "rows.jsonl")),
        "predict": Work(predict, [], "out/results.jsonl", None, predicted),
    }


def trained(trial: Path) -> object:
    """The head, the losses and the cached features of a training run."""
    cached: dict[str, bytes] = {}
    for shard in sorted((trial / "cache").rglob("*.safetensors")):
        cached |= {name: value.tobytes() for name, value in safetensors.numpy.load_file(shard).items()}
    return (trial / "out" / "head.safetensors").read_bytes(), lines(trial / "out" / "train.jsonl"), cached


def predicted(trial: Path) -> object:
    """The rows and the bytes of all maps, masks and overlays."""
    kinds = ("maps", "masks", "overlays")
    files = {str(p): p.read_bytes() for kind in kinds for p in (trial / "out" / kind).rglob("*") if p.is_file()}
    named = {name.removeprefix(str(trial)): content for name, content in files.items()}
    return sorted(map(str, lines(trial / "out" / "results.jsonl"))), named


def lines(file: Path) -> list[dict[str, object]]:
    """The objects of a JSONL file without times."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in _TIMES} for row in rows]


def start(work: Work, trial: Path, more: list[str]) -> subprocess.Popen[bytes]:
    """The command in a trial's folder, in a process group of its own."""
    environment = {**os.environ, "AD_DINOV3_CACHE": str(trial / "cache"), "OMP_NUM_THREADS": "1"}
    with (trial / "words.txt").open("ab") as words:
        command = [sys.executable, "-m", "ad_dinov3", *work.arguments(trial), *more]
        return subprocess.Popen(command, stdout=words, stderr=words, env=environment, start_new_session=True)


def when(process: subprocess.Popen[bytes], trial: Path, pattern: str | None) -> float:
    """The moment at which a file appears, or at which the process ends."""
    while process.poll() is None and not (pattern and any(trial.glob(pattern))):
        time.sleep(0.002)
    return time.perf_counter()


def begin(work: Work, trial: Path) -> None:
    """Make a trial's folder."""
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    if work.warm:
        shutil.copytree(work.warm, trial / "cache")


def undisturbed(work: Work, trial: Path) -> tuple[object, float]:
    """What a whole run gives, and how long its work lasts in seconds."""
    begin(work, trial)
    process = start(work, trial, [])
    begun = when(process, trial, work.begins)
    seconds = when(process, trial, work.ends) - begun
    if process.wait(_LIMIT_S):
        raise RuntimeError((trial / "words.txt").read_text())
    return work.result(trial), seconds


def killed(work: Work, trial: Path, delay: float) -> bool:
    """Kill a run some seconds after its work began; whether it was still at it."""
    begin(work, trial)
    process = start(work, trial, [])
    when(process, trial, work.begins)
    time.sleep(delay)
    is_at_work = process.poll() is None and not (work.ends and (trial / work.ends).exists())
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return is_at_work


def resumed(work: Work, trial: Path, expected: object) -> str:
    """What is wrong after the run that follows a kill; empty if nothing is."""
    if start(work, trial, work.again).wait(_LIMIT_S):
        return (trial / "words.txt").read_text()[-500:]
    left = [str(path) for path in trial.rglob(".*.part")]
    return f"left: {left}" if left else "" if work.result(trial) == expected else "another result"


def trials(name: str, work: Work, out: Path, count: int, random_: random.Random) -> int:
    """Kill ``count`` runs and resume them; how many gave another result."""
    expected, seconds = undisturbed(work, out / f"{name}-whole")
    faults = done = late = 0
    while done < count and late < 5 * count:
        trial, delay = out / f"{name}-{done}", random_.uniform(0, seconds)
        if not killed(work, trial, delay):
            late += 1
            continue
        done += 1
        wrong = resumed(work, trial, expected)
        faults += bool(wrong)
        sys.stdout.write(f"{name} {done}: killed {delay:.2f} s into {seconds:.2f} s: {wrong or 'equal'}\n")
        sys.stdout.flush()
        if not wrong:
            shutil.rmtree(trial)
    sys.stdout.write(f"{name}: {done} killed, {done - faults} equal, {late} had ended before the kill\n")
    return faults + count - done


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def main() -> int:
    """Run it; 0 if every resumed run was equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--only", nargs="+", default=["cache", "train", "evaluate", "predict"])
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    make_data(out / "data", arguments.images)
    table = works(out / "data", out / "warm")
    if "train" in arguments.only:
        undisturbed(table["cache"], out / "filling")
        shutil.copytree(out / "filling" / "cache", out / "warm")
    random_ = random.Random(arguments.seed)
    faults = [trials(name, table[name], out, arguments.count, random_) for name in arguments.only]
    return min(1, sum(faults))


if __name__ == "__main__":
    sys.exit(main())
