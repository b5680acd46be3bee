"""benchmark as a person meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import learned_model, vit_folder
from typer.testing import CliRunner

from ad_dinov3.cli.benchmark import app
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.model import save_model

RUN = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/, and its export for torch alone, twice under one name: line/ and other/line/."""
    root = tmp_path_factory.mktemp("models")
    model = learned_model(vit_folder(root / "vit"), method__rarity=0)
    save_model(model, root / "model")
    export_model(Detector(model), "model", root / "line", ExportOptions("pt2", size=(32, 32)))
    shutil.copytree(root / "line", root / "other" / "line")
    return root


def write_set(folder: Path) -> None:
    """Four grey plates in MVTec's layout, two of them with a bright square."""
    plate = np.random.default_rng(0).integers(90, 110, (48, 48, 3)).astype(np.uint8)
    marked, mask = plate.copy(), np.zeros((48, 48), np.uint8)
    marked[8:20, 8:20], mask[8:20, 8:20] = 255, 255
    for index in range(2):
        for kind, image in (("good", plate), ("hole", marked)):
            (folder / "plate" / "test" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "plate" / "test" / kind / f"{index}.png")
        (folder / "plate" / "ground_truth" / "hole").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / "plate" / "ground_truth" / "hole" / f"{index}_mask.png")


def test_a_model_and_its_export_are_timed_side_by_side(models: Path, tmp_path: Path) -> None:
    rows = tmp_path / "speed.jsonl"
    arguments = [str(models / "model"), str(models / "line"), "--rounds", "2", "--threads", "1", "-o", str(rows)]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "line (pt2" in result.output
    assert "wall x" in result.output
    assert "CPU x" in result.output
    assert "…" not in result.output
    measured = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["calls"] for row in measured] == [2, 2]
    assert all(row["memory_mb"] is None or row["memory_mb"] >= 0 for row in measured)
    with pytest.raises(ConfigError, match="no model takes"):
        RUN.invoke(app, [str(models / "line"), "--size", "64"], catch_exceptions=False)


def test_accuracy_belongs_to_the_model_whatever_its_name_begins_with(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "parts")
    folders = [str(models / name) for name in ("line", "other/line", "model")]
    values = dict(zip(folders, (0.25, 0.5, 0.75), strict=True))
    monkeypatch.setattr("ad_dinov3.cli.benchmark._accuracy", lambda console, models, test_set, where: values)
    rows = tmp_path / "speed.jsonl"
    arguments = [*folders, "--rounds", "1", "--threads", "1", "-o", str(rows), "--data", str(tmp_path / "parts")]
    assert RUN.invoke(app, arguments, catch_exceptions=False).exit_code == 0
    measured = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {row["model"]: row["pixel_auroc"] for row in measured} == values
    assert len({row["name"] for row in measured}) == 3


def test_data_draw_accuracy_against_time(models: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "parts")
    rows = tmp_path / "speed.jsonl"
    arguments = [str(models / "model"), "--rounds", "1", "--threads", "1", "-o", str(rows), "--size", "32"]
    result = RUN.invoke(app, [*arguments, "--data", str(tmp_path / "parts")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in rows.read_text().splitlines()]
    assert 0 <= row["pixel_auroc"] <= 1
    assert "ms per image" in (tmp_path / "speed-32x32-1.svg").read_text()


def test_what_cannot_be_timed_is_refused_before_torch_is_loaded(tmp_path: Path, refused: Callable[..., str]) -> None:
    write_set(tmp_path / "mtd")
    out = ("--out", str(tmp_path / "speed.jsonl"))
    assert "no such model" in refused("benchmark", "embedded", "./gone")
    assert "expected a number of px" in refused("benchmark", "embedded", "--size", "big")
    assert "--data needs --out" in refused("benchmark", "embedded", "--data", str(tmp_path))
    assert "embedded was trained on mtd" in refused("benchmark", "embedded", "--data", str(tmp_path / "mtd"), *out)
    shutil.rmtree(tmp_path / "mtd" / "plate" / "ground_truth")
    assert "masks are needed here" in refused("benchmark", "embedded", "--data", str(tmp_path / "mtd"), *out)
