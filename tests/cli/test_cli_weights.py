"""The verbs weights and doctor as a person runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel
from typer.testing import CliRunner

from ad_dinov3.cli import doctor, weights
from ad_dinov3.errors import WeightsError
from ad_dinov3.weights import write_sums

RUN = CliRunner(env={"COLUMNS": "200", "HF_HUB_OFFLINE": "1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    DINOv3ConvNextModel(config).save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_list_shows_every_model_and_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "vits16").symlink_to(folder)
    monkeypatch.setenv("AD_DINOV3_WEIGHTS", str(folder.parent))
    result = RUN.invoke(weights.app, ["list"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert str(folder.parent / "vits16") in lines["dinov3-vits16"]
    assert "not here" in lines["dinov3-vit7b16"]
    assert "AD_DINOV3_WEIGHTS" in result.output


def test_verify_tells_layout_and_shape_and_checks_the_list(folder: Path) -> None:
    write_sums(folder)
    result = RUN.invoke(weights.app, ["verify", str(folder)])
    assert result.exit_code == 0, result.output
    assert "what SHA256SUMS says" in result.output
    assert "ok: mine in Hugging Face's layout" in result.output
    told = json.loads(RUN.invoke(weights.app, ["verify", str(folder), "--json"]).stdout)
    assert told["name"] == "mine"
    assert any("ok: mine in Hugging Face's layout" in line for line in told["found"])


def test_verify_refuses_a_model_that_computes_nothing_finite(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["layer_norm.weight"].fill_(torch.nan)
    save_file(tensors, file)
    result = RUN.invoke(weights.app, ["verify", str(folder)])
    assert isinstance(result.exception, WeightsError)
    assert "expected finite features" in str(result.exception)


def test_download_refuses_the_embedded_model(tmp_path: Path) -> None:
    result = RUN.invoke(weights.app, ["download", "nano", "--out", str(tmp_path)])
    assert isinstance(result.exception, WeightsError)


def test_doctor_reports_what_this_machine_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "vits16").symlink_to(folder)
    monkeypatch.setenv("AD_DINOV3_WEIGHTS", str(folder.parent))
    output = RUN.invoke(doctor.app, []).output
    assert torch.__version__ in output
    for subject in ("python", "transformers", "memory", "disk here", "dinov3-vits16"):
        assert any(line.startswith(("ok", "note")) and subject in line for line in output.splitlines()), subject
    assert "pip install" in output  # of an optional runtime that is not here


def test_doctor_finds_a_torchvision_that_does_not_fit_and_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    metadata = tmp_path / "torchvision-0.28.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    result = CliRunner(env={"COLUMNS": "300"}).invoke(doctor.app, [])
    problem = next(line for line in result.output.splitlines() if line.startswith("problem") and "torchvision" in line)
    assert "0.28.0 does not fit this torch (operator torchvision::nms does not exist)" in problem
    assert "pip uninstall torchvision" in problem
    assert result.exit_code == 1
