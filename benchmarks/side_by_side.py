"""The methods that look at other images, side by side: the same images, normal images and encoder, whole commands.

    python benchmarks/side_by_side.py DATA --out DIR [--images 40]

DATA holds sets in the MVTec AD layout. Of each set at most so many normal and so many anomalous images are measured,
and eight normal ones of eight groups (`references.GROUP_PARTS`) are given, whose groups leave the test. Each line is
`ad-dinov3 evaluate` with the embedded encoder; the shipped head has seen five of these sets, which only the lines of
ad_dinov3 can gain from. A run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from references import GROUP_PARTS

SETS = ["aws_cookies", "bsdata", "mtd", "busi", "lgg_mri", "mvtec_toothbrush", "mpdd_metal_plate"]
SHOTS = 8
LINES = {
    "ad_dinov3, zero-shot": (),
    "ad_dinov3 --normals 8": ("--normals", str(SHOTS)),
    "anomalydino --normals 8": ("--method", "anomalydino", "--normals", str(SHOTS)),
    "subspacead --normals 8": ("--method", "subspacead", "--normals", str(SHOTS)),
    "ad_dinov3 --compare folder": ("--compare", "folder"),
    "musc --compare folder": ("--method", "musc", "--compare", "folder"),
}


def sample(source: Path, target: Path, most: int) -> None:
    """Link a part of a set, with eight normal images of other groups as ``train/good``."""
    category = next(path for path in sorted(source.iterdir()) if path.is_dir())
    draw, parts = np.random.default_rng(0), GROUP_PARTS.get(source.name, slice(None))
    good = draw.permutation(sorted([*category.glob("test/good/*"), *category.glob("train/good/*")])).tolist()
    groups = {path: "_".join(path.stem.split("_")[parts]) for path in good}
    given = list({groups[path]: path for path in reversed(good)}.values())[-SHOTS:]
    shown = {groups[path] for path in given}
    tested = [path for path in good if groups[path] not in shown][:most]
    bad = draw.permutation(sorted(p for p in category.glob("test/*/*") if p.parent.name != "good")).tolist()[:most]
    home = target / category.name
    for kind, paths in (("train/good", given), ("test/good", tested)):
        for path in paths:
            _link(path, home / kind / path.name)
    for path in bad:
        _link(path, home / "test" / path.parent.name / path.name)
        mask = category / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        _link(mask, home / "ground_truth" / path.parent.name / mask.name)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.absolute())


def measured(data: Path, out: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Image and pixel AUROC."""
    command = [sys.executable, "-m", "ad_dinov3", "evaluate", "--data", str(data), "--out", str(out), *options]
    subprocess.run([*command, "--seed", "0"] if "--normals" in options else command, check=True, stdout=sys.stderr)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    values = {row["metric"]: row["value"] for row in rows}
    return values["image_auroc"], values["pixel_auroc"]


def main() -> None:
    """Print a table in Markdown: image / pixel AUROC."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--sets", nargs="+", default=SETS)
    args = parser.parse_args()
    for name in args.sets:
        sample(args.data / name, args.out / "data" / name, args.images)
    print(f"| | {' | '.join(args.sets)} | mean |", "|---" * (len(args.sets) + 2) + "|", sep="\n")
    for line, options in LINES.items():
        out = args.out / line.replace(" ", "_").replace(",", "")
        pairs = [measured(args.out / "data" / s, out / s, ("--seen-too", "--offline", *options)) for s in args.sets]
        cells = [f"{image:.3f} / {pixel:.3f}" for image, pixel in [*pairs, tuple(np.mean(pairs, axis=0))]]
        print(f"| {line} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
