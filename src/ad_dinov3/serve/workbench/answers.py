"""What the workbench's page asks and is answered."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ad_dinov3.config import States
from ad_dinov3.infer.areas import Areas
from ad_dinov3.serve.answers import Answer

Label = Literal["ok", "ng"]


class ImageAnswer(Answer):
    """What does not change about an image until the folder is scored again."""

    name: str
    class_name: str
    score: float | None = Field(description="in [0, 1]; none where it failed")
    width: int
    height: int
    min_area_px: int = Field(description="smaller regions do not count")
    before: float | None = Field(description="score before there were good images, where there are some")
    p_value: float | None
    label: Label | None = Field(description="what the name of its folder says")
    error: str | None


class ImagesAnswer(Answer):
    """All images of the folder, the highest score first, and of which scoring they are."""

    scored: int = Field(description="another number after each scoring")
    threshold: float = Field(description="where the run decided")
    threshold_before: float | None = Field(description="the same of the run before there were good images")
    promises: dict[str, str] = Field(description="what the model promises there, by class")
    command: str = Field(description="what scores them once more, but for the threshold")
    images: tuple[ImageAnswer, ...]


class SuggestionAnswer(Answer):
    """The threshold with the fewest wrong decisions on the labelled images, and which it gets wrong."""

    threshold: float
    missed: int
    defects: int
    flagged: int
    good: int


class WorkAnswer(Answer):
    """What is being scored in the background, and what went wrong with it."""

    words: str = Field(description="what is being done; empty: nothing")
    done: int = Field(description="images")
    total: int = Field(description="of how many; 0: not counted")
    trouble: str = Field(description="why the last run came to no end; empty: it did")


class TaughtAnswer(Answer):
    """What has changed the scores."""

    good: int = Field(description="good images that they are compared with")
    words: bool = Field(description="the prompts name other states than the model's own")
    same_model: bool = Field(description="the scores before are of the same model without good images")


class StatesAnswer(Answer):
    """States that prompts name, each with one ``{}`` for what an image shows."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]


class StateAnswer(Answer):
    """What people have decided; all browsers see the same."""

    revision: int = Field(description="goes up with every change")
    work: WorkAnswer
    good: tuple[str, ...] = Field(description="images to compare others with")
    taught: TaughtAnswer | None = Field(description="what the scores are compared with now, if anything")
    states: StatesAnswer | None = Field(description="what prompts are to name in place of the model's own states")
    scored: int = Field(description="as in the list of images")
    verdicts: dict[str, Literal["ok", "ng", "skip"]] = Field(description="image -> what was said of it last")
    threshold: float
    suggestion: SuggestionAnswer | None
    areas: Areas = Field(description="polygons in shares of width and height")


class CellAnswer(Answer):
    """A patch of a good image."""

    image: str
    place: tuple[int, int] = Field(description="row and column")
    grid: tuple[int, int] = Field(description="of how many rows and columns")
    cosine: float = Field(description="with the patch that was asked for")


class PatchAnswer(Answer):
    """What a patch is like."""

    place: tuple[int, int] = Field(description="row and column")
    grid: tuple[int, int] = Field(description="of how many rows and columns")
    cosines: list[float] = Field(description="of each patch of the image with it, row by row")
    nearest: CellAnswer | None = Field(description="the nearest patch of a good image, where there are some")


class DropAnswer(Answer):
    """What dropped images are called among the results; they are scored in the background."""

    images: list[str]


class ExportAnswer(Answer):
    """Where reviewed labels have been written, and of how many images."""

    folder: str
    images: int


class UnchangedAnswer(Answer):
    """Nothing has changed since the revision that was asked for."""

    revision: int
    work: WorkAnswer


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReviewRequest(_Request):
    """A person's word on an image."""

    id: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$", description="made by the browser: sent twice, it counts once")
    image: str = Field(max_length=4096)
    verdict: Literal["ok", "ng", "skip"]


class TakeBackRequest(_Request):
    """A review that is to be forgotten."""

    id: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$")


class GoodRequest(_Request):
    """Images that all others are compared with from now on, or no longer."""

    images: list[str] = Field(min_length=1, max_length=10_000)
    is_good: bool


class WordsRequest(_Request):
    """States that prompts name from now on; none: the model's own."""

    states: States | None


class TrialRequest(_Request):
    """States to try on one image."""

    image: str = Field(max_length=4096)
    states: States


class ThresholdRequest(_Request):
    """Where all browsers decide from now on."""

    threshold: float = Field(ge=0, le=1)


class AreasRequest(_Request):
    """Where all images of the folder are looked at from now on."""

    areas: Areas
