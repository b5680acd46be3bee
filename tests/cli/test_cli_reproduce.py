"""reproduce as a person meets it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ad_dinov3.cli.reproduce import app
from ad_dinov3.errors import DataError


def test_reproduce_says_what_is_missing_before_it_refuses(tmp_path: Path, runner: CliRunner) -> None:
    options = ["table1", "--out", str(tmp_path / "o"), "--data-root", str(tmp_path)]
    shown = runner.invoke(app, [*options, "--plan-only"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "missing" in shown.output
    assert "https://github.com/amazon-science/spot-diff" in shown.output
    with pytest.raises(DataError, match="no training data"):
        runner.invoke(app, options, catch_exceptions=False)


def test_reproduce_refuses_before_torch_is_loaded(tmp_path: Path, refused: Callable[..., str]) -> None:
    out = ("--out", str(tmp_path / "o"), "--data-root", str(tmp_path))
    assert "no training data together with test data" in refused("reproduce", "table2", *out)
    assert "no preset 'papper'" in refused("reproduce", "table2", *out, "--preset", "papper")
    assert "no protocol 'papper'" in refused("reproduce", "table2", *out, "--protocol", "papper")
    assert "go together" in refused("reproduce", "table2", *out, "--train", str(tmp_path))
    assert "KEY=VALUE" in refused("reproduce", "table2", *out, "--set", "epochs")
    assert not (tmp_path / "o").exists()


def test_reproduce_writes_a_table_that_says_whose_data_it_is_of(
    data_root: Path, tiny_vit: Path, tmp_path: Path, runner: CliRunner
) -> None:
    other = data_root.rename(tmp_path / "others")
    own = tmp_path / "own"
    (own / "wood").mkdir(parents=True)
    for part in ("test", "ground_truth"):
        (other / "tissue" / part).rename(own / "wood" / part)
    settings = [
        "method.prompts.source=learned",
        "input.height=32",
        "input.width=32",
        "method.width=8",
        "train.epochs=1",
    ]
    options = ["table3", "--out", str(tmp_path / "o"), "--weights", str(tiny_vit), "--train", str(other)]
    options += ["--test", str(own), *[word for text in settings for word in ("--set", text)]]
    done = runner.invoke(app, options, catch_exceptions=False)
    assert done.exit_code == 0
    table = (tmp_path / "o" / "table3.md").read_text()
    assert "not comparable with the paper's" in table
    assert "Trained on others; measured on own." in table
    assert re.search(r"\| last layer \| others \| own \| 1 \|", table)
