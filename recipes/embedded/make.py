"""Makes the embedded model and everything that is said of it: `python -m recipes.embedded.make --data ROOT ...`.

Pools of encoded pairs first; then the heads on them: fold A and fold B with three seeds, each measured on the sets
that it holds out, and all seven sets, which is what the package ships. Beside each fold, on the same images: the
classical baseline.
Stopped at any time, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from recipes.embedded.samples import SETS
from recipes.embedded.train import FOLDS

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Places:
    """Where the data sets lie, and where runs and rows go."""

    data: Path
    runs: Path
    results: Path


def script(name: str, *arguments: str | Path) -> None:
    """Run one of this folder's scripts to its end."""
    subprocess.run([sys.executable, "-m", f"recipes.embedded.{name}", *map(str, arguments)], check=True)


def made(places: Places, fold: str, seed: int = 0) -> Path:
    """The model's folder of a fold, trained and not yet calibrated."""
    run = places.runs / f"{fold}_{seed}"
    model = run / "model"
    if not (run / "head.safetensors").exists():
        script("train", "--pools", places.runs / "pools", "--fold", fold, "--seed", str(seed), "--out", run)
    if not (model / "config.json").exists():
        script("package", "--run", run, "--data", places.data, "--model", model)
    return model


def evaluate(places: Places, name: str, held_out: tuple[str, ...], *subject: str | Path) -> None:
    """Rows of one subject on the sets that a fold holds out."""
    command = [sys.executable, "-m", "ad_dinov3", "evaluate", "--out", str(places.results / name), *map(str, subject)]
    for one in held_out:
        command += ["--data", str(places.data / one)]
    subprocess.run(command, check=True)


def measure_fold(places: Places, fold: str) -> None:
    """The fold with each seed, and what stands beside it, on what it holds out."""
    held_out, letter = tuple(name for name in SETS if name not in FOLDS[fold]), fold.lower()
    for seed in SEEDS:
        evaluate(places, f"{letter}_embedded_{seed}", held_out, "--model", made(places, fold, seed))
    evaluate(places, f"{letter}_mahalanobis", held_out, "--method", "mahalanobis")


def main() -> None:
    """Reads the command line and makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, MVTec AD layout")
    parser.add_argument("--runs", type=Path, required=True, help="pools (2 GB), checkpoints and models")
    parser.add_argument("--results", type=Path, required=True, help="rows of what was measured")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    places = Places(args.data, args.runs, args.results)
    script("pool", "--data", places.data, "--to", places.runs / "pools")
    models = {fold: made(places, fold) for fold in ("A", "B", "all")}
    for fold in ("A", "B"):
        measure_fold(places, fold)
    report = places.runs / "thresholds.json"
    if not report.exists():
        folds = [part for fold in ("A", "B") for part in ("--fold", fold, models[fold])]
        script("calibrate", "--data", places.data, *folds, "--model", *models.values(), "--report", report)


if __name__ == "__main__":
    main()
