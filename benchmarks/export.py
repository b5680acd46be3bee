"""An exported folder against the model it was made from: first prediction, a folder of JPEGs, memory; in one run.

    ad-dinov3 export embedded -o line
    python benchmarks/export.py line [--model embedded] [--images 300] [--rounds 3]

- first prediction: a fresh process that loads and scores one image, torch and exported in turns.
- folder: images per second of predict over JPEGs, as a share of what the bare session reaches on inputs in memory.
- memory: peak of predict over all images and over a quarter of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.session import Session

SAMPLES = Path(__file__).parents[1] / "src" / "ad_dinov3" / "data" / "samples"
TORCH = "import sys, ad_dinov3; ad_dinov3.load(sys.argv[1], offline=True).predict(sys.argv[2])"
EXPORTED = "import sys; from ad_dinov3.infer.session import Session; Session(sys.argv[1]).predict(sys.argv[2])"
FOLDER = """
import json, resource, sys, time
from pathlib import Path
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.drive import DriveOptions
from ad_dinov3.infer.folder import FolderRun, score_into_folder
from ad_dinov3.infer.session import Session
session = Session(sys.argv[1])
items = list(find_images([sys.argv[2]]))[: int(sys.argv[4])]
run = FolderRun(Path(sys.argv[3]), "exported", session.fingerprint, DriveOptions(threshold=session.config.threshold))
started = time.perf_counter()
summary = score_into_folder(items, session, run)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"images": summary.run.scored, "seconds": seconds, "peak_mb": peak}))
"""


def process_seconds(code: str, *arguments: str) -> tuple[float, float]:
    """Wall-clock and processor seconds of a fresh Python process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def first_prediction(folder: str, model: str, image: str, rounds: int) -> None:
    """Print the seconds from process start to the first prediction."""
    process_seconds(EXPORTED, folder, image)  # both read their files from a warm disk
    process_seconds(TORCH, model, image)
    pairs = [(process_seconds(TORCH, model, image), process_seconds(EXPORTED, folder, image)) for _ in range(rounds)]
    wall, cpu = ([statistics.median(pair[way][kind] for pair in pairs) for way in (0, 1)] for kind in (0, 1))
    print(f"first prediction: torch {wall[0]:.2f} s, exported {wall[1]:.2f} s, {wall[1] / wall[0]:.2f} of it")
    print(f"  processor time: torch {cpu[0]:.2f} s, exported {cpu[1]:.2f} s, {cpu[1] / cpu[0]:.2f} of it")


def bare_speed(folder: str, seconds: float = 3.0) -> float:
    """Images per second of the session on prepared batches of 8."""
    session = Session(folder)
    image = decode_image(next(find_images([str(SAMPLES)])).path)
    batch = np.stack([session.prepare(image)] * 8)
    session.score(batch, ["object"] * 8)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        session.score(batch, ["object"] * 8)
        done += 8
    return done / (time.perf_counter() - started)


def folder_speed(folder: str, images: Path, count: int) -> dict[str, float]:
    """A fresh process's run over ``count`` images."""
    with tempfile.TemporaryDirectory() as out:
        arguments = [sys.executable, "-c", FOLDER, folder, str(images), out, str(count)]
        run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    samples = [item.path for item in find_images([str(SAMPLES)])]
    first_prediction(arguments.folder, arguments.model, str(samples[0]), arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.images):
            source = samples[index % len(samples)]
            shutil.copy(source, Path(folder) / f"{index:04}{source.suffix}")
        before = bare_speed(arguments.folder)
        quarter = folder_speed(arguments.folder, Path(folder), arguments.images // 4)
        whole = folder_speed(arguments.folder, Path(folder), arguments.images)
        bare = (before + bare_speed(arguments.folder)) / 2
    speed = whole["images"] / whole["seconds"]
    print(f"folder: {speed:.1f} images/s, bare session {bare:.1f}, {speed / bare:.0%} of it")
    peaks = [f"{run['peak_mb']:.0f} MB at {run['images']} images" for run in (quarter, whole)]
    print(f"peak memory: {', '.join(peaks)}")


if __name__ == "__main__":
    main()
