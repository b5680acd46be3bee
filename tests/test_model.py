"""The model folder: complete without the text encoder, refused when damaged, with prompts in people's words."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import load_model, new_model, open_method, save_model, with_prompts

sys.path.insert(0, str(Path(__file__).parent / "encoders"))
from clip_models import tiny_clip

IMAGES = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
WORDS = {"metal_nut": "metal nut", "01": "bottle"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    tiny_clip(folder)
    return folder


def settings(weights: Path, clip: Path, preset: str = "default") -> ModelConfig:
    return PRESETS[preset].with_settings(
        {"encoder": str(weights), "method.prompts.text_encoder": str(clip), "method.width": 8, "input.height": 32}
    )


def test_known_prompts_need_no_text_encoder_after_saving(tmp_path: Path, tiny_vit: Path, clip: Path) -> None:
    model = new_model(settings(tiny_vit, clip), WORDS)
    expected = model.score(IMAGES, ["metal_nut", "01"]).patch_map
    save_model(model, tmp_path / "model")
    shutil.rmtree(clip)

    loaded = load_model(tmp_path / "model")

    assert loaded.config.class_names == ("metal_nut", "01", "object")
    assert torch.equal(loaded.score(IMAGES, ["metal_nut", "01"]).patch_map, expected)
    with pytest.raises(WeightsError, match="clip"):
        with_prompts(loaded, ["cable"], offline=True)


def test_baked_prompts_say_the_words_and_not_the_folder_name(tiny_vit: Path, clip: Path) -> None:
    model = new_model(settings(tiny_vit, clip), WORDS)
    assert isinstance(model.head, AdDinoV3)
    encoder = load_clip_text(str(clip), activation="quick_gelu")

    for row, words in enumerate(("metal nut", "bottle", "object")):
        sentences = DEFAULT_PROMPTS.sentences(words)
        for state, said in enumerate((sentences.normal, sentences.abnormal)):
            embeddings = torch.nn.functional.normalize(encoder.encode_sentences(said), dim=-1)
            mean = torch.nn.functional.normalize(embeddings.mean(0), dim=0)
            torch.testing.assert_close(model.head.prompts[row, state], mean, atol=1e-5, rtol=0)


def test_released_preset_speaks_raw_names_with_exact_gelu(tiny_vit: Path, clip: Path) -> None:
    released, usual = (
        new_model(settings(tiny_vit, clip, preset), {"metal_nut": "metal nut"}) for preset in ("released", "default")
    )
    assert isinstance(released.head, AdDinoV3)
    assert isinstance(usual.head, AdDinoV3)
    assert not torch.allclose(released.head.prompts, usual.head.prompts, atol=1e-4)


def test_further_classes_are_added_beside_the_baked_ones(tiny_vit: Path, clip: Path) -> None:
    model = new_model(settings(tiny_vit, clip), WORDS)
    before = model.score(IMAGES[:1], ["01"]).patch_map

    more = with_prompts(model, ["cable", "01"])

    assert more.config.class_names == ("metal_nut", "01", "object", "cable")
    assert torch.equal(more.score(IMAGES[:1], ["01"]).patch_map, before)
    assert more.score(IMAGES[:1], ["cable"]).patch_map.shape == before.shape


def test_folder_holds_everything_but_the_backbone(tmp_path: Path, tiny_vit: Path, clip: Path) -> None:
    model = new_model(settings(tiny_vit, clip), WORDS)
    save_model(model, tmp_path / "model", card="\n## Figures\n\nnone yet\n")

    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "head.safetensors", "training_images.txt", "README.md", "NOTICE.md"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "library_name: ad-dinov3" in card
    assert "none yet" in card
    assert json.loads((tmp_path / "model" / "config.json").read_text())["format_version"] == 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not a saved model"),
        (lambda folder: (folder / "head.safetensors").write_bytes(b"half"), "not a saved model"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a saved model"),
    ],
)
def test_damaged_folder_is_refused(tmp_path: Path, tiny_vit: Path, clip: Path, damage: object, words: str) -> None:
    save_model(new_model(settings(tiny_vit, clip)), tmp_path / "model")
    assert callable(damage)
    damage(tmp_path / "model")
    with pytest.raises(WeightsError, match=words):
        load_model(tmp_path / "model")


def test_config_of_a_later_version_is_refused_by_key(tmp_path: Path, tiny_vit: Path, clip: Path) -> None:
    save_model(new_model(settings(tiny_vit, clip)), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_the_future": 1}))
    with pytest.raises(ConfigError, match="from_the_future"):
        load_model(tmp_path / "model")


def test_head_of_another_shape_is_refused(tmp_path: Path, tiny_vit: Path, tiny_convnext: Path, clip: Path) -> None:
    save_model(new_model(settings(tiny_vit, clip)), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encoder": str(tiny_convnext)}))
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("method", ["dinov3_plain", "mahalanobis"])
def test_method_without_tensors_is_saved_and_loaded_like_others(method: str, tmp_path: Path, tiny_vit: Path) -> None:
    model = open_method(method, "embedded", str(tiny_vit) if method == "dinov3_plain" else None, offline=True)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, offline=True)
    assert (loaded.config, loaded.fingerprint) == (model.config, model.fingerprint)
    assert torch.equal(loaded.score(IMAGES, ["a", "b"]).patch_map, model.score(IMAGES, ["a", "b"]).patch_map)
    with pytest.raises(ConfigError, match=f"is a model of {method}, not of winclip"):
        open_method("winclip", str(tmp_path), offline=True)


def test_unknown_model_names_the_ways(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a folder here"):
        load_model("nobody/nothing", offline=True)


def test_settings_refuse_unknown_keys_and_values() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'method\.tokenz'"):
        PRESETS["default"].with_settings({"method.tokenz": "raw"})
    with pytest.raises(ConfigError, match=r"method\.tokens"):
        PRESETS["default"].with_settings({"method.tokens": "rare"})


def test_model_with_further_prompts_leaves_the_old_one_as_it_was(tiny_vit: Path, clip: Path) -> None:
    model = new_model(settings(tiny_vit, clip), WORDS)
    before = (model.config, model.head.class_names, model.fingerprint)

    wider = with_prompts(model, ["cable"])

    assert (model.config, model.head.class_names, model.fingerprint) == before
    assert wider.head.class_names == (*model.head.class_names, "cable") == wider.config.class_names
    assert wider.encoder is model.encoder
    with pytest.raises(ConfigError, match="no prompts for cable"):
        model.score(IMAGES, ["cable", "object"])


def test_query_of_a_new_class_changes_neither_the_detector_nor_what_it_saves(
    tmp_path: Path, tiny_vit: Path, clip: Path
) -> None:
    detector = Detector(new_model(settings(tiny_vit, clip), WORDS))
    model, fingerprint = detector.model, detector.fingerprint

    first = detector.score(IMAGES.numpy(), ["cable", "object"])
    shutil.rmtree(clip)  # asked for again, a class needs no text encoder any more
    again = detector.score(IMAGES.numpy(), ["cable", "object"])

    assert (detector.model, detector.fingerprint) == (model, fingerprint)
    assert (first.maps == again.maps).all()
    detector.save_pretrained(tmp_path / "model")
    assert load_model(tmp_path / "model").fingerprint == fingerprint
