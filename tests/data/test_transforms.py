"""Resizing held against Pillow called directly and against torch's antialiased filter."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.data.levels import without_equal_channels
from ad_dinov3.data.transforms import Interpolation, resize_image
from ad_dinov3.errors import ConfigError, ShapeError

PHOTO = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype(np.uint8)
GREY = np.repeat(PHOTO[:, :, :1], 3, axis=2)
GREY_AT_FIRST = np.concatenate([GREY[:1], PHOTO[1:]])


@pytest.mark.parametrize("image", [PHOTO, GREY, GREY_AT_FIRST], ids=["colours", "grey", "grey at first"])
@pytest.mark.parametrize("size", [(16, 24), (50, 70), (128, 96), (1, 1)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_equals_pillow_with_channels_first(image: np.ndarray, size: tuple[int, int], interpolation: str) -> None:
    resized = resize_image(image, size, interpolation)  # type: ignore[arg-type]
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], filters[interpolation]))
    assert resized.shape == (3, *size)
    assert resized.flags.c_contiguous
    assert resized.flags.writeable
    np.testing.assert_array_equal(resized.transpose(1, 2, 0), expected)


@pytest.mark.parametrize("size", [(1, 1), (50, 70), (1300, 900)])
def test_equal_channels_become_one_and_one_other_value_anywhere_keeps_three(size: tuple[int, int]) -> None:
    image = np.repeat(np.random.default_rng(5).integers(0, 256, (*size, 1)).astype(np.uint8), 3, axis=2)
    grey = without_equal_channels(image)
    np.testing.assert_array_equal(grey, image[:, :, 0])
    assert grey.flags.c_contiguous
    for row, column, channel in [(0, 0, 0), (-1, -1, 2), (size[0] // 2, size[1] // 2, 1)]:
        coloured = image.copy()
        coloured[row, column, channel] ^= 1
        assert without_equal_channels(coloured) is coloured


@pytest.fixture(scope="module")
def large_photo() -> np.ndarray:
    rough = np.random.default_rng(4).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(rough).resize((1200, 900)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_of_a_megapixel_and_more_equal_pillow_with_torch_loaded(
    large_photo: np.ndarray, interpolation: Interpolation
) -> None:
    pytest.importorskip("torch")
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(large_photo).resize((518, 518), filters[interpolation]))
    np.testing.assert_array_equal(resize_image(large_photo, (518, 518), interpolation).transpose(1, 2, 0), expected)


def test_the_fast_filter_is_within_one_level_of_pillow(large_photo: np.ndarray) -> None:
    pytest.importorskip("torch")
    exact = resize_image(large_photo, (40, 50), "bilinear").astype(int)
    away = np.abs(resize_image(large_photo, (40, 50), "bilinear_fast") - exact)
    assert away.max() <= 1
    assert (away > 0).mean() < 0.01


def test_the_fast_filter_says_that_it_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="needs torch"):
        resize_image(PHOTO, (16, 24), "bilinear_fast")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_within_one_level_of_torchs_antialiased_filter(interpolation: str) -> None:
    torch = pytest.importorskip("torch")
    batch = torch.from_numpy(PHOTO).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(batch, (20, 30), mode=interpolation, antialias=True)[0].numpy()
    ours = resize_image(PHOTO, (20, 30), interpolation)  # type: ignore[arg-type]
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_a_sub_pixel_pattern_becomes_its_mean_not_an_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resize_image(stripes, (8, 8))[:, 2:6, 2:6].astype(int) - 100).max() <= 2


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((4, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4, 3), np.float32), (2, 2)),
        (np.zeros((4, 4, 3), np.uint8), (0, 2)),
        (np.zeros((0, 4, 3), np.uint8), (2, 2)),
    ],
)
def test_other_shapes_and_types_are_refused(image: np.ndarray, size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        resize_image(image, size)
