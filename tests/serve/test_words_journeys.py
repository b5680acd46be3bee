"""Journeys of a person who looks for better words, in a real browser, with a small WinCLIP of random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_service import score_with, worded_model, workbench
from browser import DESKTOP, PHONE, barriers, opened, picture, tab, wait_text

from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.store import Store

WORDS = "#states-said"


@pytest.fixture
def address(clip: str, parts_folder: Path, tmp_path: Path) -> Iterator[str]:
    model = worded_model(clip, tmp_path / "line")
    out = score_with(model, parts_folder, tmp_path / "out")
    with workbench(Bench(out, "parts", model)) as running:
        yield running


def open_words(page: Any) -> None:
    page.click("#states summary")
    page.wait_for_function("() => document.querySelector('#states-normal').value !== ''")


def red(page: Any) -> list[int]:
    """The colours in the middle of the canvas."""
    page.wait_for_timeout(200)
    return list(
        page.evaluate(
            """() => {
              const canvas = document.querySelector("#canvas"), side = Math.min(canvas.width, canvas.height) / 4;
              const at = [canvas.width / 2 - side / 2, canvas.height / 2 - side / 2];
              return [...canvas.getContext("2d").getImageData(...at, side, side).data];
            }"""
        )
    )


def test_try_words_on_an_image_use_them_for_all_and_go_back(chromium: Any, address: str, tmp_path: Path) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        open_words(page)
        assert "flawless {}" in page.input_value("#states-normal")
        before, map_before = page.text_content("#score"), red(page)
        page.fill("#states-normal", "clean {}\neven {}")
        page.fill("#states-abnormal", "{} with a white square\n\n  scratched")
        page.click("#states-try")
        page.wait_for_function("(words) => document.querySelector(words).textContent.endsWith('scratched')", arg=WORDS)
        page.fill("#states-abnormal", "{} with a white square\n\n  scratched {} ")
        page.click("#states-try")
        page.wait_for_function("(before) => document.querySelector('#score').textContent !== before", arg=before)
        assert page.text_content("#decision").endswith(", with the words tried")
        assert f"{before} before" in page.text_content(WORDS)
        tried, map_tried = page.text_content("#score"), red(page)
        assert map_tried != map_before
        picture(page, "words-tried")
        page.focus("#canvas")
        page.keyboard.press("b")
        wait_text(page, "#score", before)
        assert red(page) == map_before
        page.keyboard.press("b")
        wait_text(page, "#score", tried)
        assert barriers(page) == []
        page.click("#states-use")
        page.wait_for_selector("#compared:not([hidden])")
        wait_text(page, "#good-words", "other words")
        wait_text(page, "#score", tried)  # as it was tried
        wait_text(page, WORDS, "")
        picture(page, "words-used")
        assert barriers(page) == []
        kept = load(tmp_path / "out" / "taught-1" / "model", offline=True)
        assert isinstance(kept, Detector)
        assert kept.states is not None
        assert kept.states.abnormal == ("{} with a white square", "scratched {}")
        page.reload()
        opened(page, "crack/0.png")
        open_words(page)
        assert page.input_value("#states-normal") == "clean {}\neven {}"
        page.click("#states-own")
        page.wait_for_selector("#good", state="hidden")
        wait_text(page, "#score", before)
        assert "flawless {}" in page.input_value("#states-normal")
    assert Store(tmp_path / "out").setting("states", "unsaid") is None


def test_a_trial_ends_when_another_image_is_opened_and_keys_write_words(
    chromium: Any, address: str, tmp_path: Path
) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        open_words(page)
        page.focus("#states-abnormal")
        page.keyboard.press("Control+a")
        page.keyboard.type("{} on snow")  # O, N and S are reviews elsewhere
        assert page.input_value("#states-abnormal") == "{} on snow"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#decision').textContent.endsWith('tried')")
        page.click("#next")
        page.wait_for_function("() => document.querySelector('#name').textContent !== 'crack/0.png'")
        page.wait_for_function("() => !document.querySelector('#decision').textContent.endsWith('tried')")
        assert page.is_hidden("#before")
    assert Store(tmp_path / "out").verdicts() == {}


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_words_fit_and_no_barrier_is_found(chromium: Any, address: str, size: tuple[int, int], scheme: str) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png", size, scheme) as page:
        opened(page, "crack/0.png")
        open_words(page)
        page.click("#states-try")
        page.wait_for_function("() => document.querySelector('#decision').textContent.endsWith('tried')")
        picture(page, f"words-{'phone' if size == PHONE else 'desktop'}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert barriers(page) == []


def test_what_the_model_refuses_is_said_beside_the_button(chromium: Any, address: str, tmp_path: Path) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        open_words(page)
        page.fill("#states-normal", " \n")
        page.click("#states-use")
        wait_text(page, WORDS, "Both sides need a line.")
        page.fill("#states-normal", "{}" + "x" * 200)
        page.click("#states-try")
        page.wait_for_function("() => document.querySelector('#states-said').textContent.includes('at most 200')")
        assert not page.text_content("#decision").endswith("tried")
    assert Store(tmp_path / "out").setting("states", "unsaid") == "unsaid"
