"""A detector without a model: how far each patch lies from the image's median grey, deterministic and fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ad_dinov3.infer.areas import ALL_OF_IT
from ad_dinov3.infer.scorer import RawScores

GRID = 16
SIDE = 64


class ToyDetector:
    """Counts the images of each call; ``nan_above`` makes maps of brighter images NaN."""

    method = "toy"
    normal_classes = ()
    promises: ClassVar[dict[str, str]] = {}
    areas = ALL_OF_IT

    def __init__(self, nan_above: float = 256.0) -> None:
        self.batches: list[int] = []
        self._nan_above = nan_above

    @property
    def threshold(self) -> float:
        return float(self.config.threshold)  # type: ignore[attr-defined]  # tests set it

    def seen_through(self, view: object) -> ToyDetector:
        return self

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        assert len(class_names) == len(batch)
        self.batches.append(len(batch))
        grey = batch.astype(np.float32).mean(axis=1)
        cells = grey.reshape(len(batch), GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(2, 4))
        median = np.median(cells, axis=(1, 2), keepdims=True)
        maps = (np.abs(cells - median) / 255).astype(np.float32)
        maps[median[:, 0, 0] > self._nan_above] = np.nan
        return RawScores(maps, maps.max(axis=(1, 2)))


def draw_part(path: Path, size: tuple[int, int] = (96, 80), blemish: bool = False) -> Path:
    """A grey part of ``size`` (width, height) on disk, with a white square at its lower right if it has a blemish."""
    picture = Image.new("RGB", size, (60, 60, 60))
    if blemish:
        width, height = size
        ImageDraw.Draw(picture).rectangle(
            [width * 5 // 8, height * 5 // 8, width * 7 // 8 - 1, height * 7 // 8 - 1], "white"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path
