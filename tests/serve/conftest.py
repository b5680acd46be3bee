"""A browser for the workbench's journeys, and folders of results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_service import draw_parts, score_parts

_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's chromium; tests that need it are skipped where it, or playwright, is absent."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install '.[test-browser]'")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def parts_folder(tmp_path: Path) -> Path:
    """Three good parts and three cracked ones."""
    return draw_parts(tmp_path / "parts")


@pytest.fixture
def scored(parts_folder: Path) -> Path:
    """What predict has written of them."""
    return score_parts(parts_folder, parts_folder.parent / "out")
