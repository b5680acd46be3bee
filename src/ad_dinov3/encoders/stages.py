"""The frozen DINOv3 networks as stages: patch tokens on one grid and a global token of each.

The ViT is the class of ``transformers``, the ConvNeXt our own; this module walks their blocks itself, so that nothing
after the last stage is computed and nothing but the stages is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.encoders.convnext import STEM_STRIDE
from ad_dinov3.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from transformers import DINOv3ViTModel


class StageTokens(NamedTuple):
    """What a backbone gives for a batch: L patch grids (B, h, w, C_l) and L global tokens (B, C_l)."""

    patch_tokens: tuple[Tensor, ...]
    cls_tokens: tuple[Tensor, ...]


class StagedViT(nn.Module):
    """A DINOv3 ViT as stages: the outputs of chosen blocks, each through the backbone's final LayerNorm.

    The global token is the CLS token. Patch tokens lie on the grid (H / patch, W / patch), any aspect.

    Args:
        model: the network of ``transformers``.
        stages: 1-based block counts, ascending, such as (6, 12, 18, 24) of 24.
        normed: whether the outputs pass through the final LayerNorm.

    Raises:
        ConfigError: stages that are not ascending or not within the depth.
    """

    def __init__(self, model: DINOv3ViTModel, stages: Sequence[int], normed: bool = True) -> None:
        super().__init__()
        blocks = _part_list(model, "layer")
        self.stages = checked_stages(stages, len(blocks))
        self.embeddings = model.embeddings
        self.rope_embeddings = model.rope_embeddings
        self.blocks = blocks[: self.stages[-1]]
        self.norm = model.norm if normed else nn.Identity()
        self.num_prefix_tokens = 1 + int(model.config.num_register_tokens)  # CLS, then registers, then patches
        patch = model.config.patch_size
        self.patch_size = patch if isinstance(patch, int) else patch[0]
        self.size_multiple = self.patch_size
        self.widths = (int(model.config.hidden_size),) * len(self.stages)

    def forward(self, pixels: Tensor) -> StageTokens:
        """Stage tokens of normalised images (B, 3, H, W) float; H and W multiples of ``size_multiple``."""
        grid = (pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size)
        tokens = self.embeddings(pixels)  # (B, 1 + registers + h*w, C)
        positions = self.rope_embeddings(pixels)
        patches, globals_ = [], []
        for count, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, position_embeddings=positions)
            if count in self.stages:
                normed = self.norm(tokens)
                patches.append(normed[:, self.num_prefix_tokens :].unflatten(1, grid))
                globals_.append(normed[:, 0])
        return StageTokens(tuple(patches), tuple(globals_))


class StagedConvNeXt(nn.Module):
    """A DINOv3 ConvNeXt as stages: every stage's map on one grid, and its mean over positions as the global token.

    Stage s lies at stride 4, 8, 16, 32. Finer stages are average-pooled to ``grid_stride``, coarser ones enlarged
    bilinearly. Like ``transformers``, the last stage's positions and mean pass through the final LayerNorm, the mean
    taken before it. Earlier stages have no norm of their own there; they pass through the LayerNorm with which the
    next stage begins, the backbone's own norm of that very map, so that all stages come on a like scale.

    Args:
        model: our `ConvNeXt`, or the network of ``transformers``.
        stages: 1-based stage counts, ascending, such as (1, 2, 3, 4).
        grid_stride: pixels per side of a cell of the common grid: 4, 8, 16 or 32.

    Raises:
        ConfigError: stages or a grid stride that the network does not have.
    """

    def __init__(self, model: nn.Module, stages: Sequence[int], grid_stride: int) -> None:
        super().__init__()
        parts = _part_list(model, "stages")
        strides = tuple(STEM_STRIDE << index for index in range(len(parts)))
        if grid_stride not in strides:
            raise ConfigError(f"expected a grid stride out of {strides}, got {grid_stride}")
        self.stages = checked_stages(stages, len(parts))
        last = self.stages[-1]
        self.parts = parts[:last]
        entries = [part.get_submodule("downsample_layers.0") for part in parts[1:]]
        final = model.get_submodule("layer_norm")
        self.norms = nn.ModuleList([*entries, _ChannelsFirst(final)][:last])
        self.strides = strides[:last]
        self.patch_size = grid_stride
        self.size_multiple = grid_stride
        self.step = max(grid_stride, self.strides[-1])
        widths = [int(norm.get_parameter("weight").shape[0]) for norm in (*entries, final)]
        self.widths = tuple(widths[stage - 1] for stage in self.stages)

    def forward(self, pixels: Tensor) -> StageTokens:
        """Stage tokens of normalised images (B, 3, H, W) float; H and W multiples of ``size_multiple``.

        Sides that the coarsest stage's stride does not divide are continued by their last pixels and cut off again.
        """
        height, width = pixels.shape[2:]
        rows, columns = height // self.patch_size, width // self.patch_size
        beyond = (0, -width % self.step, 0, -height % self.step)
        features = F.pad(pixels, beyond, mode="replicate") if any(beyond) else pixels
        features = features.contiguous(memory_format=torch.channels_last)
        patches, globals_ = [], []
        for count, (part, norm, stride) in enumerate(zip(self.parts, self.norms, self.strides, strict=True), start=1):
            features = part(features)  # (B, C_l, H / stride, W / stride)
            if count in self.stages:
                on_grid = to_grid(norm(features), stride, self.patch_size)
                patches.append(on_grid.permute(0, 2, 3, 1)[:, :rows, :columns])
                globals_.append(norm(features.mean((2, 3), keepdim=True)).flatten(1))
        return StageTokens(tuple(patches), tuple(globals_))


class _ChannelsFirst(nn.Module):
    """A norm over the last axis as one over the channels of (B, C, h, w)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        normed: Tensor = self.norm(features.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def checked_stages(stages: Sequence[int], depth: int) -> tuple[int, ...]:
    """The stages as they are.

    Raises:
        ConfigError: stages that are not ascending or not within 1..depth.
    """
    if not stages or list(stages) != sorted(set(stages)) or stages[0] < 1 or stages[-1] > depth:
        raise ConfigError(f"expected ascending stages within 1..{depth}, got {tuple(stages)}")
    return tuple(stages)


def check_images(images: Tensor, step: int) -> None:
    """Refuse what is no batch of images for an encoder whose input has sides in multiples of ``step`` px.

    Raises:
        ShapeError: another dtype or rank, or sides that are not multiples of the step.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"expected images (B, 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
    height, width = images.shape[2:]
    if height % step or width % step or not height or not width:
        raise ShapeError(f"expected height and width to be multiples of {step} px, got {height}x{width}; resize first")


def to_grid(features: Tensor, stride: int, grid_stride: int) -> Tensor:
    """The map (B, C, h, w) of one stride on the grid of another: averages going down, bilinear going up."""
    if stride < grid_stride:
        return F.avg_pool2d(features, grid_stride // stride)
    if stride > grid_stride:
        return F.interpolate(features, scale_factor=stride // grid_stride, mode="bilinear", align_corners=False)
    return features


def _part_list(model: nn.Module, name: str) -> nn.ModuleList:
    """The list of blocks or stages: in the model itself, or in its ``model`` in newer versions of transformers."""
    parts = getattr(getattr(model, "model", model), name)
    if not isinstance(parts, nn.ModuleList):
        raise ConfigError(f"expected a list of blocks {name!r} in {type(model).__name__}; update transformers")
    return parts
