"""Baselines on CLIP as fixed graphs: the model's own maps in both runtimes, refused where there is no fixed graph."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "methods"))
import plain_clip as plain

from ad_dinov3.bench.subjects import open_subject
from ad_dinov3.cli import export, predict
from ad_dinov3.config import PRESETS
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.export.graphs import score_graph
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.session import Session
from ad_dinov3.model import Model, new_model, save_model

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZE = (20, 28)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two blocks in each tower: tracing takes its time by the block."""
    folder = tmp_path_factory.mktemp("clip")
    state = plain.save_clip(folder)
    later = re.compile(r".*resblocks\.[2-9]\..*")
    torch.save({name: tensor for name, tensor in state.items() if not later.fullmatch(name)}, folder / "clip.pt")
    return str(folder / "clip.pt")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(plain.images(2, 30, 40)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


def new(method: str, clip: str) -> Model:
    changes: dict[str, object] = {"encoder": clip, "input.height": SIZE[0], "input.width": SIZE[1]}
    if method == "april_gan":
        changes["method.gain"] = 10.0  # random towers are steep enough
    return new_model(PRESETS[method].with_settings(changes), {"metal_nut": "metal nut"}, offline=True)


@pytest.mark.parametrize(("method", "runtime"), [("winclip", "onnx"), ("april_gan", "openvino")])
def test_exported_baseline_scores_as_the_model_it_was_made_from(
    method: str, runtime: str, clip: str, photos: Path, tmp_path: Path
) -> None:
    detector = Detector(new(method, clip), offline=True)
    parity = export_model(detector, method, tmp_path / "out", ExportOptions(runtime, calibration=photos))  # type: ignore[arg-type]
    assert parity.largest_map_difference < 1e-4
    session = Session(tmp_path / "out", threads=1)
    assert session.method == method
    assert session.config.class_names == ("metal_nut", "object")
    batch = plain.images(3, *SIZE).numpy()
    names = ["metal_nut", "object", "metal_nut"]
    expected, found = detector.score(batch, names), session.score(batch, names)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_baselines_without_a_fixed_graph_are_refused_with_the_reason(clip: str, photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"AdaCLIP has no fixed graph: .* text tower .* k-means"):
        score_graph(new("adaclip", clip), SIZE)
    few_shot = Detector(new("winclip", clip), offline=True)
    few_shot.remember(list(photos.iterdir()), "object")
    with pytest.raises(ConfigError, match="compares with normal images cannot be exported"):
        score_graph(few_shot.model, SIZE)
    with pytest.raises(ConfigError, match="multiples of 4 px"):
        score_graph(new("winclip", clip), (18, 28))
    with pytest.raises(ConfigError, match="positions at one size"):
        score_graph(new("april_gan", clip), SIZE, resizable=True)


def test_export_predict_and_evaluate_take_a_baseline_by_name(clip: str, photos: Path, tmp_path: Path) -> None:
    save_model(new("anomalyclip", clip), tmp_path / "model")
    arguments = [str(tmp_path / "model"), "-o", str(tmp_path / "line"), "--calibration", str(photos), "--offline"]
    result = CliRunner().invoke(export.app, [*arguments, "--method", "anomalyclip"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with pytest.raises(ConfigError, match="is a model of anomalyclip, not of april_gan"):
        CliRunner().invoke(export.app, [*arguments, "--method", "april_gan"], catch_exceptions=False)
    for method in (None, "anomalyclip"):
        assert open_subject(method, str(tmp_path / "line")).method == "anomalyclip"
        assert open_subject(method, str(tmp_path / "model"), offline=True).method == "anomalyclip"
    arguments = [str(photos), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "line")]
    CliRunner().invoke(predict.app, arguments, catch_exceptions=False)
    assert "AnomalyCLIP" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ConfigError, match="export the model again with --with-tokens"):
        CliRunner().invoke(predict.app, [*arguments, "--normals", str(photos)], catch_exceptions=False)
