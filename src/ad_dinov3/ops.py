"""Small pure tensor functions that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.errors import ShapeError


def standardise(tokens: Tensor) -> Tensor:
    """Each channel of (B, T, C) to mean 0 and unbiased deviation 1 over an image's own tokens.

    Not in the paper; the released code does it to patch tokens, with 1e-6 beside the deviation.
    """
    centred = tokens - tokens.mean(1, keepdim=True)
    if torch.compiler.is_compiling():  # runtimes lack a division by a size that is left open
        return centred / (tokens.std(1, keepdim=True) + 1e-6)
    # torch's own deviation finds the mean once more, and takes several times as long over this axis.
    deviation = (centred.square().sum(1, keepdim=True) / (tokens.shape[1] - 1)).sqrt()
    return centred / (deviation + 1e-6)


def whiten(tokens: Tensor, shrinkage: float = 0.02) -> Tensor:
    """Rotate and scale (B, T, C) so that an image's own tokens have identity covariance.

    The squared length of a whitened token is its squared Mahalanobis distance from the image's mean token.

    Args:
        tokens: (B, T, C).
        shrinkage: added to the diagonal, as a share of the mean variance; keeps T < C and flat images finite.
    """
    centred = tokens - tokens.mean(1, keepdim=True)
    covariance = centred.mT @ centred / tokens.shape[1]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    ridge = (shrinkage * variance)[:, None, None] * torch.eye(tokens.shape[2], device=tokens.device)
    factor = torch.linalg.cholesky(covariance + ridge)
    whitened: Tensor = torch.linalg.solve_triangular(factor, centred.mT, upper=False)
    return whitened.mT


def cosine_columns(tokens: Tensor, columns: Tensor, normalise_columns: bool = True) -> Tensor:
    """Cosine of (B, T, C) with each column of (B, C, K): (B, T, K); plain projection on un-normalised columns."""
    if normalise_columns:
        columns = F.normalize(columns, dim=1)
    return F.normalize(tokens, dim=-1) @ columns


def on_grid(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, K) in row-major patch order to (B, K, h, w).

    Raises:
        ShapeError: the token count is not h*w.
    """
    height, width = grid
    if values.shape[1] != height * width:
        raise ShapeError(
            f"expected {height * width} patch tokens for a {height}x{width} grid, got {values.shape[1]}; "
            "drop the class and register tokens first"
        )
    return values.mT.reshape(values.shape[0], -1, height, width)


def resize_map(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear (B, K, h, w) to (B, K, *size); an area average where it shrinks."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def top_mean(maps: Tensor, fraction: float) -> Tensor:
    """Mean of the highest share of each map: (B, h, w) to (B,)."""
    flat = maps.flatten(1)
    if not _is_fixed(flat.shape[1]):  # a graph of many sizes: a count that depends on them is no constant
        rank = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype)
        many = (fraction * rank[-1:]).round().clamp(min=1)
        return (flat.sort(1, descending=True).values * (rank <= many)).sum(1) / many
    count = max(1, round(fraction * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(1)


def _is_fixed(size: object) -> bool:
    """Whether a size is a number, rather than a symbol that a graph is traced with."""
    return not isinstance(size, torch.SymInt)
