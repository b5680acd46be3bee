"""What the detector says of one image, at the image's own size, and what people do with it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ad_dinov3.data.levels import without_equal_channels
from ad_dinov3.errors import ConfigError, MissingExtraError, ScoreError, ShapeError
from ad_dinov3.files import utf8, write_text
from ad_dinov3.infer.areas import score_within
from ad_dinov3.infer.decide import (
    DecisionRule,
    Found,
    Region,
    describe_region,
    find_regions,
    find_with_mask,
    region_masks,
    threshold_mask,
    upsample,
)
from ad_dinov3.infer.image_files import figure_html, write_jpeg, write_map_tiff, write_mask
from ad_dinov3.infer.record import ImageRecord, Record, plain
from ad_dinov3.infer.scorer import RawScore
from ad_dinov3.report.overlay import draw_overlay

if TYPE_CHECKING:
    import supervision as sv

_REGIONS_IN_WORDS = 2


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One image's anomaly map and score.

    Attributes:
        anomaly_map: (H, W) float32 in [0, 1] at the image's own size.
        score: the image score in [0, 1], of what is looked at.
        source: the image's file, or a name for an image that came as an array.
        class_name: the product's name that the prompts were made with.
        threshold: in [0, 1]; scores and map values at or above it are anomalous.
        min_area_px: regions with fewer pixels are dropped from ``mask`` and ``regions``.
        regions_on_normal: an image that is called normal has a mask and regions too.
        p_value: share of good images that look at least as strange, where some have calibrated the model.
        image: (H, W, 3) uint8 RGB, the picture that was looked at; kept by `predict` and its like.
        looked_at: the pixels (H, W) that mask and regions may lie in; None: all of them.

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
    image: NDArray[np.uint8] | None = None
    looked_at: NDArray[np.bool_] | None = None

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
        if threshold is not None:
            return threshold_mask(self._judged, threshold, self.min_area_px)
        return self._found.mask.copy() if self._has_regions else np.zeros(self.size, bool)

    def regions_at(self, threshold: float) -> list[Region]:
        """The connected regions whose map values reach a threshold, highest peak first, whatever the decision."""
        return find_regions(self._judged, threshold, self.min_area_px)

    @cached_property
    def regions(self) -> list[Region]:
        """The connected anomalous regions, highest peak first; none where the image is called normal."""
        return self._found.regions if self._has_regions else []

    @cached_property
    def _found(self) -> Found:
        return find_with_mask(self._judged, self.threshold, self.min_area_px)

    @cached_property
    def _judged(self) -> NDArray[np.float32]:
        """The map where it is looked at, and elsewhere below every threshold."""
        if self.looked_at is None:
            return self.anomaly_map
        return np.where(self.looked_at, self.anomaly_map, np.float32(-1))

    @property
    def _has_regions(self) -> bool:
        return self.is_anomalous or self.regions_on_normal

    def on(self, image: NDArray[np.uint8]) -> Prediction:
        """The same prediction with the picture (H, W, 3) uint8 RGB that it is of."""
        return replace(self, image=image)

    def save(self, directory: str | Path, image: NDArray[np.uint8] | None = None) -> Path:
        """Write ``prediction.json``, ``map.tiff`` and ``mask.png``, and ``overlay.jpg`` if the image is known.

        Args:
            directory: made if it is not there; files in it are replaced, each in one step.
            image: (H, W, 3) uint8 RGB, the picture that the overlay is drawn on; None: the one that was looked at.

        Returns:
            The directory.
        """
        target = Path(directory)
        write_map_tiff(target / "map.tiff", self.anomaly_map)
        write_mask(target / "mask.png", self.mask())
        if image is not None or self.image is not None:
            write_jpeg(target / "overlay.jpg", self.overlay(image))
        write_text(target / "prediction.json", json.dumps(self.to_dict(), indent=2))
        return target

    def overlay(self, image: NDArray[np.uint8] | None = None) -> Image:
        """The anomaly map and the regions' outlines drawn on the picture, above a colour bar.

        Args:
            image: (H, W, 3) uint8 RGB or (H, W) grey; None: the picture that was looked at.

        Raises:
            ConfigError: no picture is given, and none was kept.
        """
        picture = self.image if image is None else image
        if picture is None:
            raise ConfigError(f"{self.source}: the picture was not kept; give it: overlay(image)")
        picture = without_equal_channels(picture)
        polygons = [region.polygon for region in self.regions]
        shown = self.anomaly_map if self.looked_at is None else np.maximum(self._judged, 0)
        return draw_overlay(picture, shown, polygons, score=self.score, threshold=self.threshold)

    def show(self) -> None:
        """Open the overlay in the system's viewer; in a notebook a cell that ends in the prediction shows it."""
        self.overlay().show()

    def record(self, name: str | None = None) -> ImageRecord:
        """Everything but map and picture: the fields of every row and answer; ``name`` instead of the source."""
        height, width = self.size
        return ImageRecord(
            image=self.source if name is None else name,
            decision="anomalous" if self.is_anomalous else "normal",
            score=round(self.score, 6),
            threshold=self.threshold,
            p_value=None if self.p_value is None else round(self.p_value, 6),
            class_name=utf8(self.class_name),
            width=width,
            height=height,
            anomalous_area_px=sum(region.area_px for region in self.regions),
            regions=tuple(self.regions),
        )

    def to_dict(self) -> Record:
        """Everything but map and picture, ready for JSON: name, decision, score, threshold, size and regions."""
        return plain(self.record())

    def to_supervision(self) -> sv.Detections:
        """The regions as Roboflow's ``supervision.Detections``: boxes, masks, peaks as confidence, class 0.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision as sv
        except ImportError as error:
            raise MissingExtraError("supervision", "supervision") from error
        if not self.regions:
            return sv.Detections.empty()
        return sv.Detections(
            xyxy=np.array([region.box for region in self.regions], float),
            mask=region_masks(self.mask(), self.regions),
            confidence=np.array([region.peak for region in self.regions]),
            class_id=np.zeros(len(self.regions), int),
            data={"class_name": np.array(["anomaly"] * len(self.regions))},
        )

    def __repr__(self) -> str:
        height, width = self.size
        found = f"{len(self.regions)} region{'' if len(self.regions) == 1 else 's'}"
        return f"<Prediction {self._words}, {found}, {width} x {height} px>"

    @property
    def _words(self) -> str:
        decision = "anomalous" if self.is_anomalous else "normal"
        return f"{self.source}: {decision}, score {self.score:.3f} at threshold {self.threshold:.3f}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the overlay, or the map on grey if no picture was kept, and the decision in words."""
        picture = self.overlay(self.image if self.image is not None else np.full((*self.size, 3), 128, np.uint8))
        found = [describe_region(region, self.size, self.threshold) for region in self.regions[:_REGIONS_IN_WORDS]]
        return figure_html(picture, "; ".join([self._words, *found]))


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
    anomaly_map = upsample(raw.patch_map, size)
    looked_at = None if rule.areas.is_empty else rule.areas.mask(size)
    return Prediction(
        anomaly_map=anomaly_map,
        score=raw.score if looked_at is None else score_within(raw.score, anomaly_map, looked_at),
        source=source,
        class_name=class_name,
        threshold=rule.threshold,
        min_area_px=rule.area_of(raw.patch_map.shape, size),
        regions_on_normal=rule.regions_on_normal,
        p_value=raw.p_value,
        looked_at=looked_at,
    )
