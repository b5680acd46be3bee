"""compare as a person meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bench_toys import make_row
from typer.testing import CliRunner

from ad_dinov3.bench.rows import write_metric_rows
from ad_dinov3.cli.compare import app
from ad_dinov3.errors import ConfigError


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    write_metric_rows(tmp_path / "results", [make_row(), make_row(data="mtd", value=0.99, seen=True)])
    return tmp_path / "results"


def test_compare_shows_and_writes_all_four_files(evaluated: Path, tmp_path: Path, runner: CliRunner) -> None:
    done = runner.invoke(app, [str(evaluated), "--out", str(tmp_path / "board")], catch_exceptions=False)
    assert "Pixel AUROC" in done.output
    assert {path.suffix for path in (tmp_path / "board").iterdir()} == {".md", ".csv", ".tex", ".html"}


def test_compare_refuses_an_unknown_metric(evaluated: Path, runner: CliRunner) -> None:
    with pytest.raises(ConfigError, match="pixel_auroc, pixel_f1_max"):
        runner.invoke(app, [str(evaluated), "--metric", "auroc"], catch_exceptions=False)


def test_compare_marks_figures_of_seen_data_on_the_terminal_and_in_all_files(
    evaluated: Path, tmp_path: Path, runner: CliRunner
) -> None:
    shown = runner.invoke(app, [str(evaluated), "--out", str(tmp_path / "board")], catch_exceptions=False).output
    assert "99.0 (seen)" in shown
    assert "92.0 (seen)" not in shown
    assert "ad_dinov3 (run1) has seen mtd" in shown
    for path in (tmp_path / "board").iterdir():
        assert "seen" in path.read_text()


def test_compare_refuses_before_torch_is_loaded(evaluated: Path, refused: Callable[..., str]) -> None:
    assert "no metric auroc; there are pixel_auroc" in refused("compare", str(evaluated), "--metric", "auroc")
    assert "evaluate --out" in refused("compare", str(evaluated / "gone"))
    assert "no line begins with 'x'" in refused("compare", str(evaluated), "--against", "x")
