"""What is said of one image: the same fields in Python, in result rows, in the service's answers and in Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from ad_dinov3.infer.decide import Region

Decision = Literal["anomalous", "normal", "failed"]
Record: TypeAlias = "dict[str, object]"

Reduction = Annotated[
    int,
    Field(
        description="1, 2, 4 or 8, by which a very large image's sides were divided in decoding; all else is of the "
        "reduced image"
    ),
]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """Score, decision and regions of one image; a failed image has no score."""

    image: Annotated[str, Field(description="the image's name, as it was given; unique among the rows of a run")]
    decision: Annotated[Decision, Field(description="anomalous where the score reaches the threshold")]
    score: Annotated[float | None, Field(description="image score in [0, 1]")] = None
    threshold: Annotated[
        float | None, Field(description="in [0, 1]; scores and map values from here on are anomalous")
    ] = None
    p_value: Annotated[
        float | None,
        Field(description="share of good images that look at least as strange, where some have calibrated the model"),
    ] = None
    class_name: Annotated[str, Field(description="what the prompts called the product")] = ""
    width: Annotated[int, Field(description="of the image, in px")] = 0
    height: Annotated[int, Field(description="of the image, in px")] = 0
    anomalous_area_px: Annotated[int, Field(description="pixels in regions")] = 0
    regions: Annotated[
        tuple[Region, ...],
        Field(description="highest peak first; none on an image that is called normal, unless they were asked for"),
    ] = ()


def plain(record: ImageRecord) -> Record:
    """A record and its regions as dicts; ``asdict`` would copy every corner of every outline."""
    return {**vars(record), "regions": [vars(region) for region in record.regions]}


def json_schema(kind: type[ImageRecord]) -> Record:
    """The JSON schema of a kind of record."""
    return TypeAdapter(kind).json_schema(mode="serialization")
