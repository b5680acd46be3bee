"""From patch maps to files at 1, 5 and 12 megapixels: this package's way against the naive one, in one run.

    python benchmarks/pipeline.py [--rounds 3] [--megapixels 1 5 12]

Naive: four stage maps enlarged one by one with torch, their mean smoothed with scipy at the image's size, a colour
overlay in floats, written as PNG at level 6. Ours: the mean and the smoothing on the patch grid, one enlarging, the
package's overlay, written as JPEG; and the float map, uncompressed, beside it. Processor seconds, medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.image_files import write_jpeg, write_map_tiff
from ad_dinov3.report.overlay import draw_overlay

GRID, SIGMA_PX, INPUT_PX = 32, 4.0, 512


def naive(stages: NDArray[np.float32], image: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Four upsamplings, scipy's Gaussian at full size, a float overlay, PNG at level 6."""
    size = image.shape[:2]
    maps = [
        torch.nn.functional.interpolate(torch.from_numpy(one)[None, None], size, mode="bilinear")[0, 0].numpy()
        for one in stages
    ]
    smooth = gaussian_filter(np.mean(maps, axis=0), SIGMA_PX * size[1] / INPUT_PX)
    colour = np.stack([smooth, 1 - np.abs(2 * smooth - 1), 1 - smooth], axis=2) * 255
    Image.fromarray((0.5 * image + 0.5 * colour).astype(np.uint8)).save(folder / "naive.png", compress_level=6)
    return smooth


def ours(stages: NDArray[np.float32], image: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """What predict does: mean and Gaussian on the grid, one enlarging, overlay as JPEG, map as float TIFF."""
    smooth = gaussian_filter(stages.mean(0), SIGMA_PX * GRID / INPUT_PX)
    whole = upsample(smooth, (image.shape[0], image.shape[1]))
    write_map_tiff(folder / "map.tiff", whole)
    write_jpeg(folder / "overlay.jpg", draw_overlay(image, whole, [], score=0.5, threshold=0.5))
    return whole


def timed(
    way: Callable[[NDArray[np.float32], NDArray[np.uint8], Path], NDArray[np.float32]],
    stages: NDArray[np.float32],
    image: NDArray[np.uint8],
) -> float:
    """Processor seconds of one call."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        way(stages, image, Path(folder))
        return time.process_time() - started


def main() -> None:
    """Print one row per image size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[1, 5, 12])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    noise = np.random.default_rng(0)
    stages = noise.random((4, GRID, GRID)).astype(np.float32)
    print(f"{'image':>12} {'naive s':>8} {'ours s':>8} {'speed':>7}")
    for megapixels in arguments.megapixels:
        height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
        width = round(height * 4 / 3)
        waves = np.sin(np.arange(height)[:, None, None] / 40 + np.arange(width)[None, :, None] / (30, 50, 70))
        image = np.clip(128 + 90 * waves + noise.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)
        rounds = [(timed(naive, stages, image), timed(ours, stages, image)) for _ in range(arguments.rounds)]
        slow, fast = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{width}x{height:<7} {slow:8.3f} {fast:8.3f} {slow / fast:6.1f}x")


if __name__ == "__main__":
    main()
