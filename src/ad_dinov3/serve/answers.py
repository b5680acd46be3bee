"""What the service answers, as it stands in /openapi.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ad_dinov3.infer.record import ImageRecord, Reduction


class Answer(BaseModel):
    """Part of an answer; nothing but what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class PredictionAnswer(ImageRecord):
    """Score, decision and regions of an image, the region with the highest peak first."""

    decision: Literal["anomalous", "normal"]
    score: Annotated[float, Field(description="image score in [0, 1]")]
    threshold: Annotated[float, Field(description="in [0, 1]; scores and map values from here on are anomalous")]
    model: Annotated[str, Field(description="the name of the model that answered")]
    reduction: Reduction = 1
    findings: Annotated[tuple[str, ...], Field(description="each region in words")]
    overlay: Annotated[str | None, Field(description="JPEG in base64, where it was asked for")] = None


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


class DriftAnswer(Answer):
    """Whether the images of a line have changed, of the class that has changed most."""

    images: int = Field(description="that were watched")
    odds: float = Field(description="in favour of a change now; 2 is a hundred to one")
    has_changed: bool = Field(description="the odds have reached a hundred to one at some image")


class ModelAnswer(Answer):
    """A model that is being served."""

    name: str
    source: str = Field(description="what it was opened from")
    method: str
    fingerprint: str = Field(description="equal fingerprints give equal maps")
    threshold: float
    normal_classes: tuple[str, ...] = Field(description="classes that it has normal images of")
    promises: dict[str, str] = Field(description="what is promised of false alarms, for each calibrated class")
    drift: DriftAnswer | None = Field(description="where the service watches for a change (--drift)")


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
