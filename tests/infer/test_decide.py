from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import measure

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.infer.decide import (
    describe_region,
    find_regions,
    outline,
    position_words,
    severity_word,
    simplify,
    threshold_mask,
    upsample,
)

EIGHT = np.ones((3, 3), bool)


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 3), (32, 32)])
@pytest.mark.parametrize("size", [(64, 96), (33, 100), (211, 97)])
def test_upsample_equals_torch_bilinear_without_aligned_corners(grid: tuple[int, int], size: tuple[int, int]) -> None:
    patch_map = np.random.default_rng(0).random(grid, dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(patch_map)[None, None], size=size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(patch_map, size), expected[0, 0].numpy(), atol=1e-5)


def test_upsample_to_the_same_size_changes_nothing() -> None:
    patch_map = np.random.default_rng(1).random((9, 14), dtype=np.float32)
    np.testing.assert_array_equal(upsample(patch_map, (9, 14)), patch_map)


def test_upsample_to_fewer_pixels_stays_within_the_values() -> None:
    patch_map = np.random.default_rng(2).random((32, 32), dtype=np.float32)
    small = upsample(patch_map, (3, 1))
    assert small.shape == (3, 1)
    assert patch_map.min() <= small.min() <= small.max() <= patch_map.max()


def test_upsample_refuses_a_batch() -> None:
    with pytest.raises(ShapeError, match=r"\(h, w\)"):
        upsample(np.zeros((1, 4, 4), np.float32), (8, 8))


masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


@given(masks)
@settings(max_examples=50, deadline=None)
def test_regions_equal_skimage_on_random_masks(mask: np.ndarray) -> None:
    values = np.where(mask, 0.5 + np.arange(mask.size).reshape(mask.shape) / (2 * mask.size), 0.1).astype(np.float32)
    found = {region.box: region for region in find_regions(values, 0.5)}
    expected = measure.regionprops(measure.label(mask, connectivity=2), values)
    assert len(found) <= len(expected)  # two regions can share a box
    assert sum(region.area_px for region in find_regions(values, 0.5)) == mask.sum()
    for theirs in expected:
        y0, x0, y1, x1 = theirs.bbox
        if sum(other.bbox == theirs.bbox for other in expected) > 1:
            continue
        ours = found[(x0, y0, x1, y1)]
        assert ours.area_px == theirs.area
        assert ours.peak == pytest.approx(theirs.intensity_max)
        assert ours.mean == pytest.approx(theirs.intensity_mean)
        assert (ours.centroid[1] - 0.5, ours.centroid[0] - 0.5) == pytest.approx(theirs.centroid)
        major, minor = theirs.inertia_tensor_eigvals
        assert ours.elongation == pytest.approx(np.sqrt((major + 1 / 12) / (minor + 1 / 12)), rel=0.2)


@given(masks)
@settings(max_examples=50, deadline=None)
def test_outline_encloses_exactly_the_filled_region(mask: np.ndarray) -> None:
    labels, count = ndimage.label(mask, EIGHT)
    if count == 0:
        assert outline(mask) == []
        return
    region = labels == labels.ravel()[np.flatnonzero(labels)[0]]
    filled = ndimage.binary_fill_holes(region)  # holes are 4-connected where regions are 8-connected
    np.testing.assert_array_equal(_inside(outline(region), mask.shape), filled)


def test_outline_runs_clockwise_through_the_corners_only() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert outline(mask) == [(1, 1), (4, 1), (4, 3), (1, 3)]


def test_simplify_keeps_every_dropped_corner_within_the_tolerance() -> None:
    y, x = np.mgrid[:80, :80]
    ring = outline((x - 40) ** 2 + (y - 38) ** 2 < 33**2)
    slim = simplify(ring, 1.0)
    assert len(slim) < len(ring) / 3
    canvas = Image.new("L", (80, 80))
    ImageDraw.Draw(canvas).line([*slim, slim[0]], fill=1)
    distance = ndimage.distance_transform_edt(np.asarray(canvas) == 0)
    assert max(distance[min(cy, 79), min(cx, 79)] for cx, cy in ring) <= 1.0 + 0.75  # half a pixel's diagonal of ink


def test_simplify_leaves_a_single_pixel_square() -> None:
    ring = [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert simplify(ring, 5.0) == ring


def test_region_of_one_pixel_is_finite_and_round() -> None:
    values = np.zeros((5, 5), np.float32)
    values[2, 3] = 1
    (region,) = find_regions(values, 0.5)
    assert (region.box, region.area_px, region.elongation, region.centroid) == ((3, 2, 4, 3), 1, 1.0, (3.5, 2.5))
    assert region.polygon == ((3, 2), (4, 2), (4, 3), (3, 3))


def test_regions_come_with_the_highest_peak_first() -> None:
    values = np.zeros((6, 20), np.float32)
    values[1:3, 1:9] = 0.6
    values[4, 15] = 0.9
    assert [region.area_px for region in find_regions(values, 0.5)] == [1, 16]


def test_small_regions_leave_both_the_mask_and_the_list() -> None:
    values = np.zeros((6, 20), np.float32)
    values[1:3, 1:9] = 0.6
    values[4, 15] = 0.9
    assert threshold_mask(values, 0.5, min_area_px=2).sum() == 16
    assert [region.area_px for region in find_regions(values, 0.5, min_area_px=2)] == [16]


def test_a_value_equal_to_the_threshold_is_anomalous() -> None:
    values = np.full((2, 2), 0.3, np.float32)
    assert threshold_mask(values, 0.3).all()


def test_a_threshold_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.5"):
        threshold_mask(np.zeros((2, 2), np.float32), 1.5)


@given(st.integers(0, 299), st.integers(0, 299))
def test_position_words_name_the_third(column: int, row: int) -> None:
    words = position_words((column + 0.5, row + 0.5), (300, 300))  # pixel centres
    assert ("left" in words) == (column < 100)
    assert ("upper" in words) == (row < 100)
    assert (words == "centre") == (100 <= column < 200 and 100 <= row < 200)


def test_a_long_thin_region_reads_as_a_scratch() -> None:
    values = np.zeros((100, 100), np.float32)
    values[48:52, 70:95] = 0.93
    (region,) = find_regions(values, 0.5)
    assert describe_region(region, (100, 100), 0.5) == "strong scratch-like region, 100 px², centre right, peak 0.93"


def test_severity_grows_with_the_peak() -> None:
    assert [severity_word(peak, 0.4) for peak in (0.45, 0.75, 0.95, 1.0)] == ["faint", "clear", "strong", "strong"]


def _inside(ring: list[tuple[int, int]], shape: tuple[int, ...]) -> np.ndarray:
    """Which pixel centres the ring winds around: even-odd crossings of a ray to the left."""
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
        if x0 == x1:
            inside[min(y0, y1) : max(y0, y1), x0:] ^= True
    return inside
