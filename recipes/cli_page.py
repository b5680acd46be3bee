"""Write docs/cli.md, the commands and their options, from the commands themselves: python recipes/cli_page.py."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ad_dinov3.cli.app import COMMANDS

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """\
# Commands

Written by `python recipes/cli_page.py` from the commands' own help; `ad-dinov3 COMMAND --help` says the same.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and sub-command with the words that call it, in the order of ``ad-dinov3 --help``."""
    for verb, (module, _) in COMMANDS.items():
        command: Any = typer.main.get_command(importlib.import_module(f"ad_dinov3.cli.{module}").app)
        yield verb, command
        for name, below in getattr(command, "commands", {}).items():
            yield f"{verb} {name}", below


def section(words: str, command: Any) -> str:
    """A command's heading, explanation, arguments, and options by their panels."""
    parts = [f"## ad-dinov3 {words}", inspect.cleandoc(command.help or "")]
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if parameter.name != "help":
            panel = "Arguments" if parameter.param_type_name == "argument" else parameter.rich_help_panel or "Options"
            panels.setdefault(panel, []).append(_row(parameter))
    for panel, rows in panels.items():
        parts.append("\n".join([f"| {panel} | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(words, command) for words, command in commands())])


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar}`"
    else:
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        name = f"`{names} {parameter.metavar}`" if parameter.metavar else f"`{names}`"
    words = parameter.help.replace("|", "\\|")
    if parameter.required:
        words += " Required."
    elif parameter.default not in (None, False, ()):
        words += f" Default: `{_shown(parameter)}`."
    return f"| {name} | {words} |"


def _shown(parameter: Any) -> str:
    if parameter.default is True:
        return str(parameter.opts[0])
    values = parameter.default if isinstance(parameter.default, list | tuple) else [parameter.default]
    return " ".join(map(str, values))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
