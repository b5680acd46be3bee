"""What `predict` costs an image with one model and with another, all outputs written, in one run.

    python benchmarks/predict.py FOLDER MODEL BASELINE [--rounds 3] [--images 300]

Each model in turn scores the folder's first JPEGs into a fresh folder, in a process of its own with one thread.
Processor seconds of the whole command, start and loading included; the least of all rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def processor_seconds(images: list[Path], model: str) -> float:
    """User and system seconds of one command."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ad_dinov3", "predict", *map(str, images), "--model", model]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, "-o", f"{folder}/out"], env=environment, stdout=subprocess.DEVNULL, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode or len(list(Path(folder).glob("out/overlays/**/*.jpg"))) != len(images):
            raise SystemExit(f"predict with {model} ended with {done.returncode}, or wrote too few overlays")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print both models' cost and the ratio of their speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs=2, metavar="MODEL", help="the model and the baseline: embedded, or folders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=300)
    arguments = parser.parse_args()
    images = sorted(arguments.folder.rglob("*.jpg"))[: arguments.images]
    if not images:
        raise SystemExit(f"{arguments.folder}: expected a folder with .jpg files, found none")
    best = dict.fromkeys(arguments.models, float("inf"))
    for _ in range(arguments.rounds):
        for model in best:
            best[model] = min(best[model], processor_seconds(images, model))
    for model, seconds in best.items():
        print(f"{model}: {1e3 * seconds / len(images):.1f} ms of processor an image ({len(images)} images)")
    ours, baseline = (best[model] for model in arguments.models)
    print(f"speed against {arguments.models[1]}: {baseline / ours:.2f}")


if __name__ == "__main__":
    main()
