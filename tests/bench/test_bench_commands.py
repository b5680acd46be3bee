"""evaluate, compare and reproduce as a person meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ad_dinov3.bench.rows import read_rows
from ad_dinov3.cli.compare import app as compare_app
from ad_dinov3.cli.evaluate import app as evaluate_app
from ad_dinov3.cli.reproduce import app as reproduce_app
from ad_dinov3.errors import ConfigError, DataError

QUICK = ["--method", "mahalanobis", "--batch-size", "4"]


@pytest.fixture(scope="module")
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "100"})


@pytest.fixture
def evaluated(data_root: Path, tmp_path: Path, runner: CliRunner) -> Path:
    out = tmp_path / "results"
    done = runner.invoke(evaluate_app, ["--data", str(data_root), "--out", str(out), *QUICK], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


def test_evaluate_prints_each_class_the_mean_and_the_pooled_set(
    data_root: Path, tmp_path: Path, runner: CliRunner
) -> None:
    options = ["--data", str(data_root), "--out", str(tmp_path / "r"), "--curves", "--save-maps", *QUICK]
    shown = runner.invoke(evaluate_app, options, catch_exceptions=False).output
    assert re.search(r"metal_nut +8 ", shown)
    assert re.search(r"tissue +4 .*n/a", shown)
    assert re.search(r"mean +12 ", shown)
    assert re.search(r"pooled +12 ", shown)
    assert len(list((tmp_path / "r" / "maps").rglob("*.png"))) == 12
    assert len(list((tmp_path / "r" / "curves").rglob("*.svg"))) == 5


def test_limit_takes_images_evenly_from_both_ends(data_root: Path, tmp_path: Path, runner: CliRunner) -> None:
    options = ["--data", str(data_root), "--out", str(tmp_path / "r"), "--limit", "6", *QUICK]
    runner.invoke(evaluate_app, options, catch_exceptions=False)
    assert {row.class_name for row in read_rows(tmp_path / "r") if row.scope == "class"} == {"metal_nut", "tissue"}


def test_shares_are_scored_apart_and_measured_together(data_root: Path, tmp_path: Path, runner: CliRunner) -> None:
    base = ["--data", str(data_root), "--out", str(tmp_path / "r"), *QUICK]
    for share in ("0/2", "1/2"):
        assert "is scored" in runner.invoke(evaluate_app, [*base, "--share", share], catch_exceptions=False).output
    assert not (tmp_path / "r" / "rows.jsonl").exists()
    runner.invoke(evaluate_app, base, catch_exceptions=False)
    assert read_rows(tmp_path / "r")[0].images == 8
    with pytest.raises(ConfigError, match="I < N"):
        runner.invoke(evaluate_app, [*base, "--share", "2/2"], catch_exceptions=False)


def test_compare_shows_and_writes_all_four_files(evaluated: Path, tmp_path: Path, runner: CliRunner) -> None:
    done = runner.invoke(compare_app, [str(evaluated), "--out", str(tmp_path / "board")], catch_exceptions=False)
    assert "Pixel AUROC" in done.output
    assert {path.suffix for path in (tmp_path / "board").iterdir()} == {".md", ".csv", ".tex", ".html"}


def test_compare_refuses_an_unknown_metric(evaluated: Path, runner: CliRunner) -> None:
    with pytest.raises(ConfigError, match="pixel_auroc, pixel_f1_max"):
        runner.invoke(compare_app, [str(evaluated), "--metric", "auroc"], catch_exceptions=False)


def test_reproduce_says_what_is_missing_before_it_refuses(tmp_path: Path, runner: CliRunner) -> None:
    options = ["table1", "--out", str(tmp_path / "o"), "--data-root", str(tmp_path)]
    shown = runner.invoke(reproduce_app, [*options, "--plan-only"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "missing" in shown.output
    assert "https://github.com/amazon-science/spot-diff" in shown.output
    with pytest.raises(DataError, match="no training data"):
        runner.invoke(reproduce_app, options, catch_exceptions=False)


def test_reproduce_writes_a_table_that_says_whose_data_it_is_of(
    data_root: Path, tiny_vit: Path, tmp_path: Path, runner: CliRunner
) -> None:
    other = data_root.rename(tmp_path / "lent")
    own = tmp_path / "own"
    (own / "wood").mkdir(parents=True)
    for part in ("test", "ground_truth"):
        (other / "tissue" / part).rename(own / "wood" / part)
    settings = ["prompts.source=learned", "input.height=32", "input.width=32", "method.width=8", "train.epochs=1"]
    options = ["table3", "--out", str(tmp_path / "o"), "--weights", str(tiny_vit), "--train", str(other)]
    options += ["--test", str(own), *[word for text in settings for word in ("--set", text)]]
    done = runner.invoke(reproduce_app, options, catch_exceptions=False)
    assert done.exit_code == 0
    table = (tmp_path / "o" / "table3.md").read_text()
    assert "not comparable with the paper's" in table
    assert "Trained on lent; measured on own." in table
    assert re.search(r"\| last layer \| lent \| own \| 1 \|", table)
