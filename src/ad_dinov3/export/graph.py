"""A model as one traced graph: uint8 images in, raw patch map and image score out.

Normalisation, backbone, adapters and baked prompts are inside, at a fixed input size; smoothing and thresholds stay
outside, because people change them at run time. `dinov3_graph` and `clip_graph` make the parts, `graphs` says for whom.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ad_dinov3.errors import ConfigError
from ad_dinov3.export.tokens import ComparisonTokens
from ad_dinov3.methods.head import Head
from ad_dinov3.methods.table import METHODS
from ad_dinov3.model import Model
from ad_dinov3.types import DEFAULT_CLASS, Features, Scores

_MOST_STEPS = 512  # of a resizable graph's side; torch wants a bound
T = TypeVar("T")


@dataclass(frozen=True)
class GraphInput:
    """What images a graph takes.

    Attributes:
        size: (H, W) in px, the only one unless it is resizable.
        resizable: every size in multiples of ``size_multiple`` will do.
        size_multiple: in px, what sides are multiples of.
        mean, std: the statistics that images are normalised with, per channel of [0, 1].
    """

    size: tuple[int, int]
    resizable: bool
    size_multiple: int
    mean: Sequence[float]
    std: Sequence[float]


class Scoring(nn.Module):
    """A head's score as a module.

    Args:
        head: of any method.
        score: the head's score; None: ``head.score``.
        prompts: the head's tensor whose rows are the prompts of its classes, so that a class can be chosen by a number;
            None where the class has no say.
    """

    def __init__(
        self,
        head: Head,
        prompts: str | None = None,
        score: Callable[[Features, Sequence[str]], Scores] | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.class_names = head.class_names if prompts else ()
        self.prompts = prompts and f"head.{prompts}"
        self.score = score or head.score

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Patch map and image score for the class whose prompts are the first."""
        scores = self.score(features, self.class_names[:1] or (DEFAULT_CLASS,))
        return scores.patch_map, scores.image_score

    def of_class(self, features: Features, class_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same for the class (1,) int64 that is named by its number; None: the first."""
        if class_index is None or self.prompts is None:
            scored: tuple[Tensor, Tensor] = self(features)
            return scored
        chosen = {self.prompts: self.get_parameter(self.prompts).index_select(0, class_index)}
        patch_map, score = torch.func.functional_call(self, chosen, (features,))
        return patch_map, score


class ScoreGraph(nn.Module):
    """Raw scores of uint8 images, as a runtime without torch computes them.

    Args:
        backbone: normalised float images to ``StageTokens``.
        scoring: what a method makes of them.
        given: the images that it takes.

    Attributes:
        class_names: whose prompts are baked; empty where the class has no say.
        input_names: ``images``, and ``class_index`` if there is more than one class.
        comparison: makes the tokens that images are compared by, where the graph tells them.
    """

    def __init__(self, backbone: nn.Module, scoring: Scoring, given: GraphInput) -> None:
        super().__init__()
        self.size, self.resizable, self.size_multiple = given.size, given.resizable, given.size_multiple
        self.comparison: ComparisonTokens | None = None
        self.backbone = backbone
        self.scoring = scoring
        self.class_names = scoring.class_names
        self.input_names = ["images", "class_index"] if len(self.class_names) > 1 else ["images"]
        scale = 1 / (255 * torch.tensor(given.std))
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", (-torch.tensor(given.mean) * 255 * scale)[:, None, None])

    @property
    def output_names(self) -> tuple[str, ...]:
        """``patch_map``, ``image_score``, and ``tokens`` where the graph tells them."""
        return ("patch_map", "image_score", *(("tokens",) if self.comparison is not None else ()))

    def tell_tokens(self, model: Model) -> None:
        """Give the graph its third output, (B, h, w, D) comparison tokens.

        Raises:
            ConfigError: the method has no tokens by which images can be compared, or the graph has no fixed size.
        """
        row = METHODS[model.config.method.kind]
        if row.remembers or not row.tells_tokens:
            raise ConfigError(f"{row.title} compares images in its own way or not at all")
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
        return self.scoring.of_class(Features(tokens[:stages], tokens[stages:], size), class_index)


def expected(value: object, kind: type[T]) -> T:
    """A model's part, of the class that a graph is written for.

    Raises:
        ConfigError: it is of another.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{type(value).__name__} cannot be exported; expected {kind.__name__}")
    return value


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


def check_size(encoder: str, size: tuple[int, int], step: int) -> None:
    """Refuse a size that an encoder cannot take.

    Raises:
        ConfigError: a side of ``size`` (H, W) is no multiple of ``step`` px.
    """
    if any(side < step or side % step for side in size):
        raise ConfigError(f"expected a size in multiples of {step} px for {encoder}, got {size[0]}x{size[1]}")


def twin_of(module: nn.Module) -> nn.Module:
    """A copy whose parts can be exchanged; its tensors are shared with the original."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


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
