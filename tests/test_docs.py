"""The pages' promises: Python and bash run or say why not, commands and options exist, the reference is complete."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ad_dinov3
from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
from ad_dinov3.cli.app import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"(?P<mark><!-- not run[^>]*-->\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```", re.M | re.S)
# `ad-dinov3 VERB ...` in a line of code, up to the end of the line, of the code span, or of this command
USE = re.compile(r"ad-dinov3 ([a-z]+)((?: +(?!&&|\||\#|ad-dinov3)[^\s`]+)*)")
GENERATED = {"cli.md", "changes.md"}


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and code of the blocks that run."""
    text = page.read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if match["language"] == language and not match["mark"]]
    return [(text.count("\n", 0, match.start("code")), match["code"]) for match in found]


def pages_with(language: str) -> list[Any]:
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, language)]


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: a part, photographs, good ones, two labelled data sets."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "brushed_metal" / "test" / "scratch" / "000.jpg", "part.jpg")
    shutil.copytree(SAMPLES / "cookie" / "test", "photos")
    shutil.copytree(GOOD_SAMPLES / "cookie", "good")
    shutil.copytree(SAMPLES / "steel_strip", "labelled")
    shutil.copytree(SAMPLES / "ceramic_tile", "labelled_other")
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_of_the_page_runs(page: Path, user_folder: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * line + code, page, "exec"), names)  # the line of a failure is the page's


@pytest.mark.parametrize("page", pages_with("bash"))
def test_bash_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    script = "\n".join(code for _, code in blocks(page, "bash"))
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def uses() -> Iterator[tuple[str, str, str]]:
    """(page, verb, rest of the line) of every command that a page names."""
    for page in PAGES:
        if page.name not in GENERATED:
            for verb, rest in USE.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
                yield page.name, verb, rest


def options_of(verb: str) -> set[str]:
    app = importlib.import_module(f"ad_dinov3.cli.{COMMANDS[verb][0]}").app
    command: Any = typer.main.get_command(app)
    every = [command, *getattr(command, "commands", {}).values()]
    return {"--help"} | {
        name for one in every for parameter in one.params for name in [*parameter.opts, *parameter.secondary_opts]
    }


def test_every_command_and_option_that_a_page_names_exists() -> None:
    known = {verb: options_of(verb) for verb in COMMANDS}
    found = list(uses())
    assert len(found) > 100
    wrong = [f"{page}: ad-dinov3 {verb}" for page, verb, _ in found if verb not in known]
    wrong += [
        f"{page}: ad-dinov3 {verb} {option}"
        for page, verb, rest in found
        for option in re.findall(r"(?<=\s)(--?[a-z][\w-]*)", rest)
        if option not in known.get(verb, set())
    ]
    assert wrong == []


def test_the_reference_has_every_public_name_and_no_other() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: ad_dinov3\.(\w+)$", text, re.M)) | set(re.findall(r"`ad_dinov3\.([A-Z]+)`", text))
    assert shown == set(ad_dinov3.__all__) - {"__version__"}
