"""config.json of the present and of the first layout: what is written, what is read, what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ad_dinov3.config import PRESETS, ModelConfig, model_config, read_settings
from ad_dinov3.errors import ConfigError
from ad_dinov3.model import load_model, new_model, save_model

OLD = Path(__file__).parent / "version_1"  # as the first release wrote them
CHANGED = {"class_names": ("object",)}


def old(name: str) -> ModelConfig:
    return model_config(json.loads((OLD / f"{name}.json").read_text()), name)


@pytest.mark.parametrize("name", ["winclip", "april_gan_mvtec", "anomalyclip", "adaclip"])
def test_version_1_of_a_baseline_is_its_preset_without_the_sections_of_ad_dinov3(name: str) -> None:
    trained = {} if name == "winclip" else {"method.loss_resolution": "mid"}
    assert old(name) == PRESETS[name].with_settings({**CHANGED, **trained})
    assert not {"prompts", "loss", "width"} & set(old(name).method.model_dump())


def test_version_1_of_ad_dinov3_keeps_its_prompts_head_and_loss() -> None:
    later = {"train.mask_rule": "nearest"}  # a setting that came after; what lacks it has the rule of its time
    expected = PRESETS["released"].with_settings({**CHANGED, **later, "method.loss.resolution": "mid"})
    assert old("released") == expected
    embedded = old("embedded").model_dump()
    assert embedded["method"]["prompts"]["source"] == "learned"
    assert (embedded["method"]["score_offset"], embedded["method"]["loss"]["resolution"]) == (0.9, "full")
    assert "busi" in embedded["trained_on"]


@pytest.mark.parametrize("file", sorted(OLD.glob("*.json")), ids=lambda file: file.stem)
def test_what_was_read_is_written_as_version_2_and_read_again(file: Path) -> None:
    tree = json.loads(old(file.stem).model_dump_json())
    assert tree["format_version"] == 2
    assert not {"prompts", "rival", "loss"} & set(tree)
    assert model_config(tree, "again") == old(file.stem)


def test_version_1_file_given_as_settings_changes_the_same_keys() -> None:
    flat = read_settings(OLD / "embedded.json")
    assert flat["method.prompts.source"] == "learned"
    assert PRESETS["default"].with_settings(flat) == old("embedded")


def test_states_are_written_where_there_are_some_and_are_read_as_settings(tmp_path: Path) -> None:
    published = PRESETS["winclip"]
    assert "states" not in published.model_dump_json()  # fingerprints of earlier versions hold
    states = {"normal": ["clean {}"], "abnormal": ["{} with rust", "bent {}"]}
    worded = published.with_settings({"method.states": states})
    (tmp_path / "config.json").write_text(worded.model_dump_json())
    assert json.loads((tmp_path / "config.json").read_text())["method"]["states"] == states
    assert published.with_settings(read_settings(tmp_path / "config.json")) == worded
    with pytest.raises(ConfigError, match=r"method\.states: Extra inputs"):
        PRESETS["anomalyclip"].with_settings({"method.states": states})
    with pytest.raises(ConfigError, match=r"no setting 'nothing\.states'"):
        published.with_settings({"nothing.states": states})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"format_version": 3}, "layout 3 is of a newer ad-dinov3 than this one"),
        ({"format_version": 0}, "format_version"),
        ({"method": {"kind": "padim"}}, "'padim' .* does not match any of the expected tags: 'ad_dinov3'"),
        ({"method": {"kind": "winclip", "prompts": {}}}, "method.prompts: Extra inputs"),
        ({"method": {"kind": "winclip", "temperature": 0}}, r"method\.temperature: Input should be greater than 0"),
        ({"from_the_future": 1}, "from_the_future"),
    ],
)
def test_what_this_version_does_not_know_is_refused_by_its_key(damage: dict[str, object], named: str) -> None:
    tree = json.loads(PRESETS["winclip"].model_dump_json()) | damage
    with pytest.raises(ConfigError, match=f"(?s)file.*{named}"):
        model_config(tree, "file")


def test_model_folder_of_version_1_gives_the_same_maps(tiny_vit: Path, tmp_path: Path) -> None:
    small = {"encoder": str(tiny_vit), "method.prompts.source": "learned", "method.width": 8}
    model = new_model(PRESETS["default"].with_settings(small))
    save_model(model, tmp_path)
    file = tmp_path / "config.json"
    tree = json.loads(file.read_text())
    method = tree.pop("method")
    del method["kind"]
    first = {key: method.pop(key) for key in ("prompts", "loss")}
    file.write_text(json.dumps({**tree, **first, "method": method, "rival": None, "format_version": 1}))
    loaded = load_model(tmp_path)
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert loaded.fingerprint == model.fingerprint
    assert torch.equal(loaded.score(images, ["x"]).patch_map, model.score(images, ["x"]).patch_map)
