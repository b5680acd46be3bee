"""docs/cli.md says what the commands say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("cli_page", ROOT / "recipes" / "cli_page.py")
    assert spec is not None
    assert spec.loader is not None
    cli_page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cli_page)
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == cli_page.page(), "the commands have changed; run: python recipes/cli_page.py"
