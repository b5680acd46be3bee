"""Areas: which pixels are looked at, and what that makes of decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import AREAS_FILE, Areas, read_areas, score_within, write_areas
from ad_dinov3.infer.decide import DecisionRule, upsample
from ad_dinov3.infer.prediction import conclude
from ad_dinov3.infer.scorer import RawScore

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
CORNER = ((0.0, 0.0), (0.25, 0.0), (0.25, 0.25), (0.0, 0.25))
STAR = ((0.5, 0.03), (0.81, 0.97), (0.02, 0.38), (0.97, 0.41), (0.18, 0.96), (0.4, 0.2))


def two_spots() -> NDArray[np.float32]:
    """A patch map with 0.9 on the left and 0.6 on the right."""
    patch_map = np.full((8, 8), 0.1, np.float32)
    patch_map[3:5, 1], patch_map[3:5, 6] = 0.9, 0.6
    return patch_map


def test_rectangles_cover_just_their_pixels_and_what_is_ignored_is_cut_out() -> None:
    mask = Areas(inspect=(LEFT_HALF,), ignore=(CORNER,)).mask((8, 12))
    expected = np.zeros((8, 12), bool)
    expected[:, :6] = True
    expected[:2, :3] = False
    np.testing.assert_array_equal(mask, expected)
    assert Areas().mask((3, 4)).all()


def test_any_polygon_covers_the_pixels_whose_centres_lie_inside_of_it() -> None:
    size = (97, 131)
    corners = np.array([(y * size[0] - 0.5, x * size[1] - 0.5) for x, y in STAR])  # pixel centres at whole numbers
    np.testing.assert_array_equal(Areas(inspect=(STAR,)).mask(size), polygon2mask(size, corners))


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_score_never_rises_by_looking_at_less(score: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    anomaly_map = rng.random((5, 6), np.float32)
    looked_at = rng.random((5, 6)) < 0.5
    within = score_within(score, anomaly_map, looked_at)
    assert 0 <= within <= score + 1e-9
    assert score_within(score, anomaly_map, np.ones((5, 6), bool)) == score


def test_a_score_that_is_the_map_s_peak_becomes_the_part_s_peak() -> None:
    anomaly_map = np.array([[0.8, 0.3], [0.2, 0.1]], np.float32)
    looked_at = np.array([[False, True], [True, True]])
    assert score_within(0.8, anomaly_map, looked_at) == pytest.approx(0.3, abs=1e-6)
    assert score_within(0.8, anomaly_map, np.zeros((2, 2), bool)) < 1e-5


def test_what_is_ignored_is_in_no_decision_mask_or_region_but_in_the_map() -> None:
    raw = RawScore(two_spots(), float(upsample(two_spots(), (64, 64)).max()))
    whole = conclude(raw, (64, 64), DecisionRule(0.5), "part.png")
    right = conclude(raw, (64, 64), DecisionRule(0.5, areas=Areas(ignore=(LEFT_HALF,))), "part.png")
    np.testing.assert_array_equal(right.anomaly_map, upsample(raw.patch_map, (64, 64)))
    assert len(whole.regions) == 2
    assert [region.box[0] >= 32 for region in right.regions] == [True]
    assert not right.mask()[:, :32].any()
    assert not right.mask(0.0)[:, :32].any()
    assert right.score == pytest.approx(float(right.anomaly_map[:, 32:].max()), abs=1e-6)
    nothing = conclude(raw, (64, 64), DecisionRule(0.7, areas=Areas(ignore=(LEFT_HALF,))), "part.png")
    assert whole.is_anomalous
    assert not nothing.is_anomalous


def test_the_overlay_shows_no_map_where_nothing_is_looked_at() -> None:
    raw, grey = RawScore(two_spots(), 0.9), np.full((400, 400, 3), 90, np.uint8)
    areas = Areas(ignore=(LEFT_HALF,))
    drawn = np.asarray(conclude(raw, (400, 400), DecisionRule(0.5, areas=areas), "part.png").overlay(grey))
    assert (drawn[:400, :195] == 90).all()
    assert (drawn[:400, 205:] != 90).any()


def test_areas_come_back_from_their_file_and_none_leaves_none(tmp_path: Path) -> None:
    assert read_areas(tmp_path) is None
    areas = Areas(inspect=(LEFT_HALF,), ignore=(CORNER, STAR))
    write_areas(tmp_path, areas)
    assert read_areas(tmp_path) == areas
    write_areas(tmp_path, Areas())
    assert read_areas(tmp_path) is None
    write_areas(tmp_path, Areas(), keep_empty=True)
    assert read_areas(tmp_path) == Areas()


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"format_version": 2}',
        '{"format_version": 1, "ignore": [[[0, 0], [1, 1]]]}',
        '{"format_version": 1, "ignore": [[[0, 0], [1, 1], [2, 0]]]}',
        '{"format_version": 1, "ignored": []}',
        '{"format_version": 1, "ignore": [[[0, 0], [1, 1], [NaN, 0]]]}',
    ],
)
def test_a_file_that_is_no_areas_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / AREAS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"areas\.json"):
        read_areas(tmp_path)
