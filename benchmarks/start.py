"""What the embedded model costs before and at an image: load() against `import torch` alone, its encoder and its head.

    python benchmarks/start.py [--before CHECKOUT/src] [--rounds 5]

Each row is a process of its own with one thread; rows take turns. Processor seconds, user and system, of whole
processes for the first two, and within one for the encoder and the head: milliseconds an image of 256 px, batch 8,
the least of twelve passes. The least of all rounds is printed, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

_WHOLE = "import os, time; print(sum(os.times()[:2]))"
_TORCH = f"import torch\n{_WHOLE}"
_LOAD = f"import ad_dinov3; ad_dinov3.load()\n{_WHOLE}"
_PARTS = """
import time, numpy as np, torch, ad_dinov3
torch.set_num_threads(1)
model = ad_dinov3.load().model
batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 256, 256), np.uint8))
features = model.encoder.encode(batch)
encoder, head = [], []
for _ in range(12):
    times = [time.process_time()]
    model.encoder.encode(batch)
    times.append(time.process_time())
    model.head.score(features, ["object"] * 8)
    times.append(time.process_time())
    encoder.append(times[1] - times[0])
    head.append(times[2] - times[1])
print(1e3 * min(encoder) / 8, 1e3 * min(head) / 8)
"""


def figures(source: Path, code: str) -> list[float]:
    """What a process prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"{source}: a process ended with {done.returncode}")
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Print one line for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the folder src of another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sources = {"this": Path(__file__).parents[1] / "src"}
    if arguments.before:
        sources["before"] = arguments.before.absolute()
    started = time.perf_counter()
    rounds = [
        {
            name: (*figures(source, _TORCH), *figures(source, _LOAD), *figures(source, _PARTS))
            for name, source in sources.items()
        }
        for _ in range(arguments.rounds)
    ]
    print(f"{arguments.rounds} rounds in {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}")
    for name in sources:
        torch, load, encoder, head = (min(column) for column in zip(*(row[name] for row in rounds), strict=True))
        ratio = statistics.median(row[name][1] / row[name][0] for row in rounds)
        print(
            f"{name:>7}: import torch {torch:.2f} s, load() {load:.2f} s, {ratio:.2f} of it; "
            f"encoder {encoder:.1f} ms, head {head:.1f} ms an image"
        )


if __name__ == "__main__":
    main()
