"""What the service answers, as it stands in /openapi.json."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Decision = Literal["anomalous", "normal"]


class Answer(BaseModel):
    """Part of an answer; nothing but what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RegionAnswer(Answer):
    """One connected set of pixels whose map values reach the threshold."""

    box: tuple[int, int, int, int] = Field(description="x0, y0, x1, y1 in px, x1 and y1 exclusive")
    area_px: int
    peak: float = Field(description="largest value of the map inside, in [0, 1]")
    mean: float = Field(description="mean value of the map inside, in [0, 1]")
    centroid: tuple[float, float] = Field(description="x, y in px, pixel centres at .5")
    elongation: float = Field(description="length over width, at least 1")
    polygon: tuple[tuple[int, int], ...] = Field(description="outer outline as corners x, y between pixels")


class PredictionAnswer(Answer):
    """Score, decision and regions of an image, the region with the highest peak first."""

    image: str = Field(description="the name that the image came with")
    model: str
    class_name: str
    score: float = Field(description="in [0, 1]")
    threshold: float = Field(description="in [0, 1]; scores and map values from here on are anomalous")
    decision: Decision
    p_value: float | None = Field(
        description="share of good images that look at least as strange, where some have calibrated the model"
    )
    width: int
    height: int
    regions: tuple[RegionAnswer, ...]
    findings: tuple[str, ...] = Field(description="each region in words")
    overlay: str | None = Field(None, description="JPEG in base64, where it was asked for")


class FailureAnswer(Answer):
    """An image of a batch that has no prediction, and why."""

    image: str = Field(description="the name that the image came with")
    error: str


class BatchAnswer(Answer):
    """One result for each image, in the order in which they came."""

    results: tuple[PredictionAnswer | FailureAnswer, ...]
    anomalous: int
    normal: int
    failed: int


class ModelAnswer(Answer):
    """A model that is being served."""

    name: str
    source: str = Field(description="what it was opened from")
    method: str
    fingerprint: str = Field(description="equal fingerprints give equal maps")
    threshold: float
    normal_classes: tuple[str, ...] = Field(description="classes that it has normal images of")
    promises: dict[str, str] = Field(description="what is promised of false alarms, for each calibrated class")


class NormalsAnswer(Answer):
    """The normal images that all models compare with."""

    class_name: str
    images: tuple[str, ...]
    promises: dict[str, str] = Field(description="what each model then promises of false alarms")


class HealthAnswer(Answer):
    """What is being served; the first model answers where a request names none."""

    status: Literal["ok"] = "ok"
    version: str
    models: tuple[ModelAnswer, ...]


class ErrorAnswer(Answer):
    """Why a request has no other answer."""

    detail: str
