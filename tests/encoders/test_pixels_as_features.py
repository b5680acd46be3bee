"""Pixels as features."""

from __future__ import annotations

import pytest
import torch

from ad_dinov3.encoders.pixels import PixelEncoder
from ad_dinov3.errors import ShapeError


def test_features_are_the_grey_values_themselves_and_their_mean() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = PixelEncoder().to("cpu").encode(images)
    assert (features.grid, features.image_size) == ((5, 7), (5, 7))
    for image, row, column in ((0, 0, 0), (1, 4, 6), (1, 2, 3)):
        assert features.patch_tokens[0][image, row, column].tolist() == images[image, :, row, column].tolist()
    torch.testing.assert_close(features.cls_tokens[0], images.float().mean((2, 3)))


def test_floats_are_refused() -> None:
    with pytest.raises(ShapeError, match="uint8"):
        PixelEncoder().encode(torch.zeros(1, 3, 4, 4))
