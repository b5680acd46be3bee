"""The demo: every sample beside its truth, and what good photographs change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ad_dinov3.cli import demo
from ad_dinov3.cli.workbench import results_of
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.predict.run_facts import read_run


@dataclass(frozen=True)
class Shown:
    """What the command says to people, its folder, and what it says to programs."""

    text: str
    out: Path
    tree: dict[str, Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(demo.app, ["-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    return Shown(result.stderr, out, json.loads(result.stdout))


def decisions(folder: Path) -> dict[str, str]:
    rows: list[Row] = list(read_rows(folder))
    return {row.image: row.decision for row in rows}


def test_demo_holds_each_sample_against_its_truth(shown: Shown) -> None:
    text, out = shown.text, shown.out
    alone, beside = decisions(out), decisions(out / "with_good_images")
    assert len(alone) >= 10
    assert text.count("✓") + text.count("✗") == len(alone) + len(beside)
    report = (out / "report.html").read_text()
    assert all(image in report for image in alone)
    assert "truly normal" in report


def test_good_photographs_find_the_broken_cookies_and_leave_the_whole_one(shown: Shown) -> None:
    text, out = shown.text, shown.out
    beside = decisions(out / "with_good_images")
    assert {image: "good" not in image for image in beside} == {
        image: decision == "anomalous" for image, decision in beside.items()
    }
    assert len(beside) == 4
    assert "with your 9 good images" in text


def test_the_workbench_opens_the_demo_s_models_again(shown: Shown) -> None:
    for folder in (shown.out, shown.out / "with_good_images"):
        _, model = results_of(Console(), folder, None, "object", ModelSpec("", offline=True))
        assert model.fingerprint_of(model.plain()) == read_run(folder).model_fingerprint


def test_programs_read_the_same_counts(shown: Shown) -> None:
    for key, folder in (("alone", shown.out), ("with_good_images", shown.out / "with_good_images")):
        tally, called = shown.tree[key], decisions(folder)
        assert tally["defects"] + tally["normal_images"] == len(called)
        assert tally["found"] + tally["false_alarms"] <= list(called.values()).count("anomalous")
        assert f"{tally['found']} of {tally['defects']} defects found" in shown.text
    assert shown.tree["promise"] in " ".join(shown.text.split())
