"""Journeys through the workbench in a real browser; with AD_DINOV3_SCREENSHOTS=DIR each leaves its pictures there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_service import THRESHOLD, free_port, start_workbench, workbench
from browser import DESKTOP, PHONE, barriers, opened, picture, tab, wait_text
from scipy.ndimage import gaussian_filter

import ad_dinov3
from ad_dinov3.infer.areas import read_areas
from ad_dinov3.infer.decide import describe_region, find_regions, outline, position_words, smallest_region_px
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.predict.results import read_rows
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.store import Store

KEY = "0123456789abcdef-key"
SCRIPTS = Path(ad_dinov3.__file__).parent / "serve" / "workbench" / "page"
RED_AT = """([x, y]) => {
  const canvas = document.querySelector("#canvas"), ratio = canvas.width / canvas.clientWidth;
  return canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data[0];
}"""


@pytest.fixture
def address(scored: Path) -> Iterator[str]:
    with workbench(Bench(scored, "parts")) as running:
        yield running


def cells(page: Any) -> tuple[int, ...]:
    """TP, FN, FP, TN as the page shows them."""
    return tuple(int(page.text_content(f"#{cell}")) for cell in ("tp", "fn", "fp", "tn"))


def test_look_filter_and_search(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, address) as page:
        page.wait_for_selector("#cards .card")
        scores = [float(text) for text in page.locator("#cards .score").all_text_contents()]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        wait_text(page, "#bad-count", "3")
        assert cells(page) == (3, 0, 0, 3)
        page.wait_for_function(
            "() => [...document.querySelectorAll('#cards img')].every((one) => one.naturalWidth > 0)"
        )
        picture(page, "look")
        page.click("[data-filter=good]")
        assert page.locator("#cards .card").count() == 3
        page.click("[data-filter=wrong]")
        assert page.is_visible("#nothing")
        page.click("[data-filter=all]")
        page.fill("#search", "crack 1")
        assert page.locator("#cards .file").all_text_contents() == ["crack/1.png"]


def test_regions_of_the_open_image_are_those_of_predict(chromium: Any, address: str, scored: Path) -> None:
    row = next(row for row in read_rows(scored) if row.image == "crack/1.png")
    with tab(chromium, f"{address}/#crack%2F1.png") as page:
        opened(page, "crack/1.png")
        page.wait_for_selector("#regions tbody tr")
        shown = page.locator("#regions tbody tr").first.locator("td").all_text_contents()
        assert page.locator("#regions tbody tr").count() == len(row.regions)
    region, size = row.regions[0], (row.height, row.width)
    assert shown[2:] == [position_words(region.centroid, size), f"{region.area_px:,} px²", f"{region.peak:.2f}"]
    severity, shape = shown[1].split(", ")
    assert describe_region(region, size, THRESHOLD).startswith(f"{severity} {shape} region")


def test_regions_in_the_browser_equal_those_in_python(chromium: Any, address: str) -> None:
    rng = np.random.default_rng(0)
    script = (SCRIPTS / "regions.js").read_text(encoding="utf-8")
    with tab(chromium, address) as page:
        for _ in range(8):
            noise = gaussian_filter(rng.random((40, 56)), 1.5)
            anomaly_map = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
            expected = find_regions(anomaly_map, 0.6, 9)
            arguments = {"values": anomaly_map.ravel().tolist(), "width": 56, "height": 40}
            found = page.evaluate(
                f"(map) => {{ {script}; return findRegions({{ ...map, values: Float32Array.from(map.values) }},"
                " 0.6, 9, { width: 56, height: 40 }); }",
                arguments,
            )
            assert [(one["area"], tuple(one["box"])) for one in found] == [(one.area_px, one.box) for one in expected]
            for one, other in zip(found, expected, strict=True):
                assert one["peak"] == pytest.approx(other.peak)
                assert one["mean"] == pytest.approx(other.mean)
                assert one["centroid"] == pytest.approx(other.centroid)
                assert one["elongation"] == pytest.approx(other.elongation)
                x0, y0, x1, y1 = other.box
                alone = np.zeros_like(anomaly_map, bool)
                alone[y0:y1, x0:x1] = anomaly_map[y0:y1, x0:x1] >= np.float32(0.6)
                if len(find_regions(alone.astype(np.float32), 0.5)) == 1:  # no other region reaches into its box
                    assert [tuple(corner) for corner in one["outline"]] == outline(alone)


def test_sliding_decides_at_once_and_asks_the_server_for_nothing_but_to_keep_it(chromium: Any, address: str) -> None:
    with tab(chromium, f"{address}/#good%2F0.png") as page:
        opened(page, "good/0.png")
        wait_text(page, "#decision", "normal")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.locator("#threshold").fill("0")
        wait_text(page, "#decision", "anomalous")
        assert page.locator("#regions tbody tr").count() == 1
        wait_text(page, "#bad-count", "6")
        assert cells(page) == (3, 0, 3, 0)
        assert "--threshold 0.000" in page.text_content("#command")
        picture(page, "slide")
        page.click("#reset")
        wait_text(page, "#decision", "normal")
        page.wait_for_timeout(500)
        paths = {url.removeprefix(f"{address}/").partition("?")[0] for url in asked}
        assert paths <= {"bench/state", "bench/threshold"}


def test_the_mask_is_the_one_of_python_at_any_threshold(chromium: Any, address: str, scored: Path) -> None:
    row = next(row for row in read_rows(scored) if row.image == "crack/0.png")
    assert row.map is not None
    anomaly_map = read_map(scored / row.map)
    least = smallest_region_px(row.grid, (row.height, row.width))
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        for threshold in (0.2, 0.4, 0.7):
            page.locator("#threshold").fill(str(threshold))
            wait_text(page, "#regions-caption", f"Regions at {threshold:.3f}")
            shown = page.locator("#regions tbody td:nth-child(4)").all_text_contents()
            assert shown == [f"{one.area_px:,} px²" for one in find_regions(anomaly_map, threshold, least)]


def test_review_by_keyboard_and_take_it_back(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, f"{address}/#crack%2F2.png") as page:
        opened(page, "crack/2.png")
        page.focus("#canvas")
        page.keyboard.press("o")  # a defect called OK: a false alarm then
        wait_text(page, "#fp", "1")
        assert cells(page) == (2, 0, 1, 3)
        page.keyboard.press("n")
        page.keyboard.press("s")
        page.wait_for_function("() => document.querySelectorAll('.mark').length === 6")
        picture(page, "review")
        page.wait_for_timeout(500)
        assert sorted(Store(scored).verdicts().values()) == ["ng", "ok", "skip"]
        for _ in range(3):
            page.keyboard.press("u")
        wait_text(page, "#name", "crack/2.png")
        wait_text(page, "#fp", "0")
        page.wait_for_timeout(500)
        assert Store(scored).verdicts() == {}


def test_single_keys_do_nothing_outside_of_list_and_image(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, address) as page:
        page.wait_for_selector("#cards .card")
        page.focus("#search")
        page.keyboard.type("no")
        page.focus("#threshold")
        page.keyboard.press("n")
        page.wait_for_timeout(300)
        assert Store(scored).verdicts() == {}


def test_everything_by_keyboard(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, address) as page:
        page.wait_for_selector("#cards .card")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('#cards .card')"):
                break
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "canvas"
        first = page.text_content("#name")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("(first) => document.querySelector('#name').textContent !== first", arg=first)
        page.keyboard.press("+")
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("0")
        page.keyboard.press("n")
        page.wait_for_function("() => [...document.querySelectorAll('.mark')].some((one) => one.textContent === 'NG')")


def test_zoom_keeps_the_point_under_the_pointer_and_drag_moves_the_image(chromium: Any, address: str) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        page.wait_for_selector("#regions tbody tr")
        page.locator("#canvas").scroll_into_view_if_needed()
        box = page.locator("#canvas").bounding_box()
        x, y = box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7  # on the white square

        def brightness() -> float:
            at = [x - box["x"], y - box["y"]]
            return float(page.evaluate(RED_AT, at))

        page.locator("#opacity").fill("0")
        page.wait_for_timeout(200)
        assert brightness() > 200
        page.mouse.move(x, y)
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(200)
        assert brightness() > 200
        page.mouse.down()
        page.mouse.move(x + 600, y, steps=4)
        page.mouse.up()
        page.wait_for_timeout(200)
        assert brightness() < 200
        picture(page, "zoom")


def test_reload_shows_the_same_image_threshold_and_reviews(chromium: Any, address: str) -> None:
    with tab(chromium, f"{address}/#crack%2F1.png") as page:
        opened(page, "crack/1.png")
        page.locator("#threshold").fill("0.45")
        page.click("#ok")
        page.wait_for_timeout(800)
        name = page.text_content("#name")
        page.reload()
        opened(page, name)
        wait_text(page, "#threshold-value", "0.450")
        page.wait_for_function("() => [...document.querySelectorAll('.mark')].some((one) => one.textContent === 'OK')")
        page.click("#undo")  # a tab knows what it said before it was reloaded
        page.wait_for_function("() => [...document.querySelectorAll('.mark')].every((one) => one.textContent !== 'OK')")


def test_two_browsers_see_the_same(chromium: Any, address: str) -> None:
    first = f"{address}/#crack%2F0.png"
    with tab(chromium, first) as one, tab(chromium, first) as other:
        opened(one, "crack/0.png")
        opened(other, "crack/0.png")
        one.click("#ok")
        wait_text(other, "#fp", "1")
        other.locator("#threshold").fill("0.1")
        wait_text(one, "#threshold-value", "0.100")
        picture(one, "two-tabs")


def test_a_server_that_is_killed_loses_nothing_and_gets_what_was_said_meanwhile(chromium: Any, scored: Path) -> None:
    port = free_port()
    process = start_workbench(scored, port)
    try:
        with tab(chromium, f"http://127.0.0.1:{port}/#crack%2F0.png") as page:
            opened(page, "crack/0.png")
            page.click("#ok")
            wait_text(page, "#fp", "1")
            page.wait_for_function("() => document.querySelector('#trouble').hidden")
            page.wait_for_timeout(500)
            process.kill()
            process.wait()
            assert list(Store(scored).verdicts().values()) == ["ok"]
            page.click("#ng")
            page.wait_for_selector("#trouble:not([hidden])")
            assert "1 change waits" in page.text_content("#trouble")
            picture(page, "server-away")
            assert barriers(page) == []
            process = start_workbench(scored, port)
            page.wait_for_selector("#trouble", state="hidden")
            page.wait_for_timeout(300)
            assert sorted(Store(scored).verdicts().values()) == ["ng", "ok"]
    finally:
        process.kill()
        process.wait()


def test_with_a_key_the_page_asks_for_it(chromium: Any, scored: Path) -> None:
    with workbench(Bench(scored, "parts"), keys=(KEY,)) as address, tab(chromium, address) as page:
        page.wait_for_selector("#trouble:not([hidden])")
        assert page.locator("#cards .card").count() == 0
        picture(page, "key")
        assert barriers(page) == []
        page.fill("#key", KEY)
        page.click("#key-form button")
        page.wait_for_selector("#cards .card")
        page.wait_for_function(
            "() => [...document.querySelectorAll('#cards img')].every((one) => one.naturalWidth > 0)"
        )
        opened(page, page.text_content("#cards .file"))


@pytest.mark.parametrize(("name", "size", "scheme"), [("desktop", DESKTOP, "light"), ("phone-dark", PHONE, "dark")])
def test_it_fits_and_no_barrier_is_found(
    chromium: Any, address: str, name: str, size: tuple[int, int], scheme: str
) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png", size, scheme) as page:
        opened(page, "crack/0.png")
        page.wait_for_selector("#regions tbody tr")
        page.click("#ok")
        picture(page, name)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert barriers(page) == []


def test_draw_an_area_to_ignore_and_the_defect_in_it_is_none(chromium: Any, address: str, scored: Path) -> None:
    outline_px = np.array([(50, 42), (94, 42), (94, 78), (50, 78)])
    with tab(chromium, f"{address}/#crack%2F0.png", (1400, 1300)) as page:
        opened(page, "crack/0.png")
        page.wait_for_selector("#regions tbody tr")
        page.click("#ignore-area")
        box = page.locator("#canvas").bounding_box()
        scale = min(box["width"] / 96, box["height"] / 80)
        left, top = box["x"] + (box["width"] - 96 * scale) / 2, box["y"] + (box["height"] - 80 * scale) / 2
        for x, y in outline_px:
            page.mouse.click(left + x * scale, top + y * scale)
        page.click("#area-done")
        wait_text(page, "#bad-count", "0")
        wait_text(page, "#decision", "normal")
        assert page.locator("#area-list li").count() == 1
        picture(page, "area")
        areas = read_areas(scored)
        assert areas is not None
        np.testing.assert_allclose(areas.ignore[0], outline_px / (96, 80), atol=0.02)
        page.reload()
        opened(page, "crack/0.png")
        wait_text(page, "#decision", "normal")
        page.click("#area-list button >> text=Delete")
        wait_text(page, "#decision", "anomalous")
        wait_text(page, "#bad-count", "3")


def test_an_area_by_keyboard_alone(chromium: Any, address: str, scored: Path) -> None:
    with tab(chromium, f"{address}/#crack%2F0.png") as page:
        opened(page, "crack/0.png")
        page.focus("#inspect-area")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # Done has the focus; without corners it makes a rectangle
        page.wait_for_selector(".handle")
        assert page.evaluate("document.activeElement.matches('.handle')")
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(1500)
        corner = read_areas(scored).inspect[0][0]
        assert corner == pytest.approx((0.3, 0.35))
        picture(page, "area-keyboard")
        assert barriers(page) == []


def test_the_static_report_offers_the_command_of_its_slider(chromium: Any, scored: Path) -> None:
    with tab(chromium, (scored / "report.html").as_uri()) as page:
        assert page.is_hidden("#again")
        page.locator("#threshold").fill("0.45")
        page.wait_for_selector("#again:not([hidden])")
        parts = scored.parent / "parts"
        command = f"ad-dinov3 predict {parts} -o {scored} --model toy --class-name part --threshold 0.450"
        assert page.text_content("#again code") == command
        picture(page, "report")
