from __future__ import annotations

import numpy as np
import pytest
from skimage import color

from ad_dinov3.errors import ShapeError
from ad_dinov3.report.overlay import COOL, WARM, Hues, blend, colour_table, draw_overlay


@pytest.mark.parametrize("hues", [WARM, COOL])
def test_colours_grow_lighter_in_nearly_equal_steps_for_every_kind_of_eye(hues: tuple[float, float]) -> None:
    table = colour_table(hues)
    lightness = color.rgb2lab(table[None].astype(float) / 255)[0, :, 0]
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert (np.diff(lightness) > -0.3).all()  # one grey level of rounding
    assert lightness[-1] - lightness[0] > 85
    straight = np.linspace(lightness[0], lightness[-1], 256)
    assert np.abs(lightness - straight).max() < 12


def test_neighbouring_colours_have_no_jump() -> None:
    assert np.abs(np.diff(colour_table().astype(int), axis=0)).max() <= 6


def test_a_map_of_zeros_leaves_the_image_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(blend(image, np.zeros((30, 40), np.float32))), image)


def test_a_value_has_the_same_colour_whatever_else_the_map_holds() -> None:
    image = np.full((30, 40, 3), 90, np.uint8)
    low, high = np.full((30, 40), 0.3, np.float32), np.full((30, 40), 0.3, np.float32)
    high[0, 0] = 1.0
    one, other = np.asarray(blend(image, low)), np.asarray(blend(image, high))
    np.testing.assert_array_equal(one[5:], other[5:])


def test_the_image_shows_through_even_at_1() -> None:
    dark, light = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    full = np.ones((4, 4), np.float32)
    difference = np.asarray(blend(light, full)).astype(int) - np.asarray(blend(dark, full))
    assert difference.min() >= 60


@pytest.mark.parametrize("size", [(60, 256), (1200, 1000)])
@pytest.mark.parametrize("hues", [WARM, COOL])
def test_a_grey_image_looks_the_same_in_one_channel_as_in_three(size: tuple[int, int], hues: Hues) -> None:
    random = np.random.default_rng(0)
    grey, strange = random.integers(0, 256, size, np.uint8), random.random(size, np.float32)
    strange[0, :2] = 0, 1
    expected = np.asarray(blend(np.stack([grey] * 3, axis=2), strange, hues))
    np.testing.assert_array_equal(np.asarray(blend(grey, strange, hues)), expected)


@pytest.mark.parametrize("side", [400, 2000])
def test_a_strip_is_the_same_when_its_words_are_drawn_again(side: int) -> None:
    image, empty = np.zeros((side, side), np.uint8), np.zeros((side, side), np.float32)
    first, other, again = (
        np.asarray(draw_overlay(image, empty, score=score, threshold=0.5))[side:] for score in (0.8, 0.1, 0.8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first[:, : side // 3] != other[:, : side // 3]).any()
    np.testing.assert_array_equal(first[:, side // 2 :], other[:, side // 2 :])


def test_an_overlay_keeps_pixels_in_place_above_its_strip() -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    picture = draw_overlay(image, np.zeros((400, 500), np.float32), score=0.1, threshold=0.5)
    assert picture.width == 500
    assert picture.height > 400
    np.testing.assert_array_equal(np.asarray(picture)[:400], image)


def test_the_strip_marks_an_anomalous_score() -> None:
    image, empty = np.zeros((400, 500, 3), np.uint8), np.zeros((400, 500), np.float32)
    normal = np.asarray(draw_overlay(image, empty, score=0.4, threshold=0.5))[400:]
    alarm = np.asarray(draw_overlay(image, empty, score=0.6, threshold=0.5))[400:]
    left = slice(0, 120)
    assert np.ptp(normal[:, left].astype(int), axis=2).max() < 40  # grey words
    assert np.ptp(alarm[:, left].astype(int), axis=2).max() > 100  # orange words


def test_regions_are_outlined_and_nothing_else() -> None:
    image = np.full((400, 500, 3), 100, np.uint8)
    square = [(100, 100), (200, 100), (200, 200), (100, 200)]
    picture = np.asarray(draw_overlay(image, np.zeros((400, 500), np.float32), [square], score=0.9, threshold=0.5))
    changed = (picture[:400] != 100).any(axis=2)
    assert changed[100, 150]
    assert changed[150, 200]
    assert not changed[120:180, 120:180].any()
    assert not changed[:, 260:].any()


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (900, 5), (30, 40)])
def test_an_image_of_any_shape_can_be_drawn(size: tuple[int, int]) -> None:
    picture = draw_overlay(np.zeros((*size, 3), np.uint8), np.ones(size, np.float32), score=1.0, threshold=0.5)
    assert max(picture.size) >= 360


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 5, 3\) and \(5, 4\)"):
        blend(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.float32))


@pytest.mark.parametrize("product", [(205, 140, 70), (230, 120, 20), (150, 90, 40)])
def test_the_cool_scale_is_seen_on_orange_products_where_the_warm_one_vanishes(product: tuple[int, int, int]) -> None:
    image = np.full((1, 128, 3), product, np.uint8)
    strange = np.linspace(0.5, 1, 128, dtype=np.float32)[None]
    plain = color.rgb2lab(image)
    seen = {
        hues: color.deltaE_ciede2000(color.rgb2lab(np.asarray(blend(image, strange, hues))), plain).min()
        for hues in (COOL, WARM)
    }
    assert seen[COOL] > 12  # a difference of 2 can be seen at all
    assert seen[WARM] < seen[COOL] * 0.75
