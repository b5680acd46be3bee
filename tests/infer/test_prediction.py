from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ad_dinov3.errors import ConfigError, ScoreError, ShapeError
from ad_dinov3.infer.decide import DecisionRule, smallest_region_px
from ad_dinov3.infer.image_files import write_map_png16, write_map_tiff
from ad_dinov3.infer.prediction import Prediction, conclude
from ad_dinov3.infer.scorer import RawScore, RawScores


@pytest.fixture
def prediction() -> Prediction:
    anomaly_map = np.zeros((40, 60), np.float32)
    anomaly_map[10:14, 40:55] = 0.8
    anomaly_map[30, 5] = 0.55
    return Prediction(anomaly_map, score=0.8, source="a.png", class_name="nut", threshold=0.5)


def test_another_threshold_changes_the_mask_and_the_regions_but_not_the_prediction(prediction: Prediction) -> None:
    assert (prediction.mask().sum(), prediction.mask(0.6).sum()) == (61, 60)
    assert (len(prediction.regions), len(prediction.regions_at(0.6)), len(prediction.regions)) == (2, 1, 2)
    assert prediction.is_anomalous


def test_saved_files_read_back_as_the_prediction(prediction: Prediction, tmp_path: Path) -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    folder = prediction.save(tmp_path / "new", image)
    np.testing.assert_array_equal(tifffile.imread(folder / "map.tiff"), prediction.anomaly_map)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "mask.png")) == 255, prediction.mask())
    assert Image.open(folder / "overlay.jpg").size >= (60, 40)
    record = json.loads((folder / "prediction.json").read_text())
    assert (record["decision"], len(record["regions"]), record["regions"][0]["box"]) == (
        "anomalous",
        2,
        [40, 10, 55, 14],
    )
    assert sorted(path.name for path in folder.iterdir()) == ["map.tiff", "mask.png", "overlay.jpg", "prediction.json"]


def test_a_16_bit_map_reads_back_within_a_level(tmp_path: Path) -> None:
    anomaly_map = np.random.default_rng(0).random((30, 20), dtype=np.float32)
    write_map_png16(tmp_path / "map.png", anomaly_map)
    stored = np.asarray(Image.open(tmp_path / "map.png"))
    assert stored.max() > 255
    np.testing.assert_allclose(stored / 65535, anomaly_map, atol=1e-5)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "map.tiff"
    write_map_tiff(path, np.zeros((4, 4), np.float32))
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_map_tiff(path, np.ones((4, 4), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("anomalous", "least"), [(True, 1), (True, 2), (True, 61), (False, 1)])
def test_the_mask_of_the_decision_is_that_of_the_threshold_and_nobody_can_change_it(
    prediction: Prediction, anomalous: bool, least: int
) -> None:
    judged = replace(prediction, score=0.8 if anomalous else 0.2, min_area_px=least)
    expected = judged.mask(0.5) if anomalous else np.zeros((40, 60), bool)
    assert sum(region.area_px for region in judged.regions) == expected.sum()
    for _ in range(2):
        found = judged.mask()
        np.testing.assert_array_equal(found, expected)
        found[:] = True


def test_a_map_that_is_not_float32_is_refused() -> None:
    with pytest.raises(ShapeError, match="float64"):
        Prediction(np.zeros((4, 4)), 0.1, "a", "b", 0.5)  # type: ignore[arg-type]


def test_a_threshold_in_per_cent_is_refused() -> None:
    with pytest.raises(ConfigError, match="50"):
        Prediction(np.zeros((4, 4), np.float32), 0.1, "a", "b", 50)


def test_raw_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 4, 4\) and \(2,\)"):
        RawScores(np.zeros((3, 4, 4), np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_prediction_cannot_hold_nan_or_infinity(broken: float) -> None:
    anomaly_map = np.zeros((4, 4), np.float32)
    with pytest.raises(ScoreError, match="NaN or infinity"):
        Prediction(anomaly_map, broken, "a", "b", 0.5)
    anomaly_map[1, 2] = broken
    with pytest.raises(ScoreError, match="NaN or infinity"):
        Prediction(anomaly_map, 0.1, "a", "b", 0.5)


@pytest.mark.parametrize(("map_value", "score"), [(7.0, 0.5), (0.5, 9.0), (-0.1, 0.5), (np.nan, 0.5), (0.5, np.nan)])
def test_an_answer_outside_0_and_1_is_refused(map_value: float, score: float) -> None:
    answer = RawScores(np.full((1, 2, 2), map_value, np.float32), np.array([score], np.float32))
    with pytest.raises(ScoreError):
        answer.row(0)


def _raw(peak: float, score: float) -> RawScore:
    patch_map = np.full((8, 8), 0.1, np.float32)
    patch_map[2:5, 2:5] = peak
    return RawScore(patch_map, score)


def test_an_image_called_normal_has_no_regions_and_an_empty_mask_unless_asked() -> None:
    silent = conclude(_raw(0.9, 0.4), (80, 80), DecisionRule(0.5), "a")
    assert not silent.is_anomalous
    assert (silent.regions, silent.mask().any(), silent.to_dict()["regions"]) == ([], False, [])
    assert len(silent.regions_at(0.5)) == 1
    assert silent.mask(0.5).any()
    asked = conclude(_raw(0.9, 0.4), (80, 80), DecisionRule(0.5, regions_on_normal=True), "a")
    assert len(asked.regions) == 1
    assert asked.mask().sum() == asked.regions[0].area_px
    loud = conclude(_raw(0.9, 0.6), (80, 80), DecisionRule(0.5), "a")
    assert [region.box for region in loud.regions] == [region.box for region in asked.regions]


def test_regions_finer_than_the_models_grid_do_not_count() -> None:
    assert smallest_region_px((8, 8), (80, 80)) == 25
    assert smallest_region_px((512, 512), (256, 256)) == 9
    speck = np.full((8, 8), 0.1, np.float32)
    speck[3, 3] = 0.56
    raw = RawScore(speck, 0.9)
    assert conclude(raw, (80, 80), DecisionRule(0.5), "a").regions == []
    assert len(conclude(raw, (80, 80), DecisionRule(0.5, min_area_px=1), "a").regions) == 1
