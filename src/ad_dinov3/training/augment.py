"""Changes to a batch of training images that keep their masks true. Not in the paper, whose code augments nothing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_BRIGHTNESS = 0.2


def augment(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flips, quarter turns (square inputs) and brightness; what an image shows stays normal or anomalous.

    Args:
        images: (B, 3, H, W) uint8.
        masks: (B, H, W) float in [0, 1].
        rng: decides everything.

    Returns:
        New images and masks of the same shapes and types.
    """
    pairs = [_turned(image, mask, rng) for image, mask in zip(images, masks, strict=True)]
    images = torch.stack([image for image, _ in pairs])
    masks = torch.stack([mask for _, mask in pairs])
    factors = torch.from_numpy(rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS, len(images)).astype(np.float32))
    brightened = (images.float() * factors[:, None, None, None]).round().clamp(0, 255)
    return brightened.to(torch.uint8), masks


def mosaics(
    images: Tensor, masks: Tensor, labels: Tensor, share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A share of the images, drawn by chance, replaced by 2x2 mosaics of the batch's own images.

    APRIL-GAN and AdaCLIP draw the four from all images of the class; ours come from the same step.

    Args:
        images: (B, 3, H, W) uint8.
        masks: (B, H, W) float in [0, 1].
        labels: (B,) bool; a mosaic is anomalous if one of its four parts is.
        share: the part of the images that become mosaics.
        rng: decides everything.

    Returns:
        New images, masks and labels of the same shapes and types.
    """
    rows = zip(images, masks, labels, strict=True)
    changed = [_mosaic(images, masks, labels, rng) if rng.random() < share else row for row in rows]
    images, masks, labels = (torch.stack(parts) for parts in zip(*changed, strict=True))
    return images, masks, labels


def _turned(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    height, width = mask.shape
    turns = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
    image, mask = image.rot90(turns, (1, 2)), mask.rot90(turns, (0, 1))
    return (image.flip(2), mask.flip(1)) if rng.random() < 0.5 else (image, mask)


def _mosaic(images: Tensor, masks: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Four images of the batch at half size, two above two."""
    four = torch.from_numpy(rng.integers(len(images), size=4))
    half = (images.shape[2] // 2, images.shape[3] // 2)
    small = F.adaptive_avg_pool2d(images[four].float(), half).round().to(torch.uint8)
    small_masks = (F.adaptive_avg_pool2d(masks[four][:, None], half)[:, 0] > 0.5).float()
    return _two_by_two(small), _two_by_two(small_masks), labels[four].any()


def _two_by_two(four: Tensor) -> Tensor:
    return torch.cat([torch.cat([four[0], four[1]], -1), torch.cat([four[2], four[3]], -1)], -2)
