"""Losses between anomaly maps and masks.

Masks may be soft: after averaging to the patch grid a value says which share of the patch is anomalous.
"""

from __future__ import annotations

from torch import Tensor

from ad_dinov3.config.methods import LossResolution

# The released code smooths labels by this much and adds it to the probability before the logarithm.
_SMOOTH = 1e-5


def focal(abnormal: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of (B, H, W) abnormal probabilities against masks in [0, 1].

    Source: Lin et al. 2017, eq. 4, with alpha 1; label smoothing and the offset 1e-5 as in the released code.
    """
    target = mask.clamp(_SMOOTH, 1 - _SMOOTH)
    # The probability that is given to what is true, (B, H, W); for a soft mask, the mixture of both sides.
    agreement = target * abnormal + (1 - target) * (1 - abnormal) + _SMOOTH
    return (-((1 - agreement).clamp_min(0) ** gamma) * agreement.log()).mean()


def dice(abnormal: Tensor, mask: Tensor) -> Tensor:
    """Mean dice loss per image of (B, H, W) abnormal probabilities against masks in [0, 1].

    Source: Milletari et al. 2016, without squares in the denominator and with 1 added above and below, as released.
    """
    # Per image, then averaged: a large defect does not outweigh a small one in another image.
    overlap = (abnormal * mask).flatten(1).sum(1)  # (B,)
    total = abnormal.flatten(1).sum(1) + mask.flatten(1).sum(1)
    # The 1 above and below makes the loss 0, not 0 / 0, on a normal image with an empty map.
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def focal_dice(abnormal: Tensor, mask: Tensor) -> Tensor:
    """Sum of focal and dice loss (paper, eqs. 4 and 5)."""
    return focal(abnormal, mask) + dice(abnormal, mask)


def loss_size(grid: tuple[int, int], full: tuple[int, int], resolution: LossResolution) -> tuple[int, int]:
    """Where maps meet masks, (h, w): the patch ``grid``, four times it (``mid``) or the input's size (``full``)."""
    mid = (min(4 * grid[0], full[0]), min(4 * grid[1], full[1]))
    return {"grid": grid, "mid": mid, "full": full}[resolution]
