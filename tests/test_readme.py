"""The README's promises: its Python runs as it stands, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ad_dinov3
from ad_dinov3.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SAMPLES = Path(ad_dinov3.__file__).parent / "assets" / "samples"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "brushed_metal" / "test" / "scratch" / "000.jpg", tmp_path / "part.jpg")
    run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_commands_of_the_readme_exist() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"ad-dinov3 ([a-z]+)", text))
    assert {"demo", "predict", "train", "evaluate"} <= named <= set(COMMANDS)


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_demo_leaves_its_report_where_the_readme_says(tmp_path: Path) -> None:
    installs, demo = blocks("bash")[0].strip().split(" && ")
    assert installs.startswith("pip install")
    command = [sys.executable, "-m", "ad_dinov3", *shlex.split(demo)[1:]]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "defects found" in run.stdout
    (report,) = re.findall(r"`([\w./-]+/report\.html)`", README.read_text(encoding="utf-8"))
    assert (tmp_path / report).stat().st_size > 50_000
    assert len(list((tmp_path / report).parent.glob("overlays/**/*.jpg"))) >= 12


def test_help_lists_every_command_without_loading_any() -> None:
    shown = subprocess.run([sys.executable, "-m", "ad_dinov3", "--help"], capture_output=True, text=True, check=True)
    assert all(re.search(rf"^  {verb} ", shown.stdout, re.MULTILINE) for verb in COMMANDS)


def test_unknown_command_is_refused_with_the_usage_code() -> None:
    command = [sys.executable, "-m", "ad_dinov3", "detekt"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no command 'detekt'" in run.stderr
