"""What a small backbone lacks, beside its own stages: classical filter responses, and the image at half its size.

Not in the paper, and not for DINOv3's own weights. A small backbone sees little of its surroundings and has few
filters; here its stages are joined by those of the image at half size, with the same weights, and by a stage without
weights that holds what the classical detector of `methods.mahalanobis` looks at.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.encoders.efficientnet_lite import StagedLite
from ad_dinov3.encoders.stages import StagedConvNeXt, StageTokens

FILTER_WIDTH = 24
_SIGMAS = ((1, 1.0), (1, 2.0), (2, 2.0), (4, 2.0))  # (shrink, sigma on the shrunk image): 1, 2, 4 and 8 px
_PEAKS = 3  # of the finest scales, whose largest response in a cell counts too
_LEVEL = 1 / 255  # colour differences up to one grey level are rounding
_COARSE = 2  # stages of the small image that count, from the last: its finer ones only repeat
_COARSE_OF_LITE = 1  # of an EfficientNet-Lite the last but one alone: its last sees the whole image at half size


class FilterBank(nn.Module):
    """Smoothing, gradient magnitude, Laplacian and local deviation at sigma 1, 2, 4, 8 px, and two colour differences.

    Args:
        mean, std: statistics that the pixels were normalised with, per channel of [0, 1].
        cell_px: side of a cell of the grid, a multiple of 4.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], cell_px: int) -> None:
        super().__init__()
        self.cell_px = cell_px
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised, sides multiples of the cell, to (B, h, w, 24)."""
        colour = pixels * self.get_buffer("std") + self.get_buffer("mean")
        grey = colour.mean(1, keepdim=True)
        means, peaks = [], []
        for i, (shrink, sigma) in enumerate(_SIGMAS):
            responses = _responses(_mean_in_cells(grey, shrink) if shrink > 1 else grey, _gaussian(sigma))
            means.append(_mean_in_cells(responses, self.cell_px // shrink))
            if i < _PEAKS:
                peaks.append(_peak_in_cells(responses[:, 1:3].abs(), self.cell_px // shrink))
        opponent = torch.cat([colour[:, :1] - colour[:, 1:2], colour[:, 2:] - colour[:, :2].mean(1, keepdim=True)], 1)
        chroma = F.softshrink(_mean_in_cells(opponent, self.cell_px), _LEVEL)
        return torch.cat([*means, *peaks, chroma], 1).permute(0, 2, 3, 1)


class ContextStages(nn.Module):
    """A staged backbone with the filter bank as first stage, its own stages, and those of the image at half size.

    Args:
        staged: the backbone.
        mean, std: statistics that the pixels were normalised with.
    """

    def __init__(self, staged: StagedConvNeXt | StagedLite, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.staged = staged
        self.filters = FilterBank(mean, std, staged.patch_size)
        self.stages = staged.stages
        self.patch_size = self.size_multiple = staged.patch_size
        self.small, self.coarse = staged, _COARSE
        if isinstance(staged, StagedLite) and len(staged.stages) > 1:
            self.small, self.coarse = staged.of_stages(staged.stages[:-1]), _COARSE_OF_LITE
        self.widths = (FILTER_WIDTH, *staged.widths, *self.small.widths[-self.coarse :])

    def forward(self, pixels: Tensor) -> StageTokens:
        """Stage tokens of normalised images (B, 3, H, W) float; H and W multiples of ``size_multiple``."""
        grid = (pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size)
        filtered = self.filters(pixels)
        own = self.staged(pixels)
        # Half of an odd number of cells is rounded up, so that the small image still divides into cells.
        half_px = [self.patch_size * ((cells + 1) // 2) for cells in grid]
        half = self.small(F.interpolate(pixels, half_px, mode="bilinear", antialias=False))
        patches = [_enlarged(tokens, grid) for tokens in half.patch_tokens[-self.coarse :]]
        return StageTokens(
            (filtered, *own.patch_tokens, *patches),
            (filtered.mean((1, 2)), *own.cls_tokens, *half.cls_tokens[-self.coarse :]),
        )


def _enlarged(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h, w, C) on a finer grid, bilinear."""
    return F.interpolate(tokens.permute(0, 3, 1, 2), grid, mode="bilinear").permute(0, 2, 3, 1)


def _responses(level: Tensor, kernel: tuple[float, ...]) -> Tensor:
    """(B, 1, h, w) to (B, 4, h, w): mean, gradient magnitude, Laplacian, deviation."""
    height, width = level.shape[2:]
    average = level.mean((2, 3), keepdim=True)
    around_it = level - average  # products round at random: where all is one grey, that must not look like texture
    both = torch.cat([around_it, around_it.square()], 1)
    down_columns, along_rows = _blur(height, kernel, level), _blur(width, kernel, level)
    smooth, square = (down_columns.mT @ (both @ along_rows)).chunk(2, 1)
    around = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    up, down = around[:, :, :-2, 1:-1], around[:, :, 2:, 1:-1]
    left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
    gradient = ((down - up).square() + (right - left).square() + 1e-10).sqrt() / 2
    laplacian = up + down + left + right - 4 * smooth
    deviation = (square - smooth.square()).clamp(min=1e-8).sqrt()
    return torch.cat([smooth + average, gradient, laplacian, deviation], 1)


def _blur(length: int, kernel: tuple[float, ...], like: Tensor) -> Tensor:
    """A kernel along an axis with repeated ends as a matrix (from, to): runtimes multiply faster than they shift."""
    radius = len(kernel) // 2
    steps = torch.arange(length, device=like.device)
    same = (steps[:, None] == steps).to(like.dtype)  # OpenVINO converts no torch.eye
    padded = F.pad(same[None], (radius, radius), mode="replicate")[0]
    matrix = padded.narrow(1, 0, length) * kernel[0]
    for offset, weight in enumerate(kernel[1:], start=1):
        matrix.add_(padded.narrow(1, offset, length), alpha=weight)
    return matrix


def _mean_in_cells(planes: Tensor, cell_px: int) -> Tensor:
    """(B, C, H, W) to (B, C, h, w), rows first; in OpenVINO several times faster than average pooling."""
    rows = planes.reshape(*planes.shape[:2], -1, cell_px, planes.shape[3]).mean(3)
    return rows.reshape(*rows.shape[:3], -1, cell_px).mean(4)


def _peak_in_cells(planes: Tensor, cell_px: int) -> Tensor:
    """(B, C, H, W) to (B, C, h, w), rows first."""
    rows = planes.reshape(*planes.shape[:2], -1, cell_px, planes.shape[3]).amax(3)
    return rows.reshape(*rows.shape[:3], -1, cell_px).amax(4)


def _gaussian(sigma: float) -> tuple[float, ...]:
    """A kernel of 3 sigma to each side."""
    radius = round(3 * sigma)
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-radius, radius + 1)]
    return tuple(weight / sum(weights) for weight in weights)
