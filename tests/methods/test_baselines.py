"""Baselines as models: saved, loaded, read from their authors' checkpoints, trained, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import plain_clip as plain
import pytest
import torch
from typer.testing import CliRunner

from ad_dinov3.cli import train as train_command
from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods.table import METHODS, parts_of
from ad_dinov3.model import load_model, new_model, normal_classes, open_method, save_model, with_normals, with_prompts
from ad_dinov3.training.loop import RunOptions, train

ON_CLIP = ("winclip", "april_gan", "anomalyclip", "adaclip")
TRAINED = ON_CLIP[1:]


def settings(method: str, clip: str) -> ModelConfig:
    small = {"encoder": clip, "input.height": 24, "input.width": 24, "train.epochs": 1, "train.batch_size": 4}
    return PRESETS[method].with_settings(small)


@pytest.mark.parametrize("method", ON_CLIP)
def test_saved_baseline_gives_the_same_map_and_fingerprint(method: str, clip: str, tmp_path: Path) -> None:
    model = new_model(settings(method, clip), {"metal_nut": "metal nut"}, offline=True)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", offline=True)
    images = plain.images(2, 24, 24)
    before, after = (each.score(images, ["metal_nut", "object"]) for each in (model, loaded))
    assert torch.equal(before.patch_map, after.patch_map)
    assert torch.equal(before.image_score, after.image_score)
    assert model.fingerprint == loaded.fingerprint
    assert before.patch_map.shape == (2, 24, 24)
    assert 0 <= float(before.patch_map.min()) <= float(before.patch_map.max()) <= 1


@pytest.mark.parametrize("method", ON_CLIP)
def test_new_class_gets_prompts_and_leaves_known_ones_alone(method: str, clip: str) -> None:
    model = new_model(settings(method, clip), offline=True)
    image = plain.images(1, 24, 24)
    before = model.score(image, ["object"]).patch_map
    wider = with_prompts(model, ["bottle"], offline=True)
    wider.score(image, ["bottle"])
    assert torch.equal(before, wider.score(image, ["object"]).patch_map)
    assert wider.config.class_names == (() if method == "anomalyclip" else ("object", "bottle"))


@pytest.mark.parametrize("method", ["winclip", "april_gan", "adaclip"])
def test_class_words_matter_where_a_folders_name_is_not_what_people_say(method: str, clip: str) -> None:
    image = plain.images(1, 24, 24)
    words = {"metal_nut": "metal nut", "bottle": "bottle"}
    folder, said = (
        new_model(settings(method, clip).with_settings({"method.class_words": kind}), words, offline=True)
        for kind in ("folder", "words")
    )
    for name, differs in (("metal_nut", True), ("bottle", False)):
        maps = [each.score(image, [name]).patch_map for each in (folder, said)]
        assert torch.equal(*maps) is not differs


@pytest.mark.parametrize("method", ON_CLIP)
def test_batch_of_four_equals_four_of_one_from_pixels_on(method: str, clip: str) -> None:
    model = new_model(settings(method, clip), {"metal_nut": "metal nut"}, offline=True)
    images, names = plain.images(4, 24, 24), ["object", "metal_nut"] * 2
    whole = model.score(images, names)
    for row, name in enumerate(names):
        single = model.score(images[row : row + 1], [name])
        torch.testing.assert_close(whole.patch_map[row : row + 1], single.patch_map, atol=1e-4, rtol=0)
        torch.testing.assert_close(whole.image_score[row : row + 1], single.image_score, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["winclip", "dinov3_plain"])
def test_train_refuses_what_is_not_trained_and_says_what_to_do(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} is not trained.*predict --method {method}"):
        CliRunner().invoke(train_command.app, ["--data", "x", "--out", "y", "--method", method], catch_exceptions=False)


@pytest.mark.parametrize("method", TRAINED)
def test_checkpoint_of_the_authors_opens_as_a_model(method: str, clip: str, tmp_path: Path) -> None:
    made = new_model(settings(method, clip).with_settings({"train.seed": 7}), offline=True)
    file = tmp_path / "authors.pth"
    torch.save(parts_of(method).write_authors(made.head), file)  # type: ignore[misc]
    opened = open_method(method, str(file), clip, offline=True)
    image = plain.images(1, 24, 24)
    assert torch.equal(made.score(image, ["object"]).patch_map, opened.score(image, ["object"]).patch_map)
    other = TRAINED[(TRAINED.index(method) + 1) % 3]
    with pytest.raises(WeightsError, match=r"missing.*unknown"):
        open_method(other, str(file), clip, offline=True)


def test_untrained_baseline_is_refused_and_winclip_is_not(clip: str) -> None:
    with pytest.raises(ConfigError, match=r"adaclip must be trained.*with --model, or .*--method adaclip"):
        open_method("adaclip", "embedded", clip, offline=True)
    assert open_method("winclip", "embedded", clip, offline=True).config.input.size == (240, 240)
    with pytest.raises(
        ConfigError, match="there are ad_dinov3, dinov3_plain, winclip, april_gan, anomalyclip, adaclip"
    ):
        open_method("padim", "embedded", clip, offline=True)


def test_model_of_another_method_is_refused(clip: str, tmp_path: Path) -> None:
    save_model(new_model(settings("april_gan", clip), offline=True), tmp_path / "model")
    with pytest.raises(ConfigError, match="is a model of april_gan, not of adaclip"):
        open_method("adaclip", str(tmp_path / "model"), offline=True)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("cache", [True, False])
def test_training_saves_a_model_that_scores_otherwise(
    method: str, cache: bool, clip: str, squares: Path, tmp_path: Path
) -> None:
    model = new_model(settings(method, clip), {"tile": "tile"}, offline=True)
    image = plain.images(1, 24, 24)
    before = model.score(image, ["object"]).patch_map
    train(model, read_folder(squares), tmp_path / "out", RunOptions(cache=cache))
    loaded = load_model(tmp_path / "out", offline=True)
    assert not torch.equal(before, loaded.score(image, ["object"]).patch_map)
    assert len(loaded.training_images) == 10


def test_winclip_has_nothing_to_train(clip: str, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        train(new_model(settings("winclip", clip), offline=True), read_folder(squares), tmp_path / "out")


def test_mosaics_need_live_encoding(clip: str, squares: Path, tmp_path: Path) -> None:
    config = settings("april_gan_mvtec", clip)
    assert (config.train.mosaic_share, PRESETS["april_gan_mvtec"].train.epochs) == (0.2, 3)
    model = new_model(config, {"tile": "tile"}, offline=True)
    with pytest.raises(ConfigError, match="--no-cache"):
        train(model, read_folder(squares), tmp_path / "out")
    train(model, read_folder(squares), tmp_path / "out", RunOptions(cache=False))


def test_presets_are_what_the_authors_trained_with() -> None:
    found = {
        name: (p.train.optimizer, p.train.learning_rate, p.train.betas, p.train.epochs, p.train.batch_size)
        for name, p in PRESETS.items()
        if METHODS[p.method.kind].is_trained and p.method.kind != "ad_dinov3"
    }
    assert found["april_gan"] == ("adam", 1e-3, (0.5, 0.999), 15, 8)
    assert found["anomalyclip"] == ("adam", 1e-3, (0.5, 0.999), 15, 8)
    assert found["adaclip"] == ("adamw", 1e-2, (0.5, 0.999), 5, 1)
    assert found.pop("uniadet") == ("adamw", 1e-3, (0.9, 0.999), 15, 8)
    assert (PRESETS["uniadet"].train.last_rate, PRESETS["uniadet"].input.size) == (0.1, (512, 512))
    assert all(PRESETS[name].train.seed == 111 for name in found)
    assert all(PRESETS[name].input.size == (518, 518) for name in found)
    assert PRESETS["winclip"].input.size == (240, 240)


@pytest.mark.parametrize("method", ON_CLIP)
def test_model_with_further_prompts_shares_the_towers_and_leaves_the_old_one_as_it_was(method: str, clip: str) -> None:
    model = new_model(settings(method, clip), offline=True)
    before = (model.config, model.head.class_names, model.fingerprint)
    wider = with_prompts(model, ["bottle"], offline=True)
    assert (model.config, model.head.class_names, model.fingerprint) == before
    assert wider.encoder is model.encoder
    assert getattr(wider.head, "frozen", None) is getattr(model.head, "frozen", None)  # the text tower, where it runs
    if method != "anomalyclip":
        assert "bottle" in wider.head.class_names


@pytest.mark.parametrize("method", ["winclip", "april_gan"])
def test_model_with_normal_images_leaves_the_old_one_zero_shot(method: str, clip: str) -> None:
    model = new_model(settings(method, clip), offline=True)
    image, fingerprint = plain.images(1, 24, 24), model.fingerprint
    zero_shot = model.score(image, ["object"]).patch_map
    one = with_normals(model, "object", plain.images(2, 24, 24), ["a" * 64])
    two = with_normals(one, "object", plain.images(3, 24, 24), ["b" * 64])
    assert torch.equal(model.score(image, ["object"]).patch_map, zero_shot)
    assert (model.fingerprint, model.training_images, normal_classes(model)) == (fingerprint, frozenset(), ())
    assert len({model.fingerprint, one.fingerprint, two.fingerprint}) == 3
    assert two.training_images == {"a" * 64, "b" * 64}
