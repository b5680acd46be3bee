"""Runs the Python and bash blocks of the pages, each page from top to bottom in a folder of its own: `pytest docs`.

A block under `<!-- skip: next "why" -->` is not run, and pytest tells why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES

GUIDES = ["index.md", "start-*.md"]  # they make what they need
NOT_WRITTEN_HERE = ["cli.md", "changes.md"]


def run_bash(example: Example) -> None:
    """Run a block where the page's files are; what it printed is shown if it fails."""
    command = ["bash", "-euo", "pipefail", "-c", str(example.parsed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def enter_empty_folder(names: dict[str, Any]) -> None:
    """Work in a new folder, offline, with the commands of this Python first."""
    names["folder"], names["patch"] = tempfile.TemporaryDirectory(), pytest.MonkeyPatch()
    names["missing"] = lambda *modules: not all(map(find_spec, modules))
    patch, folder = names["patch"], names["folder"].name
    patch.chdir(folder)
    patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("XDG_CACHE_HOME", f"{folder}/.cache")
    patch.setenv("HF_HUB_OFFLINE", "1")


def enter_readers_folder(names: dict[str, Any]) -> None:
    """The same with what a reader has: photographs of parts, good ones, labelled data sets."""
    enter_empty_folder(names)
    shutil.copy(SAMPLES / "brushed_metal" / "test" / "scratch" / "000.jpg", "part.jpg")
    for name in ("parts", "photos", "INBOX"):
        shutil.copytree(SAMPLES / "cookie" / "test", name)
    shutil.copytree(GOOD_SAMPLES / "cookie", "good")
    shutil.copytree(SAMPLES / "steel_strip", "labelled")
    shutil.copytree(SAMPLES / "ceramic_tile", "labelled_other")


def leave_folder(names: dict[str, Any]) -> None:
    """Go back, and leave nothing."""
    names["patch"].undo()
    names["folder"].cleanup()


PARSERS = [PythonCodeBlockParser(), CodeBlockParser("bash", run_bash), SkipParser()]
pytest_collect_file = (
    Sybil(PARSERS, patterns=GUIDES, setup=enter_empty_folder, teardown=leave_folder)
    + Sybil(
        PARSERS,
        pattern="*.md",
        excludes=[*GUIDES, *NOT_WRITTEN_HERE],
        setup=enter_readers_folder,
        teardown=leave_folder,
    )
).pytest()
