"""Folders that are named by label and have no masks, in every command that takes labelled data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ad_dinov3.bench.rows import read_metric_rows
from ad_dinov3.cli import datasets, evaluate, train
from ad_dinov3.errors import DataError


@pytest.fixture
def lab(data_root: Path, tmp_path: Path) -> Path:
    """lab/good and lab/crack, four images each."""
    (data_root / "metal_nut" / "test").rename(tmp_path / "lab")
    (tmp_path / "lab" / "scratch").rename(tmp_path / "lab" / "crack")
    return tmp_path / "lab"


def test_datasets_verify_opens_every_image_and_says_that_there_are_no_masks(
    lab: Path, tmp_path: Path, runner: CliRunner
) -> None:
    command = ["verify", str(lab), "--sheet", str(tmp_path / "sheet.jpg")]
    shown = runner.invoke(datasets.app, command)
    assert shown.exit_code == 0
    assert re.search(r"lab\W+lab\W+4\W+4", shown.output)
    assert "4 anomalous images have a label and no mask" in " ".join(shown.output.split())
    (lab / "crack" / "010.png").write_bytes(b"")
    shown = runner.invoke(datasets.app, command)
    assert shown.exit_code == 3
    assert "the file is empty" in " ".join(shown.output.split())


def test_evaluate_gives_image_metrics_and_na_for_pixels(lab: Path, tmp_path: Path, runner: CliRunner) -> None:
    options = ["--data", str(lab), "--out", str(tmp_path / "r"), "--method", "mahalanobis", "--curves"]
    shown = runner.invoke(evaluate.app, options, catch_exceptions=False)
    assert re.search(r"lab +8 +(n/a +){4}\d", shown.output)
    rows = {row.metric: row for row in read_metric_rows(tmp_path / "r") if row.scope == "pooled"}
    assert rows["image_auroc"].value is not None
    assert [rows[name].value for name in ("pixel_auroc", "pixel_ap", "pixel_aupro")] == [None] * 3
    assert {path.name for path in (tmp_path / "r").rglob("*.svg")} == {"image_roc.svg", "image_pr.svg"}


def test_train_says_in_one_sentence_that_masks_are_needed(lab: Path, tmp_path: Path, runner: CliRunner) -> None:
    options = ["--data", str(lab), "--out", str(tmp_path / "model"), "--weights", "nano"]
    with pytest.raises(DataError, match="masks are needed here, and 4 anomalous images have none") as caught:
        runner.invoke(train.app, options, catch_exceptions=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
