"""The page of the service and the static report in a real browser, on a desktop and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_service import draw_parts, score_parts
from browser import DESKTOP, PHONE, barriers, picture, tab, wait_text
from live_service import service
from toy_detector import ToyDetector

from ad_dinov3.serve.app import ServeOptions

KEY = "0123456789abcdef-key"
SIZES = pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])


@pytest.fixture
def address() -> Iterator[str]:
    toys = {"line": ToyDetector(), "other": ToyDetector()}
    with service(toys, ServeOptions(keys=(KEY,))) as running:
        yield running


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@SIZES
def test_images_given_to_the_service_are_judged_and_judged_again_when_the_slider_moves(
    chromium: Any, address: str, parts_folder: Path, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    words = tmp_path / "words.png"
    words.write_text("no image")
    with tab(chromium, address, size) as page:
        assert barriers(page) == []
        page.set_input_files("#files", [parts_folder / "crack" / "0.png"])
        page.wait_for_selector(".card.failed")  # the key is missing
        picture(page, f"service-refused-{name}")
        assert barriers(page) == []
        page.fill("#key", KEY)
        page.press("#key", "Tab")
        wait_text(page, "#counts", "1 anomalous, 0 normal")
        page.set_input_files("#files", [parts_folder / "good" / "0.png", words])
        wait_text(page, "#counts", "1 anomalous, 1 normal")
        page.wait_for_selector(".card.failed")
        picture(page, f"service-{name}")
        assert fits(page)
        assert barriers(page) == []
        page.locator("#threshold").fill("0")
        wait_text(page, "#counts", "2 anomalous, 0 normal")


@SIZES
def test_the_report_has_no_barrier_in_any_of_its_states(
    chromium: Any, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    parts = draw_parts(tmp_path / "parts")
    (parts / "broken.png").write_text("no image")
    out = score_parts(parts, tmp_path / "out")
    with tab(chromium, (out / "report.html").as_uri(), size) as page:
        assert barriers(page) == []
        page.locator("#threshold").fill("0.45")
        page.wait_for_selector("#again:not([hidden])")
        picture(page, f"report-{name}")
        assert fits(page)
        assert barriers(page) == []
        page.locator(".card .view").first.click()
        page.wait_for_selector("#lens[open]")
        picture(page, f"report-lens-{name}")
        assert barriers(page) == []
        page.keyboard.press("Escape")
        page.fill("#search", "nothing is called so")
        assert page.is_visible("#nothing")
        assert barriers(page) == []
