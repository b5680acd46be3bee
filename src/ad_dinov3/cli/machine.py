"""--json: what a command found as one line of JSON on stdout, and what it says to people on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.options import OUTPUT

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="The result is one line of JSON on stdout, for programs; words for people go to stderr.",
        metavar="",
        rich_help_panel=OUTPUT,
    ),
]


class Output:
    """Where a command's words and its result go.

    Args:
        as_json: the result is for a program.
        quiet: nothing is said or shown, as by all but the first of several processes.

    Attributes:
        console: for people.
    """

    def __init__(self, as_json: bool, quiet: bool = False) -> None:
        self._shows_result = as_json and not quiet
        self.console = Console(stderr=as_json, quiet=quiet)

    def result(self, tree: Mapping[str, object]) -> None:
        """Print the result if it was asked for as JSON; paths become text."""
        if self._shows_result:
            print(json.dumps(tree, default=str, allow_nan=False))
