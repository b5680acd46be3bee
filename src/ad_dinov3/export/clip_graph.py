"""WinCLIP, APRIL-GAN and AnomalyCLIP as a graph.

Positions are constants at the input's size: no runtime has the antialiased bicubic filter that APRIL-GAN resizes by.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ad_dinov3.encoders.clip_image import OPENAI_MEAN, OPENAI_STD, ClipImageEncoder, ClipVision
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.graph import GraphInput, ScoreGraph, Scoring, check_size, expected, twin_of
from ad_dinov3.methods.anomalyclip import AnomalyClip
from ad_dinov3.methods.winclip import ClipWindows
from ad_dinov3.model import Model, normal_classes
from ad_dinov3.types import Features, Scores


def prompted_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of WinCLIP or APRIL-GAN for inputs of ``size`` (H, W) in px.

    Raises:
        ConfigError: the model compares with normal images, the size is to be open, or the encoder cannot take it.
    """
    if normal_classes(model):
        raise ConfigError("a model that compares with normal images cannot be exported; export it without them")
    return _graph(model, Scoring(model.head, "prompts.rows"), size, resizable)


def anomalyclip_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of AnomalyCLIP, whose prompts know no classes; arguments as in `prompted_graph`.

    Raises:
        ConfigError: the size is to be open, or the encoder cannot take it.
    """
    head = expected(model.head, AnomalyClip)

    def score(features: Features, class_names: Sequence[str]) -> Scores:
        return head.compare(features)  # `score` looks at its tensors first, which a fixed graph cannot

    return _graph(model, Scoring(head, score=score), size, resizable)


class BakedPositions(nn.Module):
    """The table of positions of one patch grid as a constant, in place of its resize."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        return self.get_buffer("table")


def _graph(model: Model, scoring: Scoring, size: tuple[int, int], resizable: bool) -> ScoreGraph:
    encoder = expected(model.encoder, ClipImageEncoder)
    if resizable:
        raise ConfigError(f"{model.config.method.kind} holds its positions at one size; name it with --size")
    step = encoder.spec.size_multiple
    check_size(encoder.spec.name, size, step)
    return ScoreGraph(_baked(encoder.module, size), scoring, GraphInput(size, False, step, OPENAI_MEAN, OPENAI_STD))


def _baked(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The encoder's network at one size; its tensors are shared with the original."""
    twin = twin_of(module)
    vision = twin.get_submodule("vision")
    if isinstance(vision, ClipVision):
        grid = (size[0] // vision.patch_size, size[1] // vision.patch_size)
        vision.add_module("positions", BakedPositions(vision.positions(grid).detach()))
    if isinstance(twin, ClipWindows):
        twin.window_batch = None
    return twin
