"""The demo: every sample beside its truth, and what good photographs change."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ad_dinov3.cli import demo
from ad_dinov3.predict.results import Row, read_rows


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(demo.app, ["-o", str(out)])
    assert result.exit_code == 0, result.output
    return result.output, out


def decisions(folder: Path) -> dict[str, str]:
    rows: list[Row] = list(read_rows(folder))
    return {row.image: row.decision for row in rows}


def test_demo_holds_each_sample_against_its_truth(shown: tuple[str, Path]) -> None:
    text, out = shown
    alone, beside = decisions(out), decisions(out / "with_good_images")
    assert len(alone) >= 10
    assert text.count("✓") + text.count("✗") == len(alone) + len(beside)
    report = (out / "report.html").read_text()
    assert all(image in report for image in alone)
    assert "truly normal" in report


def test_good_photographs_find_the_broken_cookies_and_leave_the_whole_one(shown: tuple[str, Path]) -> None:
    text, out = shown
    beside = decisions(out / "with_good_images")
    assert {image: "good" not in image for image in beside} == {
        image: decision == "anomalous" for image, decision in beside.items()
    }
    assert len(beside) == 4
    assert "with your 9 good images" in text
