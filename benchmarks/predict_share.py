"""What `predict` with all outputs costs an image beside the model's own work; and before, in another checkout.

    python benchmarks/predict_share.py FOLDER MODEL [--before CHECKOUT/src] [--rounds 3] [--images 300]

In each round three processes with one thread score the folder's first JPEGs in turn: the model alone, whose inputs lie
ready; `predict` into a fresh folder; and `predict` with a tenth of the images, whose seconds are taken off, so that
start and loading do not count. Processor seconds, the least of all rounds; wall clock beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_ALONE = """
import sys, time
import numpy as np
import ad_dinov3
from ad_dinov3.data.pixels import as_rgb
model, *images = sys.argv[1:]
detector = ad_dinov3.load(model)
inputs = [detector.prepare(as_rgb(image)) for image in images]
batches = [np.stack(inputs[start : start + 8]) for start in range(0, len(inputs), 8)]
detector.score(batches[0], ["object"] * len(batches[0]))
started = time.process_time()
for batch in batches:
    detector.score(batch, ["object"] * len(batch))
print(time.process_time() - started)
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of one process: of the processor, user and system, and by the clock."""

    processor: float
    wall: float


def alone(source: Path, model: str, images: list[Path]) -> float:
    """Processor seconds of the model's own work on all images."""
    command = [sys.executable, "-c", _ALONE, model, *map(str, images)]
    done = subprocess.run(command, env=_environment(source), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"scoring with {model} ended with {done.returncode}")
    return float(done.stdout)


def predicted(source: Path, model: str, images: list[Path], folder: str) -> Cost:
    """What one command costs that writes below a folder."""
    out = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "ad_dinov3", "predict", *map(str, images), "--model", model, "-o", out]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=_environment(source), stdout=subprocess.DEVNULL, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or len(list(Path(out).glob("overlays/**/*.jpg"))) != len(images):
        raise SystemExit(f"predict with {model} ended with {done.returncode}, or wrote too few overlays")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def _environment(source: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}


def main() -> None:
    """Print each checkout's cost and the share of the model in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", help="embedded, or an exported folder")
    parser.add_argument("--before", type=Path, help="the folder src of another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    images = sorted(arguments.folder.rglob("*.jpg"))[: arguments.images]
    few = images[: len(images) // 10]
    if not few:
        raise SystemExit(f"{arguments.folder}: expected a folder with at least ten .jpg files, found {len(images)}")
    sources = {"this": Path(__file__).parents[1] / "src"}
    if arguments.before:
        sources["before"] = arguments.before.absolute()
    rounds: dict[str, list[tuple[float, Cost, Cost]]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:  # nothing is deleted in between: ext4 searches past new gaps
        for _ in range(arguments.rounds):
            for name, source in sources.items():
                own = alone(source, arguments.model, images)
                whole, start = (predicted(source, arguments.model, some, folder) for some in (images, few))
                rounds[name].append((own, whole, start))
    print(f"{len(images)} images; load {os.getloadavg()[0]:.1f}; ms an image")
    for name, measured in rounds.items():
        own = min(model for model, _, _ in measured)
        cost, begun = min(one.processor for _, one, _ in measured), min(one.processor for _, _, one in measured)
        model_ms = 1e3 * own / len(images)
        predict_ms = 1e3 * (cost - begun) / (len(images) - len(few))
        wall = min(w.wall for _, w, _ in measured)
        print(
            f"{name:>7}: model alone {model_ms:5.1f}, predict {predict_ms:5.1f} without its start, "
            f"{predict_ms / model_ms:.2f} of the model; command {cost:.1f} s of processor, {wall:.1f} s by the clock"
        )


if __name__ == "__main__":
    main()
