"""Normal images drawn from a set's own training part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.data.normals import draw_normals
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import Sample


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    found = []
    for name in ("nut", "tile"):
        for index in range(9):
            path = tmp_path / name / "train" / "good" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), index, np.uint8)).save(path)
        found.append(Sample(tmp_path / name / "test" / "good" / "0.png", None, name, False))
    return found


def test_a_draw_is_of_training_images_of_each_class_and_of_its_seed_alone(samples: list[Sample]) -> None:
    first, again, other = (draw_normals(samples, 4, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {name: len(paths) for name, paths in first.items()} == {"nut": 4, "tile": 4}
    assert all(path.parts[-4:-1] == (name, "train", "good") for name, paths in first.items() for path in paths)
    assert draw_normals(samples[1:], 4, 0)["tile"] == first["tile"]


def test_too_few_training_images_are_refused(samples: list[Sample]) -> None:
    with pytest.raises(ConfigError, match="at least 10 normal images of nut, found 9"):
        draw_normals(samples, 10, 0)
