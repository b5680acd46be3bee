"""Journeys of a person who teaches: good images, in a real browser."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_service import TeachableToy, workbench
from browser import PHONE, barriers, opened, picture, tab, wait_text
from toy_detector import draw_part

from ad_dinov3.infer.opening import Abilities
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.store import Store


@pytest.fixture
def toy() -> TeachableToy:
    return TeachableToy()


@pytest.fixture
def address(scored: Path, toy: TeachableToy) -> Iterator[str]:
    with workbench(Bench(scored, "parts", BenchModel("toy", lambda: toy))) as running:
        yield running
        toy.go_on.set()


def compared(page: Any) -> list[list[str]]:
    """Threshold and four counts, before and with good images."""
    return [page.locator(f"#compared td.{when}").all_text_contents() for when in ("before", "after")]


def test_use_these_as_good_images_look_at_before_and_after_and_go_back(
    chromium: Any, address: str, scored: Path, toy: TeachableToy
) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        assert page.is_hidden("#good")
        before = page.text_content("#score")
        page.click("[data-filter=ok]")
        wait_text(page, "#use-shown", "Use these 3 as good images")
        toy.go_on.clear()
        page.click("#use-shown")
        page.wait_for_selector("#scoring:not([hidden])")
        wait_text(page, "#decision", "anomalous")  # the server answers meanwhile
        picture(page, "good-scoring")
        assert barriers(page) == []
        toy.go_on.set()
        page.wait_for_selector("#compared:not([hidden])")
        assert compared(page) == [["0.300", "3", "0", "0", "0"], ["0.500", "3", "0", "0", "0"]]
        assert page.text_content("#promise").startswith("With your 3 good images about 1 good part in 4")
        page.wait_for_function("(before) => document.querySelector('#score').textContent !== before", arg=before)
        picture(page, "good-after")
        page.focus("#canvas")
        page.keyboard.press("b")
        wait_text(page, "#decision", "anomalous, before")
        wait_text(page, "#score", before)
        wait_text(page, "#regions-caption", "Regions at 0.300")
        picture(page, "good-before")
        assert barriers(page) == []
        page.reload()
        page.wait_for_selector("#compared:not([hidden])")
        page.click("#forget")
        page.wait_for_selector("#good", state="hidden")
        wait_text(page, "#score", before)
        assert Store(scored).good() == ()


def test_one_good_image_by_keyboard_on_a_phone(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, f"{address}/#good%2F0.png", PHONE) as page:
        opened(page, "good/0.png")
        page.focus("#canvas")
        page.keyboard.press("g")
        page.wait_for_selector("#compared:not([hidden])")
        assert Store(scored).good() == ("good/0.png",)
        picture(page, "good-phone")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert barriers(page) == []


def test_click_a_patch_and_see_what_it_is_like(chromium: Any, address: str, scored: Path) -> None:
    store = Store(scored)
    store.set_good(["good/0.png"], True)
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        page.focus("#canvas")
        page.keyboard.press("p")  # begins where the map is highest: on the white square
        page.wait_for_selector("#patch-nearest:not([hidden])")
        words = page.text_content("#patch-words")
        assert "row 11 of 16, column 11 of 16" in words
        assert "Nearest patch of a good image: good/0.png" in words
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("() => document.querySelector('#patch-words').textContent.includes('column 10 of 16')")
        page.locator("#canvas").scroll_into_view_if_needed()
        box = page.locator("#canvas").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function("() => document.querySelector('#patch-words').textContent.includes('row 9 of 16')")
        picture(page, "patch")
        assert barriers(page) == []
        page.keyboard.press("Escape")
        page.wait_for_selector("#patch", state="hidden")
    store.close()


def test_what_a_model_without_tokens_cannot_do_is_not_offered_and_the_page_says_why(
    chromium: Any, scored: Path, tmp_path: Path
) -> None:
    reason = "line was exported without the tokens that images are compared by"
    model = BenchModel("toy", TeachableToy, abilities=Abilities(reason))
    with workbench(Bench(scored, "parts", model)) as address, tab(chromium, f"{address}/#good%2F0.png", PHONE) as page:
        opened(page, "good/0.png")
        for button in ("#use-good", "#use-shown", "#patches"):
            assert page.locator(button).count() == 0
        assert page.text_content("#no-tokens") == f"No good images and no patches: {reason}."
        page.focus("#canvas")
        for key in "gp":
            page.keyboard.press(key)
        assert page.is_hidden("#trouble")
        page.set_input_files("#files", draw_part(tmp_path / "more" / "new.png", (120, 80), blemish=True))
        opened(page, "dropped/new.png")
        picture(page, "no-tokens-phone")
        assert barriers(page) == []


def test_drop_an_image_and_it_is_scored_and_opened(chromium: Any, address: str, scored: Path, tmp_path: Path) -> None:
    new = draw_part(tmp_path / "more" / "new part.png", (120, 80), blemish=True)
    with tab(chromium, f"{address}/#good%2F0.png") as page:
        opened(page, "good/0.png")
        page.evaluate(
            """async ([content, words]) => {
              const given = new DataTransfer(), bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
              given.items.add(new File([bytes], "new part.png", { type: "image/png" }));
              given.items.add(new File([words], "words.png", { type: "image/png" }));
              const how = { dataTransfer: given, bubbles: true, cancelable: true };
              for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, how));
            }""",
            [b64encode(new.read_bytes()).decode(), "no image"],
        )
        opened(page, "dropped/new part.png")
        wait_text(page, "#decision", "anomalous")
        assert page.text_content("#trouble").startswith("words.png: ")
        assert page.locator("#cards .card").count() == 7
        picture(page, "dropped")
        assert barriers(page) == []
    assert (scored / "dropped" / "new part.png").read_bytes() == new.read_bytes()
