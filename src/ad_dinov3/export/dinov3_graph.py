"""AD-DINOv3 and its untrained baseline as a graph.

The rotary tables of a ViT are constants: what several runtimes make of their computation is the best-known trap of
exporting DINOv3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ad_dinov3.encoders.backbone import FrozenBackbone, StagedModule
from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.encoders.stages import StagedViT
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.graph import GraphInput, ScoreGraph, Scoring, check_size, expected, twin_of
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import Model

MAX_WHITENED = 64
"""Channels up to which whitening is written out, step by step, in operations that every runtime has."""


def ad_dinov3_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of AD-DINOv3 for inputs of ``size`` (H, W) in px, or of any size if resizable.

    Raises:
        ConfigError: the encoder cannot take the size, or its tokens are whitened over too many channels.
    """
    head = expected(model.head, AdDinoV3)
    if head.config.tokens == "whiten" and max(head.widths) > MAX_WHITENED:
        raise ConfigError(
            f"method.tokens = whiten over {max(head.widths)} channels has no fixed graph: runtimes lack its matrix "
            f"factorisation, which is written out up to {MAX_WHITENED} channels; run this model with torch"
        )
    return _graph(model, Scoring(head, "prompts" if head.class_names else None), size, resizable)


def dinov3_plain_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of the untrained baseline; arguments as in `ad_dinov3_graph`.

    Raises:
        ConfigError: the encoder cannot take the size.
    """
    return _graph(model, Scoring(model.head), size, resizable)


def _graph(model: Model, scoring: Scoring, size: tuple[int, int], resizable: bool) -> ScoreGraph:
    encoder = expected(model.encoder, FrozenBackbone)
    # Where the size is open, no side may need padding in the backbone's coarsest stage.
    step = _step(encoder.module) if resizable else encoder.spec.size_multiple
    check_size(encoder.spec.name, size, step)
    backbone = _baked(encoder.module, None if resizable else size)
    return ScoreGraph(backbone, scoring, GraphInput(size, resizable, step, encoder.mean, encoder.std))


class BakedRope(nn.Module):
    """The rotary tables of one input size as constants, in place of their computation."""

    def __init__(self, rope: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        cos, sin = rope(torch.zeros(1, 3, *size))
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.get_buffer("cos"), self.get_buffer("sin")


class FreeRope(nn.Module):
    """The rotary tables of any input size in plain arithmetic; transformers' own remember the size they are traced at.

    Args:
        rope: of a DINOv3 ViT.
        patch_size: side of a patch in px.
    """

    def __init__(self, rope: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.register_buffer("inv_freq", rope.get_buffer("inv_freq").clone())  # (head width / 4,)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (h*w, head width) of the patches' centres, each side running from -1 to 1."""
        rows, columns = pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size
        frequencies = 2 * math.pi * self.get_buffer("inv_freq")
        down, across = (_centres(count)[:, None] * frequencies for count in (rows, columns))
        both = (down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1))
        angles = torch.cat([*both, *both], -1).flatten(0, 1)
        return angles.cos(), angles.sin()


def _centres(count: int) -> Tensor:
    """Centres of ``count`` cells from -1 to 1; the division is a tensor's, since runtimes lack one of sizes."""
    past = torch.arange(1, count + 1, dtype=torch.float32)
    return (2 * past - 1) / past[-1:] - 1


def _step(module: StagedModule) -> int:
    """Sides in multiples of this many px need no padding in any stage, nor in those of the image at half size."""
    if isinstance(module, ContextStages):
        return 2 * module.staged.step
    return module.size_multiple if isinstance(module, StagedViT) else module.step


def _baked(module: StagedModule, size: tuple[int, int] | None) -> nn.Module:
    """The backbone at one size, or at any if it is None; its tensors are shared with the original."""
    twin = twin_of(module)
    if isinstance(twin, StagedViT):
        rope = (
            FreeRope(twin.rope_embeddings, twin.patch_size) if size is None else BakedRope(twin.rope_embeddings, size)
        )
        twin.add_module("rope_embeddings", rope)
    return twin
