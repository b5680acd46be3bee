"""What the detector says of one image, at the image's own size, and what people do with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ad_dinov3.data.pixels import ImageSource, as_rgb
from ad_dinov3.errors import ConfigError, ScoreError, ShapeError
from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import DecisionRule, Region, find_regions, threshold_mask, upsample
from ad_dinov3.infer.image_files import write_jpeg, write_map_tiff, write_mask
from ad_dinov3.infer.scorer import RawScore, Scorer
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
        regions_on_normal: an image that is called normal has a mask and regions too.
        p_value: share of good images that look at least as strange, where some have calibrated the model.

    Raises:
        ShapeError: the map is not (H, W) float32.
        ScoreError: the map or the score holds NaN or infinity.
        ConfigError: the threshold is outside [0, 1].
    """

    anomaly_map: NDArray[np.float32]
    score: float
    source: str
    class_name: str
    threshold: float
    min_area_px: int = 1
    regions_on_normal: bool = False
    p_value: float | None = None

    def __post_init__(self) -> None:
        if self.anomaly_map.ndim != 2 or self.anomaly_map.dtype != np.float32:
            found = f"{self.anomaly_map.shape} {self.anomaly_map.dtype}"
            raise ShapeError(f"expected an anomaly map (H, W) float32, got {found}")
        if not math.isfinite(self.score) or not math.isfinite(float(self.anomaly_map.sum())):
            raise ScoreError(f"{self.source}: the map or the score holds NaN or infinity")
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
        """The pixels (H, W) whose map value reaches ``threshold``.

        Without a threshold, the mask of the decision: at the prediction's own threshold, and empty where the image is
        called normal.
        """
        if threshold is None and not self._has_regions:
            return np.zeros(self.size, bool)
        return threshold_mask(self.anomaly_map, self.threshold if threshold is None else threshold, self.min_area_px)

    def regions_at(self, threshold: float) -> list[Region]:
        """The connected regions whose map values reach a threshold, highest peak first, whatever the decision."""
        return find_regions(self.anomaly_map, threshold, self.min_area_px)

    @cached_property
    def regions(self) -> list[Region]:
        """The connected anomalous regions, highest peak first; none where the image is called normal."""
        return self.regions_at(self.threshold) if self._has_regions else []

    @property
    def _has_regions(self) -> bool:
        return self.is_anomalous or self.regions_on_normal

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
            "p_value": None if self.p_value is None else round(self.p_value, 6),
            "width": width,
            "height": height,
            "regions": [asdict(region) for region in self.regions],
        }


def conclude(
    raw: RawScore, size: tuple[int, int], rule: DecisionRule, source: str, class_name: str = "object"
) -> Prediction:
    """The last step of every way to score an image: the map at the image's own size, and the decision.

    Args:
        raw: the model's answer.
        size: the image's (H, W) in px.
        rule: what makes an image anomalous, and outlines where.
        source: the image's file, or a name for it.
        class_name: the product's name that the prompts were made with.
    """
    return Prediction(
        anomaly_map=upsample(raw.patch_map, size),
        score=raw.score,
        source=source,
        class_name=class_name,
        threshold=rule.threshold,
        min_area_px=rule.area_of(raw.patch_map.shape, size),
        regions_on_normal=rule.regions_on_normal,
        p_value=raw.p_value,
    )


def predict_images(
    scorer: Scorer, images: Sequence[ImageSource], rule: DecisionRule, class_name: str
) -> list[Prediction]:
    """Predictions for images of any kinds and sizes, scored in one batch.

    Raises:
        ImageError: a file cannot be decoded.
        ShapeError: an array or tensor has another shape or type.
        ScoreError: the model answers with NaN, infinity or a value outside [0, 1].
    """
    if not images:
        return []
    arrays = [as_rgb(image) for image in images]
    raw = scorer.score(np.stack([scorer.prepare(array) for array in arrays]), [class_name] * len(arrays))
    return [
        conclude(raw.row(row), array.shape[:2], rule, _name(image, row), class_name)
        for row, (image, array) in enumerate(zip(images, arrays, strict=True))
    ]


def _name(image: ImageSource, row: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {row}"
