"""Turned copies of normal images, which few-shot methods remember beside the images themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def rotated(
    images: Tensor,
    degrees: Sequence[float],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    beyond: Literal["reflection", "zeros"] = "reflection",
) -> Tensor:
    """Every image turned by every angle about its centre, on the same canvas, counter-clockwise.

    Args:
        images: (B, 3, H, W) uint8.
        degrees: of the A turns.
        mode: how values between pixels come about.
        beyond: what comes in from outside: the image mirrored at its outermost pixels, or black.

    Returns:
        (B * A, 3, H, W) uint8, all turns of the first image first.
    """
    height, width = images.shape[-2:]
    copies = images[:, None].expand(-1, len(degrees), -1, -1, -1).flatten(0, 1).float()
    turns = []
    for angle in map(math.radians, degrees):
        cosine, sine = math.cos(angle), math.sin(angle)
        # in units of half the distance between the outermost pixels' centres, which differs along height and width
        aspect = (height - 1) / max(width - 1, 1)
        turns.append([[cosine, -sine * aspect, 0.0], [sine / max(aspect, 1e-9), cosine, 0.0]])
    theta = torch.tensor(turns, dtype=torch.float32, device=images.device).repeat(len(images), 1, 1)
    grid = F.affine_grid(theta, list(copies.shape), align_corners=True)
    turned = F.grid_sample(copies, grid, mode=mode, padding_mode=beyond, align_corners=True)
    return turned.round().clamp(0, 255).to(torch.uint8)
