"""A ConvNeXt with context (filter bank, half-size pass) through the runtimes, against the model itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import context_folder, learned_model

from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.session import Session
from ad_dinov3.model import Model

ODD = (80, 96)
"""In cells of 16 px 5 x 6: half of an odd number of cells is rounded up in the small image."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = context_folder(tmp_path_factory.mktemp("context"))
    made = learned_model(folder, input__height=ODD[0], input__width=ODD[1], method__rarity=0)
    assert isinstance(made.encoder.module, ContextStages)  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (3, 3, *ODD)).astype(np.uint8)


@pytest.mark.parametrize("runtime", [pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_exported_context_scores_as_the_model_alone_and_in_a_batch(
    model: Model, batch: np.ndarray, tmp_path: Path, runtime: str
) -> None:
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    (tmp_path / "photos").mkdir()
    for index, pixels in enumerate(batch):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "photos" / f"{index}.png")
    detector = Detector(model, offline=True)
    options = ExportOptions(runtime, "fp32", calibration=tmp_path / "photos")  # type: ignore[arg-type]
    export_model(detector, "context", tmp_path / "out", options)
    session = Session(tmp_path / "out", threads=1)
    expected, found = detector.score(batch, ["object"] * 3), session.score(batch, ["object"] * 3)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    one = session.score(batch[1:2], ["object"])
    np.testing.assert_allclose(one.maps[0], found.maps[1], atol=1e-4)
