"""Areas in runs, models and the service: one step decides, so all of them agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from http_client import post_image
from live_service import opened, running
from toy_detector import ToyDetector, draw_part

import ad_dinov3
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.areas import ALL_OF_IT, AREAS_FILE, Areas
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models

LOWER_RIGHT = Areas(ignore=(((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)),))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return draw_part(tmp_path / "parts" / "part.png", blemish=True)


def scored(toy: ToyDetector, part: Path, out: Path, areas: Areas) -> Row:
    rule = DecisionRule(0.3, areas=areas)
    run = FolderRun(out, "toy", "f" * 16, DriveOptions("part", rule, threads=1))
    score_into_folder(find_images([str(part)]), toy, run)
    return next(iter(read_rows(out)))


def test_other_areas_decide_on_the_maps_that_are_there_and_back_again(part: Path, tmp_path: Path) -> None:
    toy, out = ToyDetector(), tmp_path / "out"
    first = scored(toy, part, out, ALL_OF_IT)
    ignoring = scored(toy, part, out, LOWER_RIGHT)
    back = scored(toy, part, out, ALL_OF_IT)
    assert toy.batches == [1]
    assert (first.decision, ignoring.decision, back.decision) == ("anomalous", "normal", "anomalous")
    assert ignoring.model_score == pytest.approx(first.score, abs=1e-6)
    assert ignoring.regions == ()
    assert back.score == first.score
    assert first.map is not None
    assert read_map(out / first.map).max() > 0.3  # the map stays as the model gave it


def test_a_model_keeps_its_areas_and_uses_them(part: Path, tmp_path: Path) -> None:
    detector = ad_dinov3.load()
    whole = detector.predict(part)
    detector.areas = Areas(ignore=(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),))
    detector.save_pretrained(tmp_path / "line")
    assert json.loads((tmp_path / "line" / AREAS_FILE).read_text())["format_version"] == 1
    again = ad_dinov3.load(tmp_path / "line")
    assert again.areas == detector.areas
    found = again.predict(part)
    assert found.score < 1e-3 < whole.score
    np.testing.assert_array_equal(found.anomaly_map, whole.anomaly_map)


def test_the_service_decides_within_its_model_s_areas(part: Path) -> None:
    models = Models(
        {
            "whole": lambda: opened(ToyDetector()),
            "line": lambda: replace(opened(ToyDetector()), areas=LOWER_RIGHT),
        }
    )
    with running(models, ServeOptions(), Metrics()) as address:
        answers = [json.loads(post_image(f"{address}/predict?model={name}", part).body) for name in ("whole", "line")]
    assert [answer["decision"] for answer in answers] == ["anomalous", "normal"]
    assert answers[1]["regions"] == []
