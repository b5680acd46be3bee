from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import SIZE, learned_model, prompted_model, vit_folder

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.export import build
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.export.parity import Parity, ParityError, Tolerance, compare
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.infer.session import Session

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return vit_folder(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(noise.integers(0, 256, (50, 60, 3)).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


WAYS = [("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "fp16"), ("pt2", "fp32")]


@pytest.mark.parametrize(("runtime", "precision"), WAYS)
def test_exported_folder_scores_as_the_detector_it_was_made_from(
    vit: str, photos: Path, tmp_path: Path, runtime: str, precision: str
) -> None:
    detector = Detector(prompted_model(vit), offline=True)
    options = ExportOptions(runtime, precision, calibration=photos)  # type: ignore[arg-type]
    parity = export_model(detector, "tiny", tmp_path / "out", options)
    assert parity.images == 4
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["images"] == 4
    assert detector.model.encoder.spec.licence in (tmp_path / "out" / "NOTICE.md").read_text()
    session = Session(tmp_path / "out", threads=1)
    assert session.config.model_fingerprint == detector.fingerprint
    batch = np.random.default_rng(1).integers(0, 256, (3, 3, *SIZE)).astype(np.uint8)
    names = ["tile", "object", "tile"]
    expected, found = detector.score(batch, names), session.score(batch, names)
    atol = 1e-4 if precision == "fp32" else 1e-2
    np.testing.assert_allclose(found.maps, expected.maps, atol=atol)
    np.testing.assert_allclose(found.scores, expected.scores, atol=atol)


@pytest.mark.parametrize("runtime", [pytest.param("onnx", marks=pytest.mark.slow), "openvino", "pt2"])
def test_resizable_export_scores_other_sizes_as_the_detector_does(
    vit: str, photos: Path, tmp_path: Path, runtime: str
) -> None:
    detector = Detector(learned_model(vit, method__rarity=0), offline=True)
    options = ExportOptions(runtime, resizable=True, calibration=photos)  # type: ignore[arg-type]
    export_model(detector, "tiny", tmp_path / "out", options)
    session = Session(tmp_path / "out", threads=1, size=(64, 80))
    assert session.prepare(np.zeros((9, 9, 3), np.uint8)).shape == (3, 64, 80)
    assert session.fingerprint != Session(tmp_path / "out", threads=1).fingerprint
    batch = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 80)).astype(np.uint8)
    expected, found = detector.score(batch, ["object"] * 2), session.score(batch, ["object"] * 2)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    with pytest.raises(ShapeError, match="multiples of 16 px"):
        session.score(batch[:, :, :50], ["object"] * 2)
    with pytest.raises(ConfigError, match="multiples of 16 px"):
        Session(tmp_path / "out", size=(64, 72))


def test_int8_stays_near_and_another_size_is_taken(vit: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    # A random backbone is no test of 8 bits where a steep softmax follows; a gentle one shows that ranges fit.
    gentle = learned_model(vit, method__rarity=0, method__tokens="raw", method__gain=1.0)
    detector = Detector(gentle, offline=True)
    options = ExportOptions("openvino", "int8", (48, 32), calibration=photos)
    parity = export_model(detector, "tiny", tmp_path / "out", options)
    assert 0 < parity.mean_map_difference < 0.01
    session = Session(tmp_path / "out", threads=1)
    assert session.config.input.size == (48, 32)
    assert session.score(np.zeros((1, 3, 48, 32), np.uint8), ["anything"]).maps.shape == (1, 3, 2)
    assert "i8" in (tmp_path / "out" / "model.xml").read_text() or "u8" in (tmp_path / "out" / "model.xml").read_text()


def test_export_beyond_the_tolerance_writes_nothing(
    vit: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(build.TOLERANCES, "fp16", Tolerance(1e-9, 1e-9, 1e-9))
    detector = Detector(learned_model(vit, method__rarity=0), offline=True)
    with pytest.raises(ParityError, match=r"largest map difference .* nothing was written"):
        export_model(detector, "tiny", tmp_path / "out", ExportOptions("openvino", "fp16", calibration=photos))
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_go_together_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calibration"):
        ExportOptions("openvino", "int8")
    with pytest.raises(ConfigError, match="int8 sets its ranges at one size"):
        ExportOptions("openvino", "int8", resizable=True, calibration=tmp_path)
    with pytest.raises(ConfigError, match="onnx is written as fp32, not as fp16"):
        ExportOptions("onnx", "fp16")


def test_parity_counts_differences_flips_and_bounds() -> None:
    maps = np.array([[[0.1, 0.2], [0.3, 0.7]]], np.float32)

    def score(shift: float, value: float) -> RawScores:
        return RawScores(maps + np.float32(shift), np.array([value], np.float32))

    inputs = [np.zeros((3, 2, 2), np.uint8)] * 2
    tolerance = Tolerance(0.31, 0.2, 0.1)
    parity: Parity = compare(
        lambda pixels, name: score(0, 0.45),
        lambda pixels, name: score(0.3 if name == "a" else 0.0, 0.55 if name == "a" else 0.45),
        inputs,
        ["a", "b"],
        threshold=0.5,
        tolerance=tolerance,
    )
    assert parity.largest_map_difference == pytest.approx(0.3, abs=1e-6)
    assert parity.mean_map_difference == pytest.approx(0.15, abs=1e-6)
    assert parity.largest_score_difference == pytest.approx(0.1, abs=1e-6)
    assert (parity.decision_flips, parity.pixel_flips) == (1, pytest.approx(2 / 8))
