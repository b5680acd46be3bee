"""An exported folder against the model it was made from, and against the bare machine; each part in one run.

    ad-dinov3 export embedded -o line
    python benchmarks/export.py line [--parts help first folder loaded huge] [--data IMAGES] [--images 300] [--rounds 3]
    python benchmarks/export.py --random-vit S --parts folder loaded --data IMAGES

- help: ``ad-dinov3 --help`` against ``python -c pass``.
- first: a fresh process that loads and scores one image, torch and exported in turns.
- folder: images per second of predict over real images, with all outputs and with the tables and the report alone, as
  a share of what the bare session reaches on inputs in memory; processor time beside it; peak memory of all images and
  of a quarter of them.
- loaded: latency on two threads over that on one, with every core kept busy by another process.
- huge: peak memory of a 100-megapixel image, in tiles of 512 px.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ad_dinov3.assets import SAMPLES
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.session import Session

TORCH = "import sys, ad_dinov3; ad_dinov3.load(sys.argv[1], offline=True).predict(sys.argv[2])"
EXPORTED = "import sys; from ad_dinov3.infer.session import Session; Session(sys.argv[1]).predict(sys.argv[2])"
HELP = "from ad_dinov3.cli import main; main()"
FOLDER = """
import json, resource, sys, time
from pathlib import Path
from ad_dinov3.data.streams import find_images
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.infer.session import Session
from ad_dinov3.infer.tiles import Tiled
session = Session(sys.argv[1])
scorer = Tiled(session, session.config.input.size, 512) if sys.argv[6] == "tiles" else session
items = list(find_images([sys.argv[2]]))[: int(sys.argv[4])]
outputs = Outputs() if sys.argv[5] == "all" else Outputs(overlays=False, masks=False, maps="none")
options = DriveOptions(rule=DecisionRule(session.config.threshold))
cpu, started = time.process_time(), time.perf_counter()
run = FolderRun(Path(sys.argv[3]), "exported", session.fingerprint, options, outputs)
summary = score_into_folder(items, scorer, run)
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"images": summary.run.scored, "seconds": seconds, "cpu": cpu, "peak_mb": peak}))
"""


def process_seconds(code: str, *arguments: str) -> tuple[float, float]:
    """Wall-clock and processor seconds of a fresh Python process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def compared(
    name: str, base: Callable[[], tuple[float, float]], other: Callable[[], tuple[float, float]], n: int
) -> None:
    """Print medians of wall-clock and processor seconds of two ways, in turns after one of each."""
    base(), other()
    pairs = [(base(), other()) for _ in range(n)]
    for kind, words in enumerate(("wall", "processor")):
        slow, fast = (statistics.median(pair[way][kind] for pair in pairs) for way in (0, 1))
        print(f"{name}, {words} time: {slow:.3f} s and {fast:.3f} s, {fast / slow:.2f} of it")


def bare_speed(folder: str, seconds: float = 5.0) -> tuple[float, float]:
    """Images per second, and processor seconds per image, of the session on prepared batches of 8."""
    session = Session(folder)
    image = decode_image(next(find_images([str(SAMPLES)])).path)
    batch = np.stack([session.prepare(image)] * 8)
    session.score(batch, ["object"] * 8)
    cpu, started, done = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        session.score(batch, ["object"] * 8)
        done += 8
    return done / (time.perf_counter() - started), (time.process_time() - cpu) / done


def folder_run(folder: str, images: Path, count: int, outputs: str = "all", tiles: str = "whole") -> dict[str, float]:
    """A fresh process's run over ``count`` images."""
    with tempfile.TemporaryDirectory() as out:
        arguments = [sys.executable, "-c", FOLDER, folder, str(images), out, str(count), outputs, tiles]
        run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def folder_speed(folder: str, images: Path, count: int) -> None:
    """Print the share of the bare session's speed that predict reaches, and its memory."""
    for outputs in ("all", "tables"):
        before = bare_speed(folder)
        whole = folder_run(folder, images, count, outputs)
        after = bare_speed(folder)
        bare, bare_cpu = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
        speed, cpu = whole["images"] / whole["seconds"], whole["cpu"] / whole["images"]
        print(f"folder of {whole['images']:.0f}, outputs {outputs}: {speed:.1f} images/s, bare session {bare:.1f}")
        print(
            f"  {speed / bare:.0%} of it; processor ms {1e3 * cpu:.1f} and {1e3 * bare_cpu:.1f}, {bare_cpu / cpu:.0%}"
        )
        if outputs == "all":
            quarter = folder_run(folder, images, count // 4)
            peaks = [f"{run['peak_mb']:.0f} MB at {run['images']:.0f} images" for run in (quarter, whole)]
            print(f"  peak memory: {', '.join(peaks)}")


def loaded(folder: str, rounds: int) -> None:
    """Print latency on one thread and on two while every core runs another process too."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        sessions = [Session(folder, mode="latency", threads=threads) for threads in (1, 2)]
        image = sessions[0].prepare(decode_image(next(find_images([str(SAMPLES)])).path))[None]
        taken: list[list[float]] = [[], []]
        for round_ in range(-2, 10 * rounds):
            for session, seconds in zip(sessions, taken, strict=True):
                started = time.perf_counter()
                session.score(image, ["object"])
                if round_ >= 0:
                    seconds.append(time.perf_counter() - started)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    one, two = (1e3 * statistics.median(seconds) for seconds in taken)
    print(f"loaded machine: one thread {one:.1f} ms, two threads {two:.1f} ms, {two / one:.2f} of it")


def huge(folder: str) -> None:
    """Print the peak memory of one image of 10000x10000 px, in tiles of 512 px."""
    with tempfile.TemporaryDirectory() as images:
        waves = (128 + 60 * np.sin(np.arange(10_000) / 90)).astype(np.uint8)
        Image.fromarray(np.broadcast_to(waves, (10_000, 10_000))).convert("RGB").save(Path(images) / "huge.jpg")
        run = folder_run(folder, Path(images), 1, "all", "tiles")
    print(f"100 megapixels in tiles of 512 px: {run['seconds']:.1f} s, peak memory {run['peak_mb']:.0f} MB")


def random_vit_folder(shape: str, into: Path) -> str:
    """An exported folder of the untrained baseline over a ViT of a public shape with random weights, 512 px."""
    from ad_dinov3.config import ModelConfig
    from ad_dinov3.export.build import ExportOptions, export_model
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.methods.table import borrowing
    from ad_dinov3.model import new_model
    from backbone import random_vit

    random_vit(shape).save_pretrained(into / "vit")
    settings = ModelConfig().with_settings({"encoder": str(into / "vit")})
    detector = Detector(new_model(borrowing("dinov3_plain", settings)), offline=True)
    export_model(detector, f"random {shape}", into / "line", ExportOptions("openvino"))
    return str(into / "line")


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--random-vit", choices=["S", "B", "L"])
    parser.add_argument("--parts", nargs="+", default=["help", "first", "folder", "loaded", "huge"])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=SAMPLES)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sample = str(next(find_images([str(SAMPLES)])).path)
    with tempfile.TemporaryDirectory() as scratch:
        vit = arguments.random_vit
        folder = random_vit_folder(vit, Path(scratch)) if vit else arguments.folder
        measure(folder, sample, Path(scratch) / "images", arguments)


def measure(folder: str, sample: str, images: Path, arguments: argparse.Namespace) -> None:
    """Print the parts of one exported folder."""
    parts, rounds = arguments.parts, arguments.rounds
    if "help" in parts:
        compared(
            "--help over pass", lambda: process_seconds("pass"), lambda: process_seconds(HELP, "--help"), 5 * rounds
        )
    if "first" in parts:
        torch_first = lambda: process_seconds(TORCH, arguments.model, sample)  # noqa: E731
        compared("first prediction", torch_first, lambda: process_seconds(EXPORTED, folder, sample), rounds)
    if "folder" in parts:
        images.mkdir()
        sources = [item.path for item in find_images([str(arguments.data)])]
        for index in range(arguments.images):
            source = sources[index * len(sources) // arguments.images]
            shutil.copy(source, images / f"{index:04}{source.suffix}")
        folder_speed(folder, images, arguments.images)
    if "loaded" in parts:
        loaded(folder, rounds)
    if "huge" in parts:
        huge(folder)


if __name__ == "__main__":
    main()
