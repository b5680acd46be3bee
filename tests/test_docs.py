"""The pages' promises: commands and options exist, code is marked as such, the reference is complete.

`pytest docs` runs the code.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import ad_dinov3
from ad_dinov3.cli.app import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# `ad-dinov3 VERB ...` in a line of code, up to the end of the line, of the code span, or of this command
USE = re.compile(r"ad-dinov3 ([a-z]+)((?: +(?!&&|\||\#|ad-dinov3)[^\s`]+)*)")
GENERATED = {"cli.md", "changes.md"}


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


def test_commands_stand_in_blocks_that_run_or_say_why_not() -> None:
    """An indented command would be run by nobody."""
    code = re.compile(r"^    (?:ad-dinov3|python|pip|curl|torchrun) .*", re.M)
    indented = {
        page.name: code.findall(page.read_text(encoding="utf-8")) for page in PAGES if page.name not in GENERATED
    }
    assert {name: found for name, found in indented.items() if found} == {}


def test_the_reference_has_every_public_name_and_no_other() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: ad_dinov3\.(\w+)$", text, re.M)) | set(re.findall(r"`ad_dinov3\.([A-Z]+)`", text))
    assert shown == set(ad_dinov3.__all__) - {"__version__"}
