"""Makes the embedded model and everything that is said of it.

Rendered images first, then three runs that go on from them: fold A and fold B, each measured on the sets that it holds
out, and all seven sets, which is what the package ships. Beside each fold, on the same images: the untrained baseline
on the fold's backbone, trained adapters on a random backbone, and the classical rival. Stopped at any time, the same
command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from recipes.embedded.pretrain import FOLDS
from recipes.embedded.samples import SETS

RENDERED_STEPS, FOLD_STEPS, FROZEN_STEPS = 6_200, 2_500, 1_000


@dataclass(frozen=True)
class Places:
    """Where the data sets lie, and where runs and rows go."""

    data: Path
    runs: Path
    results: Path


def script(name: str, *arguments: str | Path) -> None:
    """Run one of this folder's scripts to its end."""
    subprocess.run([sys.executable, "-m", f"recipes.embedded.{name}", *map(str, arguments)], check=True)


def pretrain(places: Places, name: str, fold: str, *more: str | Path) -> Path:
    """A finished run in RUNS/name; its head is written last."""
    run = places.runs / name
    if not (run / "head.safetensors").exists():
        script("pretrain", "--fold", fold, "--data", places.data, "--out", run, *more)
    return run


def package(places: Places, run: Path, calibrated_on: tuple[str, ...]) -> None:
    """RUN/nano and RUN/model, their threshold set on images that the model may see."""
    if not (run / "model" / "config.json").exists():
        script("package", "--run", run, "--data", places.data, "--backbone", run / "nano", "--model", run / "model")
        script("calibrate", "--model", run / "model", "--data", *(places.data / name for name in calibrated_on))


def evaluate(places: Places, name: str, held_out: tuple[str, ...], *subject: str | Path) -> None:
    """Rows of one subject on the sets that a fold holds out."""
    command = [sys.executable, "-m", "ad_dinov3", "evaluate", "--out", str(places.results / name), *map(str, subject)]
    for one in held_out:
        command += ["--data", str(places.data / one)]
    subprocess.run(command, check=True)


def make_fold(places: Places, fold: str, rendered: Path) -> None:
    """Train one fold and measure it, and what stands beside it, on what it holds out."""
    held_out, letter = tuple(name for name in SETS if name not in FOLDS[fold]), fold.lower()
    run = pretrain(places, letter, fold, "--start", rendered, "--steps", str(FOLD_STEPS))
    package(places, run, FOLDS[fold])
    evaluate(places, f"{letter}_embedded", held_out, "--model", run / "model")
    evaluate(places, f"{letter}_mahalanobis", held_out, "--method", "mahalanobis")
    plain = ("--method", "dinov3_plain", "--weights", run / "nano")
    evaluate(places, f"{letter}_untrained", held_out, *plain)
    frozen = pretrain(places, f"{letter}_random", fold, "--frozen", "--steps", str(FROZEN_STEPS))
    package(places, frozen, FOLDS[fold])
    evaluate(places, f"{letter}_random_backbone", held_out, "--model", frozen / "model")


def main() -> None:
    """Reads the command line and makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, MVTec AD layout")
    parser.add_argument("--runs", type=Path, required=True, help="checkpoints; 20 MB each")
    parser.add_argument("--results", type=Path, required=True, help="rows of what was measured")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    places = Places(args.data, args.runs, args.results)
    rendered = pretrain(
        places, "rendered", "none", "--seed", "1", "--schedule", "constant", "--steps", str(RENDERED_STEPS)
    )
    for fold in ("A", "B"):
        make_fold(places, fold, rendered)
    package(places, pretrain(places, "all", "all", "--start", rendered, "--steps", str(FOLD_STEPS)), SETS)


if __name__ == "__main__":
    main()
