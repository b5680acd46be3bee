"""A small labelled data set on disk and detectors of a few lines, so that the bench is tested without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.bench.rows import MetricRow
from ad_dinov3.bench.run import Subject
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.infer.scorer import RawScores

GRID = 16


class BrightnessDetector:
    """Calls bright patches anomalous; counts what it was asked, and can be told to stop."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.scored = 0
        self.words: list[str] = []
        self._fail_after = fail_after

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_image(image, (GRID * 4, GRID * 4), "bilinear")

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        if self._fail_after is not None and self.scored + len(batch) > self._fail_after:
            raise KeyboardInterrupt
        self.scored += len(batch)
        self.words += class_names
        grey = batch.mean(axis=1).reshape(len(batch), GRID, 4, GRID, 4).mean(axis=(2, 4)) / 255
        return RawScores(grey.astype(np.float32), grey.max(axis=(1, 2)).astype(np.float32))


def write_sample(root: Path, class_name: str, defect: str, index: int, rng: np.random.Generator) -> None:
    """One noisy grey image; a defect is a brighter square with its mask."""
    pixels = rng.integers(60, 140, (48, 64), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    if defect != "good":
        y, x = rng.integers(4, 30), rng.integers(4, 40)
        mask[y : y + 14, x : x + 14] = 255
        pixels[mask > 0] += np.uint8(70)
        truth = root / class_name / "ground_truth" / defect
        truth.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(truth / f"{index:03}_mask.png")
    folder = root / class_name / "test" / defect
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(pixels[:, :, None], 3, axis=2)).save(folder / f"{index:03}.png")


def write_toy(root: Path) -> Path:
    """Two classes: nuts with normal and scratched images, tissue with anomalous images only."""
    rng = np.random.default_rng(0)
    for index in range(4):
        write_sample(root, "metal_nut", "good", index, rng)
        write_sample(root, "metal_nut", "scratch", 10 + index, rng)
        write_sample(root, "tissue", "lesion", 20 + index, rng)
    return root


def subject_with(detector: BrightnessDetector, **changes: object) -> Subject:
    """A subject around a detector; changes replace its fields."""
    fields: dict[str, object] = {
        "method": "brightness",
        "model": "brightness",
        "weights_hash": "b0b0",
        "input_size": (64, 64),
        "interpolation": "bilinear",
    }
    return Subject(detector, **(fields | changes))  # type: ignore[arg-type]


def make_row(**changes: object) -> MetricRow:
    """A row with plausible fields; changes replace them."""
    fields: dict[str, object] = {
        "method": "ad_dinov3",
        "model": "run1",
        "weights_hash": "aaaa",
        "trained_on": ("visa",),
        "training_seed": 0,
        "input_size": (512, 512),
        "interpolation": "bilinear",
        "data": "mvtec_ad",
        "data_hash": "d0",
        "scope": "mean",
        "class_name": "",
        "metric": "pixel_auroc",
        "value": 0.92,
        "low": 0.91,
        "high": 0.93,
        "level": 0.95,
        "threshold": None,
        "images": 1725,
        "anomalous_images": 1258,
        "pixels": 452198400,
        "regions": 1888,
        "classes": 15,
        "estimator": "exact",
        "protocol": "paper",
        "protocol_hash": "p0",
        "seconds": 12.5,
        "peak_memory_mb": 900.0,
        "device": "cpu",
        "versions": "python 3.11",
        "commit": None,
    }
    return MetricRow(**(fields | changes))  # type: ignore[arg-type]
