"""Ground truth at the input's size: each rule against plain sums over pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.masks import MaskRule, load_mask, resize_mask
from ad_dinov3.errors import DataError
from ad_dinov3.types import Sample


def half_size(levels: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Levels of one pass of the antialiased bilinear filter to half the size: 1, 3, 3, 1 of 8, inside the border."""
    levels = np.moveaxis(levels, axis, 0)
    rows = [
        (levels[2 * i - 1] + 3 * levels[2 * i] + 3 * levels[2 * i + 1] + levels[2 * i + 2]) / 8
        for i in range(1, len(levels) // 2 - 1)
    ]
    return np.moveaxis(np.floor(np.stack(rows) + 0.5), 0, axis)


def test_bilinear_rules_cut_the_filtered_levels_at_half_and_at_any() -> None:
    mask = np.random.default_rng(0).random((40, 48)) < 0.3
    levels = half_size(half_size(mask * 255.0, 1), 0)
    cuts: dict[MaskRule, float] = {"bilinear_half": 127.5, "bilinear_any": 0.5}
    for rule, least in cuts.items():
        found = resize_mask(mask, (20, 24), rule)[1:-1, 1:-1]
        np.testing.assert_array_equal(found, levels > least)


def test_scratch_of_one_pixel_is_thinned_erased_or_widened_by_the_rules() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[:, 21] = True
    rules: tuple[MaskRule, ...] = ("nearest", "bilinear_half", "bilinear_any")
    areas = {rule: int(resize_mask(mask, (32, 32), rule).sum()) for rule in rules}
    assert areas["bilinear_half"] == 0
    assert areas["nearest"] == 32
    assert areas["bilinear_any"] == 64


def test_mask_of_class_numbers_is_cut_before_it_is_resized(tmp_path: Path) -> None:
    numbers = np.zeros((40, 40), np.uint8)
    numbers[8:24, 8:24] = 3
    Image.fromarray(numbers).save(tmp_path / "mask.png")
    Image.fromarray(numbers).save(tmp_path / "image.png")
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png", "pcb", True, "bad", mask_above=0)
    assert load_mask(sample, (20, 20), "bilinear_half").sum() == 64


def test_mask_of_another_size_names_both_files(tmp_path: Path) -> None:
    for name, side in (("image", 40), ("mask", 41)):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / f"{name}.png")
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png", "pcb", True, "bad")
    with pytest.raises(DataError, match=r"mask has 41 x 41 px and the image 40 x 40: .*mask\.png .* .*image\.png"):
        load_mask(sample, (20, 20))
