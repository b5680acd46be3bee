"""The image itself as features, for methods that look at pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ad_dinov3.encoders.stages import check_images
from ad_dinov3.types import EncoderSpec, Features

PIXELS = "pixels"
"""What settings call this encoder."""


class PixelEncoder:
    """One stage of one-pixel patches: grey values 0..255 of (B, 3, H, W) uint8 images, and their mean colour."""

    spec = EncoderSpec(PIXELS, patch_size=1, size_multiple=1, widths=(3,), fingerprint=PIXELS, licence="none needed")

    def to(self, target: torch.device | str) -> PixelEncoder:
        """The same encoder: it has no weights to move."""
        return self

    def encode(self, images: Tensor) -> Features:
        """Features of B images: patches (B, H, W, 3) float32, exactly the grey values.

        Raises:
            ShapeError: another dtype or rank.
        """
        check_images(images, self.spec.size_multiple)
        pixels = images.permute(0, 2, 3, 1).float()
        return Features((pixels,), (pixels.mean((1, 2)),), (int(images.shape[2]), int(images.shape[3])))
