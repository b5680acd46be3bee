"""What the detector says of one image, at the image's own size, and what people do with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import Region, find_regions, threshold_mask
from ad_dinov3.infer.image_files import write_jpeg, write_map_tiff, write_mask
from ad_dinov3.report.overlay import draw_overlay


@dataclass(frozen=True, eq=False)
class Prediction:
    """One image's anomaly map and score.

    Attributes:
        anomaly_map: (H, W) float32 in [0, 1] at the image's own size.
        score: the image score in [0, 1].
        source: the image's file, or a name for an image that came as an array.
        class_name: the product's name that the prompts were made with.
        threshold: in [0, 1]; scores and map values at or above it are anomalous.
        min_area_px: regions with fewer pixels are dropped from ``mask`` and ``regions``.

    Raises:
        ShapeError: the map is not (H, W) float32.
        ConfigError: the threshold is outside [0, 1].
    """

    anomaly_map: NDArray[np.float32]
    score: float
    source: str
    class_name: str
    threshold: float
    min_area_px: int = 1

    def __post_init__(self) -> None:
        if self.anomaly_map.ndim != 2 or self.anomaly_map.dtype != np.float32:
            found = f"{self.anomaly_map.shape} {self.anomaly_map.dtype}"
            raise ShapeError(f"expected an anomaly map (H, W) float32, got {found}")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"expected a threshold in [0, 1], got {self.threshold}")

    @property
    def size(self) -> tuple[int, int]:
        """The image's size (H, W) in px."""
        height, width = self.anomaly_map.shape
        return height, width

    @property
    def is_anomalous(self) -> bool:
        """Whether the image score reaches the threshold."""
        return self.score >= self.threshold

    def mask(self, threshold: float | None = None) -> NDArray[np.bool_]:
        """The anomalous pixels (H, W) at ``threshold``, or at the prediction's own."""
        level = self.threshold if threshold is None else threshold
        return threshold_mask(self.anomaly_map, level, self.min_area_px)

    def regions_at(self, threshold: float) -> list[Region]:
        """The connected anomalous regions at another threshold, highest peak first."""
        return find_regions(self.anomaly_map, threshold, self.min_area_px)

    @cached_property
    def regions(self) -> list[Region]:
        """The connected anomalous regions at the prediction's threshold, highest peak first."""
        return self.regions_at(self.threshold)

    def save(self, directory: str | Path, image: NDArray[np.uint8] | None = None) -> Path:
        """Write ``prediction.json``, ``map.tiff`` and ``mask.png``, and ``overlay.jpg`` if the image is given.

        Args:
            directory: made if it is not there; files in it are replaced, each in one step.
            image: (H, W, 3) uint8 RGB, the picture that the overlay is drawn on.

        Returns:
            The directory.
        """
        target = Path(directory)
        write_map_tiff(target / "map.tiff", self.anomaly_map)
        write_mask(target / "mask.png", self.mask())
        if image is not None:
            write_jpeg(target / "overlay.jpg", self.overlay(image))
        write_text(target / "prediction.json", json.dumps(self.summary(), indent=2))
        return target

    def overlay(self, image: NDArray[np.uint8]) -> Image:
        """The anomaly map and the regions' outlines drawn on ``image`` (H, W, 3) uint8 RGB, above a colour bar."""
        polygons = [region.polygon for region in self.regions]
        return draw_overlay(image, self.anomaly_map, polygons, score=self.score, threshold=self.threshold)

    def summary(self) -> dict[str, object]:
        """Everything but the map, ready for JSON: source, class, score, threshold, decision, size and regions."""
        height, width = self.size
        return {
            "image": self.source,
            "class_name": self.class_name,
            "score": round(self.score, 6),
            "threshold": self.threshold,
            "decision": "anomalous" if self.is_anomalous else "normal",
            "width": width,
            "height": height,
            "regions": [asdict(region) for region in self.regions],
        }
