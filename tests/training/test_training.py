"""Training: reproducible bit for bit, resumable after a kill, honest about what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ad_dinov3.config import PRESETS, ModelConfig
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.encoders.cache import open_group
from ad_dinov3.errors import ConfigError, DataError, TrainingError
from ad_dinov3.files import held
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import Model, load_model, new_model
from ad_dinov3.training.augment import augment, mosaics
from ad_dinov3.training.loop import Progress, RunOptions, learning_rate, read_training_set, train
from ad_dinov3.training.output import LOG

QUICK = {
    "input.height": 32,
    "input.width": 40,
    "method.prompts.source": "learned",
    "method.width": 8,
    "train.epochs": 3,
    "train.batch_size": 4,
    "train.learning_rate": 1e-2,
}


def quick(weights: Path, **changes: object) -> ModelConfig:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return PRESETS["default"].with_settings(QUICK | {"encoder": str(weights)} | dotted)


def state(model: Model) -> dict[str, torch.Tensor]:
    assert isinstance(model.head, AdDinoV3)
    return {name: tensor.clone() for name, tensor in model.head.state_dict().items()}


def assert_equal_bits(one: Model, other: Model) -> None:
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["total"] for line in (folder / LOG).read_text().splitlines()]


def test_loss_falls_and_the_saved_model_gives_the_trained_maps(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    config = quick(tiny_vit, train__epochs=15)
    trained = train(new_model(config), read_folder(squares), tmp_path / "m")
    loaded = load_model(tmp_path / "m")

    totals = losses(tmp_path / "m")
    assert np.mean(totals[-3:]) < 0.8 * np.mean(totals[:3])
    assert_equal_bits(trained, loaded)
    assert loaded.config == trained.config
    assert loaded.training_images == trained.training_images
    assert len(loaded.training_images) == 10
    assert loaded.fingerprint == trained.fingerprint
    images = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8)
    assert torch.equal(loaded.score(images, ["a", "b"]).patch_map, trained.score(images, ["a", "b"]).patch_map)


def test_two_runs_with_one_seed_agree_bit_for_bit_and_another_seed_does_not(
    tmp_path: Path, tiny_vit: Path, squares: Path
) -> None:
    samples = read_folder(squares)
    runs = [
        train(new_model(config), samples, tmp_path / name)
        for name, config in (
            ("a", quick(tiny_vit)),
            ("b", quick(tiny_vit)),
            ("c", quick(tiny_vit, train__seed=1)),
        )
    ]
    assert_equal_bits(runs[0], runs[1])
    assert not torch.equal(state(runs[0])["prompts"], state(runs[2])["prompts"])


class Killed(Exception):
    pass


@pytest.mark.parametrize("cache", [True, False])
def test_killed_run_resumes_to_the_same_bits_and_log(
    tmp_path: Path, tiny_vit: Path, squares: Path, cache: bool
) -> None:
    config, samples = quick(tiny_vit, train__augment=not cache), read_folder(squares)
    whole = train(new_model(config), samples, tmp_path / "whole", RunOptions(cache=cache))

    def kill(progress: Progress) -> None:
        if progress.phase == "train" and progress.done == 8:  # in the third epoch
            raise Killed

    with pytest.raises(Killed):
        train(new_model(config), samples, tmp_path / "cut", RunOptions(cache=cache, report=kill))
    resumed = train(new_model(config), samples, tmp_path / "cut", RunOptions(cache=cache, resume=True))

    assert_equal_bits(whole, resumed)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_run_can_be_prolonged_by_resuming_with_more_epochs(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    samples = read_folder(squares)
    whole = train(new_model(quick(tiny_vit)), samples, tmp_path / "whole")
    train(new_model(quick(tiny_vit, train__epochs=1)), samples, tmp_path / "cut")
    prolonged = train(new_model(quick(tiny_vit)), samples, tmp_path / "cut", RunOptions(resume=True))

    assert_equal_bits(whole, prolonged)


def test_a_second_run_into_a_folder_is_refused(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    samples = read_folder(squares)
    with held(tmp_path / "m"), pytest.raises(ConfigError, match="another run is writing there"):
        train(new_model(quick(tiny_vit)), samples, tmp_path / "m")
    train(new_model(quick(tiny_vit)), samples, tmp_path / "m")


def test_what_a_killed_run_left_in_the_cache_is_removed(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    model = new_model(quick(tiny_vit))
    group = open_group(model.encoder.spec, model.config.input.size, model.config.input.interpolation)
    leave = """
import os, pathlib, sys
from ad_dinov3.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as unfinished:
    unfinished.touch()
    os._exit(9)
"""
    killed = [sys.executable, "-c", leave, str(group.folder / "x.safetensors")]
    assert subprocess.run(killed, check=False).returncode == 9
    (left,) = group.folder.glob(".x.safetensors.*.part")
    train(model, read_folder(squares), tmp_path / "m")
    assert not left.exists()


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    samples = read_folder(squares)
    train(new_model(quick(tiny_vit)), samples, tmp_path)

    with pytest.raises(TrainingError, match="other settings or data"):
        train(new_model(quick(tiny_vit, method__loss__aacm=0.1)), samples, tmp_path, RunOptions(resume=True))


def test_cached_and_live_training_agree_within_half_precision(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    samples = read_folder(squares)
    config = quick(tiny_vit, train__learning_rate=1e-3)
    train(new_model(config), samples, tmp_path / "cached")
    train(new_model(config), samples, tmp_path / "live", RunOptions(cache=False))

    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "live"), rel=1e-2)
    assert losses(tmp_path / "cached") != losses(tmp_path / "live")


def test_cache_is_filled_once_and_announced_before(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    announced: list[tuple[int, int]] = []
    phases: list[str] = []
    options = RunOptions(
        announce=lambda needed, present: announced.append((needed, present)),
        report=lambda progress: phases.append(progress.phase),
    )
    for name in ("first", "second"):
        train(new_model(quick(tiny_vit)), read_folder(squares), tmp_path / name, options)

    (first, empty), (second, present) = announced
    assert first > 0 == empty
    assert second == 0 < present
    assert phases.count("features") == phases.index("train")


def test_run_after_damage_to_the_cache_is_the_run_before_it(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    config, samples = quick(tiny_vit, input__width=48), read_folder(squares)  # a group of its own
    whole = train(new_model(config), samples, tmp_path / "whole")
    group = open_group(whole.encoder.spec, (32, 48), config.input.interpolation)
    assert group.shards
    for shard in group.shards:
        shard.write_bytes(shard.read_bytes()[:-2000] + np.random.default_rng(0).bytes(2000))

    assert_equal_bits(train(new_model(config), samples, tmp_path / "again"), whole)


def test_nan_stops_with_epoch_step_and_files(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    model = new_model(quick(tiny_vit))
    assert isinstance(model.head, AdDinoV3)
    with torch.no_grad():
        model.head.prompts.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"nan at epoch 1, step 1, on .*\.png"):
        train(model, read_folder(squares), tmp_path)


def test_augmentation_with_the_cache_is_refused(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    with pytest.raises(ConfigError, match="--no-cache"):
        train(new_model(quick(tiny_vit, train__augment=True)), read_folder(squares), tmp_path)


def test_training_without_anomalies_is_refused(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    normal = [sample for sample in read_folder(squares) if not sample.is_anomalous]

    with pytest.raises(DataError, match="none among 4"):
        train(new_model(quick(tiny_vit)), normal, tmp_path)


def test_masks_survive_packing(squares: Path) -> None:
    data = read_training_set(read_folder(squares), (40, 48))
    areas = sorted(int(data.mask(row).sum()) for row in range(10))
    assert areas == [0] * 4 + [144] * 6


def test_warm_up_rises_from_zero_and_then_stays() -> None:
    config = PRESETS["released"]
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert rates[0] == 0
    assert rates[15] == pytest.approx(0.5e-5)
    assert rates[30] == rates[999] == 1e-5


def test_augmentation_moves_image_and_mask_together() -> None:
    rng = np.random.default_rng(0)
    masks = torch.zeros(8, 32, 32)
    masks[:, 4:12, 16:28] = 1
    images = (50 + 100 * masks[:, None].expand(-1, 3, -1, -1)).to(torch.uint8)

    for _ in range(5):
        changed, moved = augment(images, masks, rng)
        assert changed.dtype == torch.uint8
        assert torch.equal(changed[:, 0] > 100, moved > 0.5)


def test_mosaic_is_anomalous_if_one_of_its_parts_is() -> None:
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32) * 10
    labels = torch.tensor([True, False, False, False, False, False, False, False])  # its defect is too small for a mask

    made, masks, found = mosaics(images, torch.zeros(8, 32, 32), labels, 1.0, np.random.default_rng(0))

    corners = made[:, 0, ::31, ::31].flatten(1)  # each part is one grey level, ten times its row
    assert found.tolist() == [bool((row == 0).any()) for row in corners]
    assert 0 < found.sum() < 8
    assert masks.sum() == 0
    same = mosaics(images, torch.zeros(8, 32, 32), labels, 0.0, np.random.default_rng(0))
    assert torch.equal(same[0], images)
    assert torch.equal(same[2], labels)


def test_augmentation_and_mosaics_together_follow_from_the_seed(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    config = quick(tiny_vit, train__augment=True, train__mosaic_share=0.5, train__epochs=1)
    samples, options = read_folder(squares), RunOptions(cache=False)
    runs = [train(new_model(config), samples, tmp_path / name, options) for name in ("a", "b")]
    plain = train(new_model(quick(tiny_vit, train__augment=True, train__epochs=1)), samples, tmp_path / "c", options)

    assert_equal_bits(*runs)
    assert not torch.equal(state(runs[0])["prompts"], state(plain)["prompts"])


@pytest.mark.parametrize("cache", [True, False])
def test_image_whose_defect_vanishes_in_the_resize_is_trained_as_anomalous(
    tmp_path: Path, tiny_vit: Path, squares: Path, cache: bool
) -> None:
    labels: list[torch.Tensor] = []

    class Watching(AdDinoV3):
        def losses(self, *arguments: Any) -> dict[str, torch.Tensor]:
            labels.append(torch.stack([arguments[3], arguments[2].flatten(1).any(1)]))
            return super().losses(*arguments)

    folder = tmp_path / "data" / "tile"
    for name, defect in (("good", False), ("dot", True)):
        (folder / "test" / name).mkdir(parents=True)
        pixels = np.full((400, 480, 3), 90, np.uint8)
        Image.fromarray(pixels).save(folder / "test" / name / "000.png")
        if defect:
            mask = np.zeros((400, 480), np.uint8)
            mask[201, 201] = 255
            (folder / "ground_truth" / name).mkdir(parents=True)
            Image.fromarray(mask).save(folder / "ground_truth" / name / "000_mask.png")
    model = new_model(quick(tiny_vit, train__epochs=1, train__mask_rule="bilinear_half"))
    assert isinstance(model.head, AdDinoV3)
    model.head.__class__ = Watching

    train(model, read_folder(tmp_path / "data"), tmp_path / "out", RunOptions(cache=cache))

    listed, left_in_mask = labels[0]
    assert sorted(listed.tolist()) == [False, True]
    assert not left_in_mask.any()


@pytest.mark.parametrize("changes", [{}, {"train__augment": True, "train__mosaic_share": 0.5}])
def test_two_processes_train_to_the_same_model_and_log_as_one(
    tmp_path: Path, tiny_vit: Path, squares: Path, changes: dict[str, object]
) -> None:
    config = quick(tiny_vit, train__batch_size=3, **changes)  # of 10 images: the last step has one for two processes
    settings = tmp_path / "settings.json"
    settings.write_text(config.model_dump_json(include={"encoder", "input", "prompts", "method", "train"}))
    words = ["train", "--data", str(squares), "--settings", str(settings), *["--no-cache"] * bool(changes)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    launch += ["--nproc-per-node", "2", "-m", "ad_dinov3"]
    environ = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}  # the host's own name need not resolve

    ran = subprocess.run([*launch, *words, "--out", str(tmp_path / "two")], capture_output=True, text=True, env=environ)
    assert ran.returncode == 0, ran.stderr
    train(new_model(config), read_folder(squares), tmp_path / "one", RunOptions(cache=not changes))

    one, two = state(load_model(tmp_path / "one")), state(load_model(tmp_path / "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-3, rtol=0)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_model_without_a_trainable_head_is_refused(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    from ad_dinov3.methods.table import borrowing

    model = new_model(borrowing("dinov3_plain", quick(tiny_vit)))
    with pytest.raises(ConfigError, match="nothing to train"):
        train(replace(model), read_folder(squares), tmp_path)
