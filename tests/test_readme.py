"""The README's promises: its Python runs as it stands, its commands exist, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
from ad_dinov3.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "brushed_metal" / "test" / "scratch" / "000.jpg", tmp_path / "part.jpg")
    run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"ad-dinov3 ([a-z]+)", README.read_text(encoding="utf-8")))
    assert {"demo", "predict", "compare"} <= named <= set(COMMANDS)


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_bash_of_the_readme_runs_and_leaves_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "cookie" / "test", tmp_path / "photos")
    shutil.copytree(GOOD_SAMPLES / "cookie", tmp_path / "good")
    install, predict, tests = (block.strip() for block in blocks("bash"))
    assert install.startswith("pip install -c constraints.txt . && ")
    assert tests == 'pip install -c constraints.txt ".[test]" && pytest -n auto'  # what runs this test
    said = [run_command(line, tmp_path) for line in (install.partition(" && ")[2], predict)]
    assert "defects found" in said[0]
    assert "about 1 good part in 10 will be flagged" in " ".join(said[1].split())
    (report,) = re.findall(r"`([\w./-]+/report\.html)`", README.read_text(encoding="utf-8"))
    assert (tmp_path / report).stat().st_size > 50_000
    assert len(list((tmp_path / report).parent.glob("overlays/**/*.jpg"))) >= 12
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    decisions = {Path(row["image"]).stem: row["decision"] for row in rows}
    assert decisions.pop("normal-10") == "normal"
    assert set(decisions.values()) == {"anomalous"}  # the three broken cookies that the text speaks of


def run_command(line: str, folder: Path) -> str:
    """What a command of the package says."""
    command = [sys.executable, "-m", "ad_dinov3", *shlex.split(line)[1:]]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_help_lists_every_command_without_loading_any() -> None:
    shown = subprocess.run([sys.executable, "-m", "ad_dinov3", "--help"], capture_output=True, text=True, check=True)
    assert all(re.search(rf"^  {verb} ", shown.stdout, re.MULTILINE) for verb in COMMANDS)


def test_unknown_command_is_refused_with_the_usage_code() -> None:
    command = [sys.executable, "-m", "ad_dinov3", "detekt"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no command 'detekt'" in run.stderr
