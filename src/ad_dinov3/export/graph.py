"""A model as one traced graph: uint8 images in, raw patch map and image score out.

Normalisation, backbone, adapters and baked prompts are inside, at a fixed input size; smoothing and thresholds stay
outside, because people change them at run time. The rotary tables of a ViT are constants: what several runtimes make of
their computation is the best-known trap of exporting DINOv3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.encoders.dinov3 import Dinov3Encoder, StagedModule
from ad_dinov3.encoders.stages import StagedViT
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.tokens import ComparisonTokens
from ad_dinov3.methods.ad_dinov3 import DEFAULT_CLASS, AdDinoV3
from ad_dinov3.methods.dinov3_plain import Dinov3Plain
from ad_dinov3.model import Model, has_own_memory, tells_tokens
from ad_dinov3.types import Features

MAX_WHITENED = 64
"""Channels up to which whitening is written out, step by step, in operations that every runtime has."""

_MOST_STEPS = 512  # of a resizable graph's side; torch wants a bound


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


class _Scoring(nn.Module):
    """A method's score as a module, for the class whose prompts are its first."""

    def __init__(self, head: AdDinoV3 | Dinov3Plain) -> None:
        super().__init__()
        self.head = head
        self.class_name = head.class_names[0] if isinstance(head, AdDinoV3) else DEFAULT_CLASS

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        scores = self.head.score(features, (self.class_name,))
        return scores.patch_map, scores.image_score


class ScoreGraph(nn.Module):
    """Raw scores of uint8 images, as a runtime without torch computes them.

    Args:
        model: AD-DINOv3 or its untrained baseline.
        size: (H, W) of the input in px, the only one that the graph takes unless it is resizable.
        resizable: the graph takes every size in multiples of ``size_multiple``.

    Attributes:
        size_multiple: in px, what sides are multiples of; what the backbone's coarsest stage divides without padding
            where the graph is resizable.
        class_names: whose prompts are baked; empty where the class has no say.
        input_names: ``images``, and ``class_index`` if there is more than one class.
        comparison: makes the tokens that images are compared by, where the graph tells them.

    Raises:
        ConfigError: the method has no fixed graph, or the encoder cannot take the size.
    """

    def __init__(self, model: Model, size: tuple[int, int], resizable: bool = False) -> None:
        super().__init__()
        self.comparison: ComparisonTokens | None = None
        head, encoder = model.head, model.encoder
        if not isinstance(head, AdDinoV3 | Dinov3Plain) or not isinstance(encoder, Dinov3Encoder):
            raise ConfigError(f"{type(head).__name__} cannot be exported; expected AD-DINOv3 or its untrained baseline")
        self.size, self.resizable = size, resizable
        self.size_multiple = _step(encoder.module) if resizable else encoder.spec.size_multiple
        _check_graph(head, encoder.spec.name, size, self.size_multiple)
        self.backbone = _baked(encoder.module, None if resizable else size)
        self._normalise_by(encoder.mean, encoder.std)
        self.scoring = _Scoring(head)
        named = isinstance(head, AdDinoV3) and not head.learned_prompts
        self.class_names = head.class_names if isinstance(head, AdDinoV3) and named else ()
        self.input_names = ["images", "class_index"] if len(self.class_names) > 1 else ["images"]

    def _normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", (-torch.tensor(mean) * 255 * scale)[:, None, None])

    @property
    def output_names(self) -> tuple[str, ...]:
        """``patch_map``, ``image_score``, and ``tokens`` where the graph tells them."""
        return ("patch_map", "image_score", *(("tokens",) if self.comparison is not None else ()))

    def tell_tokens(self, model: Model) -> None:
        """Give the graph its third output, (B, h, w, D) comparison tokens.

        Raises:
            ConfigError: the method has no tokens by which images can be compared, or the graph has no fixed size.
        """
        if has_own_memory(model) or not tells_tokens(model):
            raise ConfigError(f"{type(model.head).__name__} compares images in its own way or not at all")
        if self.resizable:
            raise ConfigError("comparison tokens are exported at one size; name it with --size")
        step = model.encoder.spec.patch_size
        self.comparison = ComparisonTokens(model.encoder.spec.widths, (self.size[0] // step, self.size[1] // step))

    def forward(self, images: Tensor, class_index: Tensor | None = None) -> tuple[Tensor, ...]:
        """Patch map (B, h, w) and image score (B,) of (B, 3, H, W) uint8 images, and comparison tokens if told.

        Args:
            images: RGB.
            class_index: (1,) int64, which of ``class_names`` all of them show; given if there are several.
        """
        return self.outputs(self.encode(images), class_index, (images.shape[2], images.shape[3]))

    def outputs(
        self, tokens: tuple[Tensor, ...], class_index: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """All outputs from `encode`'s tokens of images of ``size`` (H, W)."""
        told = () if self.comparison is None else (self.comparison(tokens[: len(tokens) // 2]),)
        return (*self.judge(tokens, class_index, size), *told)

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's patch tokens of each stage, then its global tokens, of (B, 3, H, W) uint8 images."""
        pixels = images.float() * self.get_buffer("scale") + self.get_buffer("shift")
        tokens = self.backbone(pixels)
        return (*tokens.patch_tokens, *tokens.cls_tokens)

    def judge(
        self, tokens: tuple[Tensor, ...], class_index: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What the head makes of `encode`'s tokens of images of ``size`` (H, W)."""
        stages = len(tokens) // 2
        features = Features(tokens[:stages], tokens[stages:], size)
        if class_index is None or not isinstance(self.scoring.head, AdDinoV3):
            patch_map, score = self.scoring(features)
        else:
            chosen = {"head.prompts": self.scoring.head.prompts.index_select(0, class_index)}
            patch_map, score = torch.func.functional_call(self.scoring, chosen, (features,))
        return patch_map, score


class EncodeGraph(nn.Module):
    """The first half of a `ScoreGraph`: uint8 images to tokens."""

    def __init__(self, graph: ScoreGraph) -> None:
        super().__init__()
        self.whole = graph

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.whole.encode(images)


class JudgeGraph(nn.Module):
    """The second half of a `ScoreGraph`: tokens, and the class where there are several, to scores."""

    def __init__(self, graph: ScoreGraph) -> None:
        super().__init__()
        self.whole = graph

    def forward(self, tokens: tuple[Tensor, ...], class_index: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.whole.outputs(tokens, class_index, self.whole.size)


def trace(graph: ScoreGraph, *, batch: int | None = None) -> ExportedProgram:
    """The graph as torch exports it, without operations that runtimes lack.

    Args:
        graph: on the CPU.
        batch: images per call; None leaves it open.
    """
    index = _class_index(graph)
    free: dict[int, object] = {0: Dim("batch")} if batch is None else {}
    if graph.resizable:
        free |= {axis: graph.size_multiple * Dim(name, min=2, max=_MOST_STEPS) for axis, name in ((2, "h"), (3, "w"))}
    return _exported(graph, (_images(graph, batch or 2), *index), (free, *({} for _ in index)))


def trace_halves(graph: ScoreGraph) -> tuple[ExportedProgram, ExportedProgram]:
    """Backbone and head as graphs of their own, for one image: `EncodeGraph` and `JudgeGraph`."""
    images = _images(graph, 1)
    with torch.no_grad():
        tokens = graph.eval().encode(images)
    return _exported(EncodeGraph(graph), (images,)), _exported(JudgeGraph(graph), (tokens, *_class_index(graph)))


def _images(graph: ScoreGraph, batch: int) -> Tensor:
    return torch.zeros(batch, 3, *graph.size, dtype=torch.uint8)


def _class_index(graph: ScoreGraph) -> tuple[Tensor, ...]:
    return (torch.zeros(1, dtype=torch.int64),) if "class_index" in graph.input_names else ()


def _exported(
    module: nn.Module, example: tuple[object, ...], shapes: tuple[object, ...] | None = None
) -> ExportedProgram:
    with torch.no_grad():
        exported: ExportedProgram = torch.export.export(module.eval(), example, dynamic_shapes=shapes)
        lowered: ExportedProgram = exported.run_decompositions(_written_out())
    return lowered


def _check_graph(head: AdDinoV3 | Dinov3Plain, encoder: str, size: tuple[int, int], step: int) -> None:
    check_size(encoder, size, step)
    if isinstance(head, AdDinoV3) and head.config.tokens == "whiten" and max(head.widths) > MAX_WHITENED:
        raise ConfigError(
            f"method.tokens = whiten over {max(head.widths)} channels has no fixed graph: runtimes lack its matrix "
            f"factorisation, which is written out up to {MAX_WHITENED} channels; run this model with torch"
        )


def check_size(encoder: str, size: tuple[int, int], step: int) -> None:
    """Raises:
    ConfigError: a side of ``size`` (H, W) is no multiple of ``step`` px.
    """
    if any(side < step or side % step for side in size):
        raise ConfigError(f"expected a size in multiples of {step} px for {encoder}, got {size[0]}x{size[1]}")


def _step(module: StagedModule) -> int:
    """Sides in multiples of this many px need no padding in any stage, nor in those of the image at half size."""
    if isinstance(module, ContextStages):
        return 2 * module.staged.step
    return module.size_multiple if isinstance(module, StagedViT) else module.step


def twin_of(module: nn.Module) -> nn.Module:
    """A copy whose parts can be exchanged; its tensors are shared with the original."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def _baked(module: StagedModule, size: tuple[int, int] | None) -> nn.Module:
    """The backbone at one size, or at any if it is None; its tensors are shared with the original."""
    twin = twin_of(module)
    if isinstance(twin, StagedViT):
        rope = (
            FreeRope(twin.rope_embeddings, twin.patch_size) if size is None else BakedRope(twin.rope_embeddings, size)
        )
        twin.add_module("rope_embeddings", rope)
    return twin


def _written_out() -> dict[torch._ops.OperatorBase, Callable[..., object]]:
    """What to put in place of the operations of whitening that runtimes lack."""
    return {
        torch.ops.aten.linalg_cholesky.default: _cholesky,
        torch.ops.aten.linalg_solve_triangular.default: _solve_lower,
        torch.ops.aten.diagonal.default: _diagonal,
    }


def _cholesky(matrix: Tensor, *, upper: bool = False) -> Tensor:
    """Lower factor of (B, C, C) by columns (outer-product form); C steps of plain arithmetic."""
    rest, columns = matrix, []
    for index in range(matrix.shape[-1]):
        column = rest.narrow(2, index, 1)
        column = column / column.narrow(1, index, 1).sqrt()
        columns.append(column)
        rest = rest - column * column.mT  # what is done with becomes 0 but for rounding, which tril takes away
    return torch.cat(columns, -1).tril()


def _solve_lower(
    factor: Tensor, right: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Solution X of L X = R for lower (B, C, C), by the inverse of L from its diagonal blocks, 1 x 1 up to C x C."""
    size = factor.shape[-1]
    index = torch.arange(size)
    inverse = torch.where(torch.eye(size, dtype=torch.bool), 1 / factor, torch.zeros(()))
    block = 1
    while block < size:
        # (i, j) below the diagonal, in one block of twice the size and in different halves of it
        row, column = index[:, None] // block, index[None] // block
        joined = ((row // 2 == column // 2) & (row == column + 1)).float()
        inverse = inverse - inverse @ (factor * joined) @ inverse
        block *= 2
    return inverse @ right


def _diagonal(matrix: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The main diagonal (B, C) of (B, C, C), which is all that whitening asks for."""
    return (matrix * torch.eye(matrix.shape[dim1])).sum(dim2)
