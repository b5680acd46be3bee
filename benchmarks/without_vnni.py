"""What makes a ViT faster where the processor has no 8-bit dot product: each way against eager torch, in turns.

    python -m benchmarks.without_vnni RESULTS.jsonl [--shape S] [--rounds 5] [--minutes 20] [--ways NAME ...]

Any newer processor plays such a one: oneDNN (OpenVINO's and torch's), MKL and torch are held to AVX2 by environment
variables. ONNX Runtime cannot be held, so its rows are measured against an eager torch that is not held either. Each
way is a process of its own with one thread, ended after --minutes; what RESULTS has is not measured again. Weights are
random, images, cosine and map difference are those of `benchmarks.backbone`. That is an unfair test of all that
rests on likeness of tokens (merged ones, a smaller input), either way: real weights make tokens of alike patches alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELD = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
SIZE = 512
EAGER = "eager"


def measure(way: str, shape: str, rounds: int) -> dict[str, object]:
    """Ratio to eager torch, cosine of the last stage's tokens and mean map difference of a way."""
    import numpy as np
    import torch

    from ad_dinov3.data.decode import decode_image
    from ad_dinov3.data.streams import find_images
    from ad_dinov3.export.build import SAMPLES
    from benchmarks.backbone import SHAPES, cosines, normalised, random_head, random_vit
    from benchmarks.vit_ways import BUILDERS, Stages

    torch.set_num_threads(1)
    model = random_vit(shape)
    images = [normalised(decode_image(item.path), SIZE) for item in find_images([str(SAMPLES)])]
    eager = Stages(model, SIZE).eval()

    def plain(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = eager(torch.from_numpy(pixels)).numpy()
            return found

    run = plain if way == EAGER else BUILDERS[way](model, SIZE)
    seconds: dict[str, list[float]] = {"eager": [], "way": []}
    away, alike, head = [], [], random_head(SHAPES[shape][0], "raw")
    for round_ in range(-1, rounds):
        found = {}
        for name, call in (("eager", plain), ("way", run)):
            started = time.process_time()
            found[name] = call(images[round_ % len(images)])
            if round_ >= 0:
                seconds[name].append(time.process_time() - started)
        if round_ >= 0:
            alike.append(cosines(found["eager"][-1], found["way"][-1]).mean())
            away.append(np.abs(head(found["eager"]) - head(found["way"])).mean())
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "ratio": medians["eager"] / medians["way"],
        "eager_s": medians["eager"],
        "cosine": float(np.mean(alike)),
        "map_difference": float(np.mean(away)),
    }


def in_process(way: str, arguments: argparse.Namespace) -> dict[str, object]:
    """A way's figures, or why there are none."""
    from benchmarks.vit_ways import NOT_HELD

    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if way in NOT_HELD else HELD)
    command = [sys.executable, "-m", "benchmarks.without_vnni", str(arguments.results), "--way", way]
    command += ["--shape", arguments.shape, "--rounds", str(arguments.rounds)]
    with tempfile.TemporaryDirectory() as cache:
        try:
            done = subprocess.run(
                command,
                env=environment | {"XDG_CACHE_HOME": cache},
                capture_output=True,
                text=True,
                timeout=60 * arguments.minutes,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"refused": f"not done in {arguments.minutes} minutes"}
    if done.returncode:
        return {"refused": " ".join(done.stderr.strip().splitlines()[-1:])[-200:]}
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(entry: dict[str, object]) -> str:
    """A way's line of the table."""
    if "refused" in entry:
        return f"  {entry['way']:44} refused: {entry['refused']}"
    figures = (entry[key] for key in ("eager_s", "ratio", "cosine", "map_difference"))
    seconds, ratio, cosine, away = (float(str(figure)) for figure in figures)
    return f"  {entry['way']:44} {seconds:7.3f} {ratio:6.2f} {cosine:9.6f} {away:9.6f}"


def main() -> None:
    """Measure what RESULTS lacks, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--shape", choices=("S", "B", "L"), default="S")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.shape, arguments.rounds)))
        return
    from benchmarks.vit_ways import BUILDERS

    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    known = [json.loads(line) for line in lines]
    print(f"ViT-{arguments.shape}/16, {SIZE} px, one thread, {arguments.rounds} rounds, random weights")
    print(f"  {'way':44} {'eager s':>7} {'ratio':>6} {'cosine':>9} {'map diff':>9}")
    for way in arguments.ways or [EAGER, *BUILDERS]:
        entry = next((one for one in known if (one["shape"], one["way"]) == (arguments.shape, way)), None)
        if entry is None:
            entry = {"shape": arguments.shape, "way": way, **in_process(way, arguments)}
            with arguments.results.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        print(row(entry), flush=True)


if __name__ == "__main__":
    main()
