"""Makes the embedded model and everything that is said of it: `python -m recipes.embedded.make --data ROOT ...`.

Pools of encoded pairs first; then heads on them: fold A, fold B, and all seven sets, which is what the package ships;
then their threshold; then the folds with three seeds, each measured on the sets that it holds out, and the classical
baseline on the same images. Stopped at any time, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.files import replacing
from recipes.embedded.samples import SETS
from recipes.embedded.train import FOLDS, Recipe

CALIBRATED = "calibrated"


@dataclass(frozen=True)
class Extent:
    """How much is made.

    Attributes:
        seeds: of the heads of each fold.
        steps: of training.
        pairs: at most, in each pool; None: as many as the recipe says.
        images: at most, of each set, measured; None: all.
        normals: normal images of each set, and as many anomalous ones, that the threshold is chosen on.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = Recipe.steps
    pairs: int | None = None
    images: int | None = None
    normals: int = 60


SMALL = Extent(seeds=(0,), steps=4, pairs=2, images=4, normals=2)


@dataclass(frozen=True)
class Making:
    """Where the data sets lie, where runs and rows go, and how much is made."""

    data: Path
    runs: Path
    results: Path
    extent: Extent

    def pools(self) -> None:
        """Draw and encode the pairs."""
        bound = () if self.extent.pairs is None else ("--at-most", self.extent.pairs)
        script("pool", "--data", self.data, "--to", self.runs / "pools", *bound)

    def model(self, fold: str, seed: int = 0) -> Path:
        """The model's folder of a fold, trained and not calibrated."""
        run = self.runs / f"{fold}_{seed}"
        model = run / "model"
        if not (run / "head.safetensors").exists():
            which = ("--fold", fold, "--seed", seed, "--steps", self.extent.steps)
            script("train", "--pools", self.runs / "pools", *which, "--out", run)
        if not (model / "config.json").exists():
            script("package", "--run", run, "--data", self.data, "--model", model)
        return model

    def thresholds(self) -> None:
        """Each model of the first seed once more beside itself, with 0.5 as its threshold; the report comes last."""
        report = self.runs / "thresholds.json"
        if report.exists():
            return
        models = {fold: self.model(fold) for fold in ("A", "B", "all")}
        judges = [word for fold in ("A", "B") for word in ("--fold", fold, models[fold])]
        moves = [word for model in models.values() for word in ("--move", model, model.with_name(CALIBRATED))]
        script("calibrate", "--data", self.data, "--count", self.extent.normals, *judges, *moves, "--report", report)

    def measure_fold(self, fold: str) -> None:
        """The fold with each seed, and what stands beside it, on what it holds out."""
        letter = fold.lower()
        for seed in self.extent.seeds:
            self._evaluate(f"{letter}_embedded_{seed}", fold, "--model", self.model(fold, seed))
        self._evaluate(f"{letter}_mahalanobis", fold, "--method", "mahalanobis")

    def _evaluate(self, name: str, fold: str, *subject: str | Path) -> None:
        scored = self.runs / "evaluations" / name
        command = [sys.executable, "-m", "ad_dinov3", "evaluate", "--out", str(scored), *map(str, subject)]
        for held_out in SETS:
            if held_out not in FOLDS[fold]:
                command += ["--data", str(self.data / held_out)]
        if self.extent.images is not None:
            command += ["--limit", str(self.extent.images)]
        subprocess.run(command, check=True)
        self.results.mkdir(parents=True, exist_ok=True)
        with replacing(self.results / f"{name}.jsonl") as unfinished:
            unfinished.write_bytes((scored / "rows.jsonl").read_bytes())


def script(name: str, *arguments: str | int | Path) -> None:
    """Run one of this folder's scripts to its end."""
    subprocess.run([sys.executable, "-m", f"recipes.embedded.{name}", *map(str, arguments)], check=True)


def main() -> None:
    """Reads the command line and makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, MVTec AD layout")
    parser.add_argument("--runs", type=Path, required=True, help="pools (2 GB), checkpoints, models and scored images")
    parser.add_argument("--results", type=Path, required=True, help="rows of what was measured")
    parser.add_argument("--small", action="store_true", help="all of it with next to nothing, to see that it works")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    making = Making(args.data, args.runs, args.results, SMALL if args.small else Extent())
    making.pools()
    making.thresholds()
    for fold in ("A", "B"):
        making.measure_fold(fold)


if __name__ == "__main__":
    main()
