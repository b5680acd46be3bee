"""Ten epochs from the feature cache, its making included, against encoding at every step: the ratio, in one run.

    python benchmarks/train_cache.py [--sizes S B L] [--images 24] [--preset released] [--data FOLDER]

Both ways run the same loop with the same loss at the input's size (512 px), on the same images, with random weights of
the public shapes. The preset is the authors' own training unless another is named; a heavier head gains less, since
the cache saves the encoder's work alone. The way without the cache does the same work in every epoch, so one of its
epochs is timed and counted ten times. Times are processor seconds of this process; wall seconds are beside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.model import new_model
from ad_dinov3.training.loop import RunOptions, train
from ad_dinov3.training.output import LOG
from ad_dinov3.types import Sample

EPOCHS = 10
SHAPES = {"S": (384, 12, 6, 1536), "B": (768, 12, 12, 3072), "L": (1024, 24, 16, 4096)}  # width, depth, heads, MLP


@dataclass(frozen=True)
class Seconds:
    """Processor and wall seconds of one piece of work."""

    cpu: float
    wall: float


def random_weights(size: str, folder: Path) -> Path:
    """A folder with random weights of a public shape."""
    width, depth, heads, hidden = SHAPES[size]
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        num_register_tokens=4,
    )
    DINOv3ViTModel(config).save_pretrained(folder / size)
    return folder / size


def generated_samples(folder: Path, count: int) -> list[Sample]:
    """Noise images with a bright square each, 512 px."""
    rng = np.random.default_rng(0)
    for part in ("test/square", "ground_truth/square"):
        (folder / "tile" / part).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros((512, 512), np.uint8)
        mask[100 + index : 200, 100:300] = 255
        image = rng.integers(0, 200, (512, 512, 3), dtype=np.uint8)
        image[mask > 0] = 250
        Image.fromarray(image).save(folder / "tile" / "test" / "square" / f"{index}.png")
        Image.fromarray(mask).save(folder / "tile" / "ground_truth" / "square" / f"{index}_mask.png")
    return read_folder(folder)


def timed_training(config: ModelConfig, samples: list[Sample], out: Path, cache: bool) -> Seconds:
    """Train a new model; loading the weights is not counted, since both ways do it once."""
    model = new_model(config)
    cpu, wall = time.process_time(), time.perf_counter()
    train(model, samples, out, RunOptions(cache=cache))
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def first_losses(folder: Path, steps: int) -> list[float]:
    """The total loss of the first steps."""
    return [json.loads(line)["total"] for line in (folder / LOG).read_text().splitlines()[:steps]]


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--preset", choices=PRESETS, default="released")
    parser.add_argument("--data", type=Path, help="a folder in MVTec AD's shape; without it, generated images")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    os.environ["AD_DINOV3_CACHE"] = str(work / "cache")
    samples = read_folder(arguments.data) if arguments.data else generated_samples(work / "data", arguments.images)
    anomalous = [sample for sample in samples if sample.is_anomalous][: arguments.images]
    print(
        f"{len(anomalous)} images at 512 px, {EPOCHS} epochs, {torch.get_num_threads()} threads, load {os.getloadavg()}"
    )
    for size in arguments.sizes:
        weights = random_weights(size, work)
        changes = {
            "encoder": str(weights),
            "method.prompts.source": "learned",
            "train.epochs": EPOCHS,
            "train.batch_size": 8,
        }
        config = PRESETS[arguments.preset].with_settings(changes)
        cached = timed_training(config, anomalous, work / "cached", cache=True)
        live = timed_training(config.with_settings({"train.epochs": 1}), anomalous, work / "live", cache=False)
        steps = -(-len(anomalous) // 8)
        gap = np.max(np.abs(np.subtract(first_losses(work / "cached", steps), first_losses(work / "live", steps))))
        print(
            f"ViT-{size}: cached {cached.cpu:.1f} s cpu ({cached.wall:.1f} s wall), "
            f"encoding at every step {EPOCHS * live.cpu:.1f} s cpu ({EPOCHS * live.wall:.1f} s wall): "
            f"{EPOCHS * live.cpu / cached.cpu:.2f}x cpu, {EPOCHS * live.wall / cached.wall:.2f}x wall; "
            f"first epoch's losses differ by at most {gap:.1e} (half precision on disk)"
        )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
