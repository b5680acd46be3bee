"""The classical baseline: its formulas, and that it is a model like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ad_dinov3.cli import evaluate, predict
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.methods.mahalanobis import FILTERS_PER_SIGMA, SIGMAS_PX, filter_responses, mahalanobis_map, own_distance


@pytest.fixture
def texture() -> np.ndarray:
    return np.random.default_rng(0).normal(128, 10, (64, 96)).clip(0, 255).astype(np.uint8)


def test_distance_equals_a_loop_over_pixels() -> None:
    features = np.random.default_rng(1).normal(size=(5, 7, 3)) @ np.diag([1.0, 5.0, 0.2])
    flat = [features[y, x] for y in range(5) for x in range(7)]
    mean = sum(flat) / len(flat)
    covariance = 1e-6 * np.eye(3)
    for feature in flat:
        covariance = covariance + np.outer(feature - mean, feature - mean) / len(flat)
    expected = np.empty((5, 7))
    for y in range(5):
        for x in range(7):
            off = features[y, x] - mean
            expected[y, x] = np.sqrt(off @ np.linalg.solve(covariance, off))
    np.testing.assert_allclose(own_distance(features), expected, rtol=1e-9)


def test_mean_squared_distance_is_the_number_of_features() -> None:
    features = np.random.default_rng(2).normal(size=(40, 40, 6))
    assert np.mean(own_distance(features) ** 2) == pytest.approx(6, rel=1e-4)


def test_distance_ignores_an_affine_change_of_the_features() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(20, 20, 4))
    changed = features @ (np.eye(4) + 0.3 * rng.normal(size=(4, 4))) + 7
    np.testing.assert_allclose(own_distance(changed), own_distance(features), rtol=1e-4)


def test_responses_of_a_ramp_are_its_slope() -> None:
    ramp = np.tile(np.linspace(0, 1, 101), (101, 1))
    responses = filter_responses(ramp)
    assert responses.shape == (101, 101, FILTERS_PER_SIGMA * len(SIGMAS_PX))
    mean, gradient, laplacian, deviation = responses[50, 50, :FILTERS_PER_SIGMA]
    assert mean == pytest.approx(0.5)
    assert gradient == pytest.approx(0.01, rel=1e-3)
    assert laplacian == pytest.approx(0, abs=1e-3)  # the truncated kernel leaves a trace of the mean
    assert deviation == pytest.approx(0.01 * SIGMAS_PX[0], rel=1e-2)


def test_map_of_a_texture_with_a_spot_is_highest_at_the_spot(texture: np.ndarray) -> None:
    texture[40:48, 60:70] = 230
    scores = mahalanobis_map(texture)
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    assert scores.shape == texture.shape
    assert scores.dtype == np.float32
    assert 0 <= scores.min() <= scores.max() < 1
    assert 38 <= y < 50
    assert 58 <= x < 72


def test_grey_image_and_its_rgb_copy_give_one_map(texture: np.ndarray) -> None:
    rgb = np.repeat(texture[..., None], 3, axis=2)
    np.testing.assert_allclose(mahalanobis_map(texture), mahalanobis_map(rgb), atol=1e-6)


def test_flat_image_has_a_finite_map() -> None:
    scores = mahalanobis_map(np.full((32, 48, 3), 90, np.uint8))
    assert np.isfinite(scores).all()


def test_image_with_four_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match="RGB"):
        mahalanobis_map(np.zeros((8, 8, 4), np.uint8))


def test_detector_gives_the_map_of_the_resized_image_and_the_mean_of_its_top_hundredth(texture: np.ndarray) -> None:
    detector = load(method="mahalanobis")
    image = np.repeat(texture[..., None], 3, axis=2)
    raw = detector.score(detector.prepare(image)[None], ["anything"])
    expected = mahalanobis_map(detector.prepare(image).transpose(1, 2, 0))
    np.testing.assert_array_equal(raw.maps[0], expected)
    assert raw.scores[0] == pytest.approx(np.sort(expected, axis=None)[-655:].mean(), rel=1e-6)  # of 256 x 256


def test_predict_and_evaluate_give_the_same_scores(squares: Path, tmp_path: Path) -> None:
    for command, more in (
        (predict.app, [str(squares / "tile" / "test"), "-o", str(tmp_path / "p")]),
        (evaluate.app, ["--data", str(squares), "--out", str(tmp_path / "e"), "--save-maps"]),
    ):
        done = CliRunner().invoke(command, [*more, "--method", "mahalanobis"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "p" / "results.jsonl").read_text().splitlines()]
    found = {Path(row["image"]).name: row["score"] for row in rows if "score" in row}
    detector = load(method="mahalanobis")
    assert isinstance(detector, Detector)
    for sample in read_folder(squares):
        score = detector.predict(decode_image(sample.image_path)).score
        assert found[sample.image_path.name] == pytest.approx(score, abs=1e-6)
    measured = [json.loads(line) for line in (tmp_path / "e" / "rows.jsonl").read_text().splitlines()]
    assert {row["weights_hash"] for row in measured} == {detector.fingerprint}
    assert {row["method"] for row in measured} == {"mahalanobis"}


def test_an_encoder_is_refused(tiny_vit: Path) -> None:
    with pytest.raises(ConfigError, match="mahalanobis works on pixels and takes no encoder"):
        load(method="mahalanobis", weights=str(tiny_vit))
