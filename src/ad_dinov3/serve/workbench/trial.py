"""What other words for good and bad would make of one image, before all are scored by them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.infer.areas import score_within
from ad_dinov3.predict.memory import MEMORY_MB
from ad_dinov3.references.tokens import Floats
from ad_dinov3.serve.workbench.folder import for_browsers
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.teaching import Lesson


@dataclass(frozen=True, eq=False)
class Tried:
    """The score that decides on an image, in [0, 1], and its map as browsers get it."""

    score: float
    map: Floats


def try_on(model: BenchModel, lesson: Lesson, name: str) -> Tried:
    """Score one image with what is wanted.

    Raises:
        ConfigError: the model takes no such states, or cannot compare with the good images.
        WeightsError: the text encoder that states need is not found.
        ImageError: a file cannot be decoded.
    """
    row = lesson.before.row(name)
    image = ImageFile(Path(row.path), name).load_within(MEMORY_MB * 2**20)
    scorer = model.scorer_of(model.taught(lesson.paths(), lesson.wanted.states))
    raw = scorer.score(scorer.prepare(image.pixels)[None], [lesson.class_of(row)]).row(0)
    anomaly_map = for_browsers(raw.patch_map, row)
    if lesson.areas.is_empty:
        return Tried(raw.score, anomaly_map)
    height, width = anomaly_map.shape
    return Tried(score_within(raw.score, anomaly_map, lesson.areas.mask((height, width))), anomaly_map)
