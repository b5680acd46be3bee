from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ad_dinov3
from ad_dinov3.config import PRESETS
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import Abilities, ModelSpec, abilities_of, load, look_through
from ad_dinov3.infer.session import Session
from ad_dinov3.infer.tiles import Fitted, Tiled
from ad_dinov3.infer.views import View
from ad_dinov3.model import new_model

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


def test_what_a_model_can_do_is_told_by_its_files_without_opening_it(exported: Path, tmp_path: Path) -> None:
    assert abilities_of(ModelSpec()) == Abilities()
    plain = abilities_of(ModelSpec(str(exported)))
    assert "--with-tokens" in plain.no_tokens
    session = load(exported)
    inputs = session.prepare(np.zeros((40, 40, 3), np.uint8))[None]
    with pytest.raises(ConfigError) as refused:
        session.answer(inputs, ["object"])
    assert str(refused.value) == plain.no_tokens
    told = tmp_path / "told"
    shutil.copytree(exported, told)
    parity = json.loads((told / "parity.json").read_text())
    (told / "parity.json").write_text(json.dumps(parity | {"largest_token_distance": 1e-6}))
    assert abilities_of(ModelSpec(str(told))) == Abilities()


def test_abilities_are_those_of_the_method(tmp_path: Path, clip: str) -> None:
    assert "Mahalanobis" in abilities_of(ModelSpec(method="mahalanobis")).no_tokens
    assert abilities_of(ModelSpec(method="winclip")) == Abilities(has_states=True)
    assert abilities_of(ModelSpec(method="adaclip")).has_states
    assert abilities_of(ModelSpec("owner/nowhere", offline=True)) == Abilities()
    Detector(new_model(PRESETS["april_gan"].with_settings({"encoder": clip}))).save_pretrained(tmp_path / "line")
    assert abilities_of(ModelSpec(str(tmp_path / "line"))) == Abilities(has_states=True)


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


def test_a_model_that_needs_torch_says_so_where_there_is_none() -> None:
    program = """
import sys
sys.modules["torch"] = None
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.opening import load
try:
    load(offline=True)
except ConfigError as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "torch is not installed, which embedded needs; install it, or name an exported folder" in shown.stdout


def test_a_view_changes_the_fingerprint_and_what_scores() -> None:
    detector = load(offline=True)
    views = [View(), View(keep_aspect=True), View(tile_px=64), View(tile_px=64, overlap=0.5)]
    viewed = [look_through(detector, view) for view in views]
    assert len({one.fingerprint for one in viewed}) == 4
    assert [type(one.scorer) for one in viewed] == [Detector, Fitted, Tiled, Tiled]
