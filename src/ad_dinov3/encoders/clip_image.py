"""CLIP's image tower on the modules of ``transformers``, taken apart so that methods can walk its blocks themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config.methods import Activation, PositionResize
from ad_dinov3.encoders.filling import fill, fingerprint
from ad_dinov3.encoders.stages import StageTokens, check_images, checked_stages
from ad_dinov3.types import EncoderSpec, Features
from ad_dinov3.weights import ClipWeights, load_clip_weights, resolve_weights

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Positions(nn.Module):
    """The table of positions of a square patch grid, fitted to another grid.

    Args:
        embedding: (1 + side * side, C), the CLS token's position first.
        resize: how it is fitted.
    """

    def __init__(self, embedding: nn.Embedding, resize: PositionResize) -> None:
        super().__init__()
        self.embedding = embedding
        self.mode = resize.removesuffix("_antialias")
        self.antialias = self.mode != resize

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """The table for a patch grid (h, w): (1 + h*w, C)."""
        table: Tensor = self.embedding.weight
        side = round((table.shape[0] - 1) ** 0.5)
        if grid == (side, side):
            return table
        square = table[1:].mT.reshape(1, -1, side, side)
        fitted = F.interpolate(square, grid, mode=self.mode, antialias=self.antialias, align_corners=False)
        return torch.cat([table[:1], fitted[0].flatten(1).mT])


class ClipVision(nn.Module):
    """A CLIP image tower in parts: embedding, blocks, and the way from a CLS token to the text's space.

    Args:
        model: the network of ``transformers``; its projection leads from the tower's width C to the width D that
            images and texts share.
        position_resize: how the square table of positions is fitted to another grid. The systems built on CLIP differ
            here, and their maps with them.
    """

    def __init__(self, model: CLIPVisionModelWithProjection, position_resize: PositionResize) -> None:
        super().__init__()
        inner = model.vision_model
        self.patch_embedding = inner.embeddings.patch_embedding
        self.class_embedding = inner.embeddings.class_embedding
        self.positions = Positions(inner.embeddings.position_embedding, position_resize)
        self.pre_norm = inner.pre_layrnorm
        self.blocks = inner.encoder.layers
        self.post_norm = inner.post_layernorm
        self.projection = model.visual_projection
        self.patch_size = int(inner.embeddings.patch_embedding.kernel_size[0])
        self.width = int(model.config.hidden_size)
        self.text_width = int(model.visual_projection.out_features)

    def embed(self, pixels: Tensor) -> Tensor:
        """CLS and patch tokens with their positions, through the first LayerNorm: (B, 1 + h*w, C)."""
        patches = self.patch_embedding(pixels)  # (B, C, h, w)
        cls = self.class_embedding.expand(pixels.shape[0], 1, -1)
        tokens = torch.cat([cls, patches.flatten(2).mT], 1)
        normed: Tensor = self.pre_norm(tokens + self.positions((patches.shape[2], patches.shape[3])))
        return normed

    def start(self) -> Tensor:
        """The CLS token as it enters the first block, (C,): the same for every image."""
        normed: Tensor = self.pre_norm(self.class_embedding + self.positions.embedding.weight[0])
        return normed

    def run(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T, C) through all blocks."""
        for block in self.blocks:
            tokens = block(tokens, None)
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., C) through the final LayerNorm into the text's space: (..., D)."""
        projected: Tensor = self.projection(self.post_norm(tokens))
        return projected

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """The patch grid (h, w) of pixels (B, 3, H, W)."""
        return pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size


class ClipTaps(nn.Module):
    """Outputs of chosen blocks as they are, and the image's embedding in the text's space as every stage's CLS token.

    Args:
        vision: the tower.
        stages: 1-based block counts, ascending.

    Raises:
        ConfigError: stages that are not ascending or not within the depth.
    """

    def __init__(self, vision: ClipVision, stages: Sequence[int]) -> None:
        super().__init__()
        self.vision = vision
        self.stages = checked_stages(stages, len(vision.blocks))

    def forward(self, pixels: Tensor) -> StageTokens:
        """Stage tokens of normalised images (B, 3, H, W) float: L of (B, h, w, C), L of (B, D)."""
        grid = self.vision.grid(pixels)
        tokens = self.vision.embed(pixels)
        patches = []
        for count, block in enumerate(self.vision.blocks, start=1):
            tokens = block(tokens, None)
            if count in self.stages:
                patches.append(as_grid(tokens[:, 1:], grid))
        embedding = self.vision.project(tokens[:, 0])
        return StageTokens(tuple(patches), (embedding,) * len(patches))


class ClipImageEncoder:
    """A frozen CLIP tower: (B, 3, H, W) uint8 RGB images to Features (an ImageEncoder).

    Attributes:
        module: normalised float images (B, 3, H, W) to StageTokens; each method has its own.
        spec: what others must know of the encoder.
    """

    def __init__(self, module: nn.Module, spec: EncoderSpec) -> None:
        self.module = module.eval().requires_grad_(False)
        self.spec = spec

    def to(self, target: torch.device | str) -> ClipImageEncoder:
        """Move the tower to a device, in place, and return this encoder."""
        self.module.to(target)
        return self

    def encode(self, images: Tensor) -> Features:
        """Float32 features of (B, 3, H, W) uint8 RGB images, on the encoder's device.

        Raises:
            ShapeError: another dtype or rank, or sides that are not multiples of the patch size.
        """
        check_images(images, self.spec.size_multiple)
        device = next(self.module.parameters()).device
        with torch.no_grad():
            tokens: StageTokens = self.module(normalise(images.to(device)))
        return Features(
            tuple(patch.float() for patch in tokens.patch_tokens),
            tuple(cls.float() for cls in tokens.cls_tokens),
            (int(images.shape[2]), int(images.shape[3])),
        )


@dataclass(frozen=True)
class LoadedVision:
    """An image tower with what an encoder on it must say of its weights.

    Attributes:
        vision: the tower, frozen.
        name: the model's name.
        fingerprint: hex sha256 over the image tower's tensors, activation and resize of positions.
        licence: name of the weights' licence.
    """

    vision: ClipVision
    name: str
    fingerprint: str
    licence: str

    def encoder(self, module: nn.Module, widths: Sequence[int], settings: Mapping[str, object]) -> ClipImageEncoder:
        """An encoder on this tower.

        Args:
            module: from normalised images to StageTokens, around the tower.
            widths: channels of the patches of each stage.
            settings: what decides the features beside the tower, such as the stages.
        """
        spec = EncoderSpec(
            name=self.name,
            patch_size=self.vision.patch_size,
            size_multiple=self.vision.patch_size,
            widths=tuple(widths),
            fingerprint=fingerprint({}, {"vision": self.fingerprint, "module": type(module).__name__, **settings}),
            licence=self.licence,
        )
        return ClipImageEncoder(module, spec)


def load_clip_vision(
    name_or_path: str, *, activation: Activation, position_resize: PositionResize, offline: bool = False
) -> LoadedVision:
    """A frozen image tower from a public name, a repository, a folder or a file.

    Args:
        name_or_path: see ``weights.resolve_weights``; OpenAI's, OpenCLIP's and Hugging Face's layouts are read.
        activation: ``quick_gelu`` is what OpenAI's weights were trained with; some systems run them with ``gelu``.
        position_resize: see ``ClipVision``.
        offline: never download.

    Raises:
        WeightsError: weights that are missing, broken, of another model, or of the text tower alone.
    """
    weights = load_clip_weights(resolve_weights(name_or_path, offline=offline), towers="both")
    return build_clip_vision(weights, activation, position_resize)


def build_clip_vision(weights: ClipWeights, activation: Activation, position_resize: PositionResize) -> LoadedVision:
    """A frozen image tower from tensors that are already read; see ``load_clip_vision``."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # slow to import

    config = CLIPVisionConfig.from_dict({**weights.vision_config, "hidden_act": activation})
    with torch.device("meta"):  # without drawing random weights first
        model = CLIPVisionModelWithProjection(config)
    state = {name: tensor for name, tensor in weights.state.items() if name.startswith("vis")}
    fill(model, state, weights.path)
    vision = ClipVision(model, position_resize).eval().requires_grad_(False)
    settings = {
        "activation": activation,
        "position_resize": position_resize,
        "heads": config.num_attention_heads,
        "eps": config.layer_norm_eps,
    }
    return LoadedVision(vision, weights.name, fingerprint(state, settings), weights.licence)


def normalise(images: Tensor) -> Tensor:
    """The float32 input of a tower for (B, 3, H, W) uint8 images: x / 255, minus OpenAI's mean, over its deviation."""
    mean = torch.tensor(OPENAI_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(OPENAI_STD, device=images.device)[:, None, None]
    return images.float().div_(255).sub_(mean).div_(std)


def as_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, C) in row-major order as (B, h, w, C)."""
    return tokens.reshape(tokens.shape[0], *grid, tokens.shape[2])
