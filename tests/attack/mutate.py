"""A folder of mutated images and every bomb through one `ad-dinov3 predict`, and whether anything broke.

    python tests/attack/mutate.py --count 10000 --seed 0 --out DIR

Every file must be scored or named with its reason, the exit code be 3, nobody see a traceback, and the largest resident
memory stay below 2 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import images


def fill(folder: Path, count: int, seed: int) -> int:
    """Write mutants, bombs and sparse files into a folder; their number."""
    folder.mkdir(parents=True)
    for name, content in images.mutants(count, seed):
        (folder / name).write_bytes(content)
    bombs = images.bombs()
    for name, make in bombs.items():
        (folder / f"bomb-{name}").write_bytes(make())
    heads = {"png": b"\x89PNG\r\n\x1a\n", "jpg": b"\xff\xd8\xff\xe0", "tif": b"II*\0\x08\0\0\0", "bmp": bytes(16)}
    for suffix, head in heads.items():
        with (folder / f"sparse.{suffix}").open("wb") as file:
            file.write(head)
            file.truncate(6 << 30)
    return count + len(bombs) + len(heads)


def main() -> int:
    """Run it; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    arguments = parser.parse_args()
    files = fill(arguments.out / "images", arguments.count, arguments.seed)
    started = time.perf_counter()
    command = [sys.executable, "-m", "ad_dinov3", "predict", str(arguments.out / "images")]
    done = subprocess.run([*command, "-o", str(arguments.out / "results")], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    lines = (arguments.out / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    decisions = Counter(json.loads(line)["decision"] for line in lines)
    has_traceback = "Traceback" in done.stdout + done.stderr
    sys.stdout.write(
        f"{files:,} files: {sum(decisions.values()):,} rows, {dict(decisions)}, exit code {done.returncode}, "
        f"traceback: {has_traceback}, {peak_gb:.2f} GB, {seconds:.0f} s\n"
    )
    held = sum(decisions.values()) == files and done.returncode == 3 and not has_traceback and peak_gb < 2
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
