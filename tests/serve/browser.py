"""What journeys in a browser share: a page, waiting for it, screenshots, and barriers to people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = (1400, 900), (390, 844)


@contextmanager
def tab(chromium: Any, address: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Any]:
    """A page in a browser of its own; an error in its script fails the test."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, has_touch=size == PHONE
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    page.goto(address)
    yield page
    context.close()
    assert errors == []


def picture(page: Any, name: str) -> None:
    """Keep a screenshot, if somebody wants to look."""
    folder = os.environ.get("AD_DINOV3_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=page.viewport_size["width"] < 500)


def wait_text(page: Any, selector: str, text: str) -> None:
    """Until an element says just that."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.trim() === text", arg=[selector, text]
    )


def opened(page: Any, name: str) -> None:
    """Wait for an image to be open, its map drawn."""
    wait_text(page, "#name", name)
    page.wait_for_function("() => document.querySelector('#canvas').getAttribute('aria-label')?.includes('score')")


def barriers(page: Any) -> list[tuple[str, str, list[str]]]:
    """What axe-core finds on the page as it is, light and dark, each with the elements concerned."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[test-browser]'")
    found = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        violations = axe.Axe().run(page).response["violations"]
        found += [(scheme, one["id"], [node["html"] for node in one["nodes"]]) for one in violations]
    return found
