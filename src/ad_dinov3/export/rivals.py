"""WinCLIP, APRIL-GAN and AnomalyCLIP as one traced graph, on the terms of `graph.ScoreGraph`.

Positions are constants at the input's size: no runtime has the antialiased bicubic filter that APRIL-GAN resizes by.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_dinov3.encoders.clip_image import OPENAI_MEAN, OPENAI_STD, ClipImageEncoder, ClipVision
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.graph import ScoreGraph, check_size, twin_of
from ad_dinov3.methods.adaclip import AdaClip
from ad_dinov3.methods.anomalyclip import AnomalyClip
from ad_dinov3.methods.april_gan import AprilGan
from ad_dinov3.methods.rivals import RIVAL_HEADS
from ad_dinov3.methods.winclip import ClipWindows, WinClip
from ad_dinov3.model import Model
from ad_dinov3.types import Features

_Head = WinClip | AprilGan | AnomalyClip


def score_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of any method that has one, for inputs of ``size`` (H, W) in px, or of any size if resizable.

    Raises:
        ConfigError: the method has no such graph, or the encoder cannot take the size.
    """
    if not isinstance(model.head, RIVAL_HEADS):
        return ScoreGraph(model, size, resizable)
    if resizable:
        raise ConfigError(f"{type(model.head).__name__} holds its positions at one size; name it with --size")
    return RivalGraph(model, size)


class BakedPositions(nn.Module):
    """The table of positions of one patch grid as a constant, in place of its resize."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        return self.get_buffer("table")


class RivalScoring(nn.Module):
    """A rival's score as a module, for the class whose prompts are its first."""

    def __init__(self, head: _Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        if isinstance(self.head, AnomalyClip):
            scores = self.head.compare(features)
        else:
            scores = self.head.score(features, self.head.class_names[:1])
        return scores.patch_map, scores.image_score


class RivalGraph(ScoreGraph):
    """Raw scores of uint8 images by one of the systems on CLIP; see `ScoreGraph`.

    Args:
        model: WinCLIP, APRIL-GAN or AnomalyCLIP, without normal images.
        size: (H, W) of the input in px, the only one that the graph takes.

    Raises:
        ConfigError: the method has no fixed graph, or the encoder cannot take the size.
    """

    def __init__(self, model: Model, size: tuple[int, int]) -> None:
        nn.Module.__init__(self)  # the parent's parts are DINOv3's
        self.comparison = None
        head, encoder = _checked(model, size)
        self.size, self.resizable, self.size_multiple = size, False, encoder.spec.size_multiple
        self.backbone = _baked(encoder.module, size)
        self._normalise_by(OPENAI_MEAN, OPENAI_STD)
        self.rival = RivalScoring(head)
        self.class_names = () if isinstance(head, AnomalyClip) else head.class_names
        self.input_names = ["images", "class_index"] if len(self.class_names) > 1 else ["images"]

    def judge(
        self, tokens: tuple[Tensor, ...], class_index: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What the head makes of `encode`'s tokens of images of ``size`` (H, W)."""
        stages = len(tokens) // 2
        features = Features(tokens[:stages], tokens[stages:], size)
        if class_index is None or isinstance(self.rival.head, AnomalyClip):
            patch_map, score = self.rival(features)
        else:
            chosen = {"head.prompts.rows": self.rival.head.prompts.rows.index_select(0, class_index)}
            patch_map, score = torch.func.functional_call(self.rival, chosen, (features,))
        return patch_map, score


def _checked(model: Model, size: tuple[int, int]) -> tuple[_Head, ClipImageEncoder]:
    head, encoder = model.head, model.encoder
    if isinstance(head, AdaClip):
        raise ConfigError(
            "AdaCLIP has no fixed graph: its sentences pass through the text tower with every image, and its image "
            "score rests on a k-means that goes on until it settles; run it with torch"
        )
    if not isinstance(head, WinClip | AprilGan | AnomalyClip) or not isinstance(encoder, ClipImageEncoder):
        raise ConfigError(f"{type(head).__name__} cannot be exported")
    if not isinstance(head, AnomalyClip) and head.references:
        raise ConfigError("a model that compares with normal images cannot be exported; export it without them")
    check_size(encoder.spec.name, size, encoder.spec.size_multiple)
    return head, encoder


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
