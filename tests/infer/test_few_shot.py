"""Normal images for WinCLIP+ and few-shot APRIL-GAN: remembered, saved, found in folders, refused where useless."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import plain_clip as plain
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ad_dinov3.cli import evaluate, predict, remember
from ad_dinov3.config import PRESETS
from ad_dinov3.data.normals import find_normals
from ad_dinov3.errors import ConfigError, DataError, WeightsError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.model import Model, new_model, save_model

FEW_SHOT = ("winclip", "april_gan")


def new(method: str, clip: str) -> Model:
    small = {"encoder": clip, "input.height": 24, "input.width": 24}
    return new_model(PRESETS[method].with_settings(small), {"tile": "tile"}, offline=True)


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    """Two normal images of a tile and one of a nut, each in its own folder."""
    draw = np.random.default_rng(5)
    for name in ("tile/1.png", "tile/deep/2.png", "nut/1.png"):
        path = tmp_path / "normals" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (30, 30, 3)).astype(np.uint8)).save(path)
    return tmp_path / "normals"


def photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png"))


def run(command: object, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))  # type: ignore[arg-type]
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.parametrize("method", FEW_SHOT)
def test_few_shot_model_predicts_after_saving_without_the_normal_images(
    method: str, clip: str, normals: Path, tmp_path: Path
) -> None:
    detector = Detector(new(method, clip), offline=True)
    image = plain.images(1, 30, 30)[0].permute(1, 2, 0).numpy()
    before, zero_shot = detector.predict(image, "tile"), detector.fingerprint
    detector.remember(photos(normals / "tile"), "tile")
    few_shot = detector.predict(image, "tile")
    assert not np.array_equal(before.anomaly_map, few_shot.anomaly_map)
    detector.save_pretrained(tmp_path / "model")
    assert "compares with normal images of: tile" in (tmp_path / "model" / "README.md").read_text()
    shutil.rmtree(normals)
    loaded = load(tmp_path / "model", offline=True)
    np.testing.assert_array_equal(loaded.predict(image, "tile").anomaly_map, few_shot.anomaly_map)
    assert loaded.predict(image, "tile").score == few_shot.score
    assert loaded.fingerprint == detector.fingerprint != zero_shot  # else stored scores would be taken for these
    assert loaded.normal_classes == ("tile",)
    assert len(loaded.model.training_images) == 2
    with pytest.raises(ConfigError, match="no reference images of object; there are tile"):
        loaded.predict(image, "object")


@pytest.mark.parametrize("method", FEW_SHOT)
def test_images_remembered_in_parts_equal_those_of_one_pass(method: str, clip: str, normals: Path) -> None:
    one, other = (Detector(new(method, clip), offline=True) for _ in range(2))
    paths = photos(normals) * 4  # more than are encoded at once
    one.remember(paths, "tile")
    inputs = torch.stack([torch.from_numpy(other.prepare(np.asarray(Image.open(path)))) for path in paths])
    head = other.model.head
    head.remember("tile", [head.memory([other.model.encoder.encode(inputs)])])  # type: ignore[attr-defined]
    image = plain.images(1, 24, 24)
    maps = [each.model.score(image, ["tile"]).patch_map for each in (one, other)]
    torch.testing.assert_close(maps[0], maps[1], atol=1e-5, rtol=0)


def test_a_method_without_a_memory_of_its_own_compares_tokens_if_it_has_any(clip: str, normals: Path) -> None:
    detector = Detector(new("anomalyclip", clip), offline=True)
    assert "with your 2 good images" in str(detector.remember(photos(normals / "tile"), "tile"))
    assert detector.predict(photos(normals / "nut")[0], "tile").p_value in (1 / 3, 2 / 3, 1.0)
    with pytest.raises(ConfigError, match="AdaCLIP has no tokens by which images can be compared"):
        Detector(new("adaclip", clip), offline=True).remember(photos(normals), "tile")


def test_saving_without_memory_removes_an_earlier_one_and_broken_memories_are_refused(
    clip: str, normals: Path, tmp_path: Path
) -> None:
    detector = Detector(new("winclip", clip), offline=True)
    detector.remember(photos(normals), "tile")
    detector.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "memory.safetensors"
    tensors = load_file(file)
    assert set(tensors) == {"0/tile", "1/tile", "2/tile"}
    save_file({name: tensor for name, tensor in tensors.items() if name != "1/tile"}, file)
    with pytest.raises(WeightsError, match="same levels of every class"):
        load(tmp_path / "model", offline=True)
    file.write_bytes(b"broken")
    with pytest.raises(WeightsError, match="remember the normal images again"):
        load(tmp_path / "model", offline=True)
    save_model(new("winclip", clip), tmp_path / "model")
    assert load(tmp_path / "model", offline=True).normal_classes == ()


def test_folders_of_normal_images_are_read_by_class(normals: Path) -> None:
    both = {"nut": ["1.png"], "tile": ["1.png", "2.png"]}
    assert {name: [path.name for path in paths] for name, paths in find_normals(normals).items()} == both
    assert set(find_normals(normals, ["tile", "nut"])) == set(both)
    assert len(find_normals(normals, ["tile"])["tile"]) == 2  # its own sub-folder
    assert len(find_normals(normals, ["cable"])["cable"]) == 3  # the whole folder: the only class
    with pytest.raises(ConfigError, match="there is none for cable"):
        find_normals(normals, ["tile", "cable"])
    with pytest.raises(ConfigError, match="no such folder"):
        find_normals(normals / "absent")
    (normals / "empty").mkdir()
    with pytest.raises(ConfigError, match="no normal images in"):
        find_normals(normals)


@pytest.mark.parametrize("method", FEW_SHOT)
def test_commands_remember_and_predict_agree(method: str, clip: str, normals: Path, tmp_path: Path) -> None:
    save_model(new(method, clip), tmp_path / "zero")
    Image.fromarray(plain.images(1, 30, 30)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    text = run(remember.app, str(normals), "-o", str(tmp_path / "few"), "--model", str(tmp_path / "zero"), "--offline")
    assert "tile: 2 normal images" in text
    assert "compared with 2 good images, which promise nothing of false alarms" in " ".join(text.split())
    assert f"--model {tmp_path / 'few'}\n" in text  # on one line, to copy
    common = (str(tmp_path / "photo.png"), "--class-name", "tile", "--offline")
    run(predict.app, *common, "-o", str(tmp_path / "a"), "--model", str(tmp_path / "few"))
    zero = ("--model", str(tmp_path / "zero"))
    run(predict.app, *common, "-o", str(tmp_path / "b"), *zero, "--normals", str(normals))
    run(predict.app, *common, "-o", str(tmp_path / "c"), *zero)
    saved, live, without = (
        json.loads((tmp_path / one / "results.jsonl").read_text().splitlines()[-1]) for one in "abc"
    )
    assert saved["score"] == live["score"] != without["score"]
    title = {"winclip": "WinCLIP", "april_gan": "APRIL-GAN"}[method]
    assert f"{title}, few-shot (tile)" in (tmp_path / "b" / "report.html").read_text()
    assert "few-shot" not in (tmp_path / "c" / "report.html").read_text()


def test_evaluate_takes_normal_images_names_them_in_its_rows_and_refuses_test_images(
    clip: str, squares: Path, tmp_path: Path
) -> None:
    save_model(new("april_gan", clip), tmp_path / "zero")
    (tmp_path / "normals").mkdir()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "normals" / "1.png")
    common = ("--data", str(squares), "--model", str(tmp_path / "zero"), "--offline")
    for out, more in (("zero_shot", ()), ("few_shot", ("--normals", str(tmp_path / "normals")))):
        run(evaluate.app, *common, "--out", str(tmp_path / out), *more)
    zero, few = (
        json.loads((tmp_path / out / "rows.jsonl").read_text().splitlines()[0]) for out in ("zero_shot", "few_shot")
    )
    assert few["model"].endswith("zero + 1 normal images")
    assert few["weights_hash"] != zero["weights_hash"]
    assert few["method"] == zero["method"] == "april_gan"
    with pytest.raises(DataError, match="among the training or normal images"):
        run(evaluate.app, *common, "--out", str(tmp_path / "leak"), "--normals", str(squares))
    with pytest.raises(ConfigError, match=r"Mahalanobis .* has no tokens by which images can be compared"):
        run(evaluate.app, *common, "--method", "mahalanobis", "--normals", str(tmp_path / "normals"))
