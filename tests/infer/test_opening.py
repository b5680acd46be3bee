from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ad_dinov3
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load, look_through
from ad_dinov3.infer.session import Session
from ad_dinov3.infer.tiles import Fitted, Tiled
from ad_dinov3.infer.views import View

ROUNDING = 1e-5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "line"
    export_model(Detector.from_pretrained(offline=True), "embedded", folder, ExportOptions("pt2"))
    return folder


def test_a_model_and_its_export_open_by_one_door_and_agree(exported: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    model, session = ad_dinov3.load(offline=True), ad_dinov3.load(exported)
    assert (type(model), type(session)) == (Detector, Session)
    for kind in (image, Image.fromarray(image), image.astype(np.float32) / 255):
        one, other = model.predict(kind), session.predict(kind)
        np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, atol=ROUNDING)
        assert other.score == pytest.approx(one.score, abs=ROUNDING)


def test_an_export_refuses_what_is_no_image_in_words(exported: Path) -> None:
    with pytest.raises(ShapeError, match=r"\(4, 5, 9\)"):
        load(exported).predict(np.zeros((4, 5, 9), np.uint8))


def test_an_export_answers_to_its_own_method_alone(exported: Path) -> None:
    assert load(exported, method="ad_dinov3").method == "ad_dinov3"
    with pytest.raises(ConfigError, match="is an export of ad_dinov3, not of winclip"):
        load(exported, method="winclip")
    with pytest.raises(ConfigError, match="omit --weights"):
        load(exported, weights="nano")


@pytest.mark.parametrize("name", ["no such folder", "/nowhere"])
def test_what_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(WeightsError, match=name):
        load(name, offline=True)


def test_an_unknown_method_is_refused_before_torch_is_imported() -> None:
    program = """
import sys
from ad_dinov3.infer.opening import load
try:
    load(method="patchcore")
except ValueError as error:
    print("torch" in sys.modules, "winclip" in str(error))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "True"]


def test_a_view_changes_the_fingerprint_and_what_scores() -> None:
    detector = load(offline=True)
    views = [View(), View(keep_aspect=True), View(tile_px=64), View(tile_px=64, overlap=0.5)]
    viewed = [look_through(detector, view) for view in views]
    assert len({one.fingerprint for one in viewed}) == 4
    assert [type(one.scorer) for one in viewed] == [Detector, Fitted, Tiled, Tiled]
