"""Augmentation keeps masks true: every pixel's label moves with the pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_dinov3.training.augment import augment, mosaics


def _batch(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Dark images with a bright rectangle in a corner that no turn or flip maps to itself, and its mask."""
    images = torch.full((count, 3, height, width), 40, dtype=torch.uint8)
    masks = torch.zeros(count, height, width)
    images[:, :, :3, :5] = 200
    masks[:, :3, :5] = 1.0
    return images, masks


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_the_bright_pixels_are_those_of_the_mask_after_every_change(size: tuple[int, int]) -> None:
    images, masks = augment(*_batch(64, *size), np.random.default_rng(0))
    bright = images[:, 0] > 100  # 40 becomes at most 48, 200 at least 160
    torch.testing.assert_close(bright.float(), masks)
    assert images.shape == (64, 3, *size)
    assert images.dtype == torch.uint8


def test_a_square_batch_is_seen_in_all_eight_positions_and_an_oblong_one_in_four() -> None:
    def positions(height: int, width: int) -> int:
        _, masks = augment(*_batch(200, height, width), np.random.default_rng(1))
        return len({mask.numpy().tobytes() for mask in masks})

    assert positions(16, 16) == 8
    assert positions(12, 20) == 4


def test_brightness_stays_within_a_fifth_and_differs_between_images() -> None:
    images = torch.full((50, 3, 4, 4), 100, dtype=torch.uint8)
    changed, _ = augment(images, torch.zeros(50, 4, 4), np.random.default_rng(2))
    levels = {int(image.unique()) for image in changed}  # one level in each image
    assert min(levels) >= 80
    assert max(levels) <= 120
    assert len(levels) > 20


def test_the_given_batch_is_not_changed() -> None:
    images, masks = _batch(4, 16, 16)
    before = images.clone(), masks.clone()
    augment(images, masks, np.random.default_rng(3))
    mosaics(images, masks, masks.amax(dim=(1, 2)) > 0, 1.0, np.random.default_rng(3))
    torch.testing.assert_close(images, before[0])
    torch.testing.assert_close(masks, before[1])


def test_a_seed_gives_one_result() -> None:
    one, two = (augment(*_batch(8, 16, 16), np.random.default_rng(4)) for _ in range(2))
    torch.testing.assert_close(one, two)


def test_no_share_changes_nothing_and_half_changes_about_half() -> None:
    images = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    masks, labels = torch.zeros(200, 8, 8), torch.zeros(200, dtype=torch.bool)
    same, _, _ = mosaics(images, masks, labels, 0.0, np.random.default_rng(5))
    torch.testing.assert_close(same, images)
    mixed, _, _ = mosaics(images, masks, labels, 0.5, np.random.default_rng(5))
    changed = sum(not torch.equal(new, old) for new, old in zip(mixed, images, strict=True))
    assert 70 <= changed <= 130


def test_a_mosaic_holds_four_images_of_the_batch_at_half_size() -> None:
    levels = torch.tensor([10, 60, 110, 160, 210], dtype=torch.uint8)
    images = levels[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    masks = (levels > 150).float()[:, None, None].expand(-1, 8, 8).contiguous()
    made, made_masks, labels = mosaics(images, masks, levels > 150, 1.0, np.random.default_rng(6))
    for image, mask, label in zip(made, made_masks, labels, strict=True):
        quarters = [image[0, y : y + 4, x : x + 4].unique() for y in (0, 4) for x in (0, 4)]
        assert all(len(quarter) == 1 and quarter[0] in levels for quarter in quarters)
        torch.testing.assert_close(mask, (image[0] > 150).float())
        assert bool(label) == any(quarter[0] > 150 for quarter in quarters)
