"""The frozen DINOv3 backbones, ViT and ConvNeXt, as stages: patch tokens on one grid and a global token of each.

The networks are the classes of ``transformers``; this module walks their blocks itself, so that nothing after the last
stage is computed and nothing but the stages is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

from ad_dinov3.encoders.filling import fill, fingerprint
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.types import EncoderSpec, Features
from ad_dinov3.weights import BackboneWeights, load_backbone_weights, resolve_weights

# What decides the features beside the tensors and the stages; part of the fingerprint.
_VIT_SETTINGS = ("patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "rope_theta")
_CONVNEXT_SETTINGS = ("hidden_act", "layer_norm_eps")
_MASK_TOKEN = "embeddings.mask_token"  # unused here; some layouts drop it
_STEM_STRIDE = 4  # a ConvNeXt's first stage; each further stage halves the grid


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

    Raises:
        ConfigError: stages that are not ascending or not within the depth.
    """

    def __init__(self, model: DINOv3ViTModel, stages: Sequence[int]) -> None:
        super().__init__()
        blocks = _part_list(model, "layer")
        self.stages = _checked_stages(stages, len(blocks))
        self.embeddings = model.embeddings
        self.rope_embeddings = model.rope_embeddings
        self.blocks = blocks[: self.stages[-1]]
        self.norm = model.norm
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
        model: the network of ``transformers``.
        stages: 1-based stage counts, ascending, such as (1, 2, 3, 4).
        grid_stride: pixels per side of a cell of the common grid: 4, 8, 16 or 32.

    Raises:
        ConfigError: stages or a grid stride that the network does not have.
    """

    def __init__(self, model: DINOv3ConvNextModel, stages: Sequence[int], grid_stride: int) -> None:
        super().__init__()
        parts = _part_list(model, "stages")
        strides = tuple(_STEM_STRIDE << index for index in range(len(parts)))
        if grid_stride not in strides:
            raise ConfigError(f"expected a grid stride out of {strides}, got {grid_stride}")
        self.stages = _checked_stages(stages, len(parts))
        last = self.stages[-1]
        self.parts = parts[:last]
        entries = [part.get_submodule("downsample_layers.0") for part in parts[1:]]
        self.norms = nn.ModuleList([*entries, _ChannelsFirstNorm(model.layer_norm)][:last])
        self.strides = strides[:last]
        self.patch_size = grid_stride
        self.size_multiple = grid_stride
        self.step = max(grid_stride, self.strides[-1])
        widths = model.config.hidden_sizes or []
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
                on_grid = _to_grid(norm(features), stride, self.patch_size)
                patches.append(on_grid.permute(0, 2, 3, 1)[:, :rows, :columns])
                globals_.append(norm(features.mean((2, 3), keepdim=True)).flatten(1))
        return StageTokens(tuple(patches), tuple(globals_))


class _ChannelsFirstNorm(nn.Module):
    """A LayerNorm over the channels of (B, C, h, w)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        normed: Tensor = self.norm(features.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class Dinov3Encoder:
    """A frozen DINOv3 backbone: (B, 3, H, W) uint8 RGB images to Features (an ImageEncoder).

    Attributes:
        module: the backbone as stages, on normalised float images; train or export this one.
        spec: what others must know of the encoder.
        mean, std: the statistics that the images are normalised with, per channel of [0, 1].
        autocast: the dtype that the backbone computes in on its device; None for the weights' own.
    """

    def __init__(
        self,
        module: StagedViT | StagedConvNeXt,
        spec: EncoderSpec,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        autocast: torch.dtype | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.spec = spec
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.autocast = autocast

    @property
    def device(self) -> torch.device:
        """Where the backbone lies."""
        return next(self.module.parameters()).device

    def to(self, target: torch.device | str) -> Dinov3Encoder:
        """Move the backbone to a device, in place, and return this encoder."""
        self.module.to(target)
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """The float32 input of ``module`` for (B, 3, H, W) uint8 images: x / 255, minus the mean, over the std."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        return images.float().div_(255).sub_(mean).div_(std)

    def encode(self, images: Tensor) -> Features:
        """Float32 features of (B, 3, H, W) uint8 RGB images, on the encoder's device.

        Raises:
            ShapeError: another dtype or rank, or sides that are not multiples of ``spec.size_multiple``.
        """
        _check_images(images, self.spec.size_multiple)
        device = self.device
        enabled = self.autocast is not None
        # no_grad, not inference_mode: adapters are trained on these tensors, and autograd refuses inference tensors.
        with torch.no_grad(), torch.autocast(device.type, dtype=self.autocast, enabled=enabled):
            tokens = self.module(self.normalise(images.to(device)))
        return Features(
            tuple(patch.float() for patch in tokens.patch_tokens),
            tuple(cls.float() for cls in tokens.cls_tokens),
            (int(images.shape[2]), int(images.shape[3])),
        )


def load_dinov3(
    name_or_path: str,
    *,
    stages: tuple[int, ...] | None = None,
    offline: bool = False,
    autocast: torch.dtype | None = None,
) -> Dinov3Encoder:
    """A frozen encoder from a public name, ``nano``, a folder or a file.

    Args:
        name_or_path: see ``weights.resolve_weights``.
        stages: 1-based counts of blocks (ViT) or stages (ConvNeXt); by default the ends of the four quarters.
        offline: never download.
        autocast: compute in this dtype, such as ``torch.bfloat16`` on a GPU.

    Raises:
        WeightsError: weights that are missing, gated, truncated or of another model.
        ConfigError: stages that the model does not have.
    """
    return build_dinov3(load_backbone_weights(resolve_weights(name_or_path, offline=offline)), stages, autocast)


def build_dinov3(
    weights: BackboneWeights, stages: tuple[int, ...] | None = None, autocast: torch.dtype | None = None
) -> Dinov3Encoder:
    """A frozen encoder from tensors that are already read; see ``load_dinov3``."""
    settings: dict[str, object] = {"mean": weights.mean, "std": weights.std, "autocast": str(autocast)}
    module: StagedViT | StagedConvNeXt
    if weights.kind == "vit":
        vit = DINOv3ViTConfig.from_dict(dict(weights.config))
        module = StagedViT(_built_vit(vit, weights), stages or quarters(vit.num_hidden_layers))
        settings |= {key: getattr(vit, key) for key in _VIT_SETTINGS}
    else:
        convnext = DINOv3ConvNextConfig.from_dict(dict(weights.config))
        every = tuple(range(1, convnext.num_stages + 1))
        module = StagedConvNeXt(_built_convnext(convnext, weights), stages or every, weights.grid_stride)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks the argument
        settings |= {key: getattr(convnext, key) for key in _CONVNEXT_SETTINGS}
    settings |= {"kind": weights.kind, "stages": module.stages, "grid": module.patch_size}
    used = {name: tensor for name, tensor in weights.state.items() if name != _MASK_TOKEN}
    spec = EncoderSpec(
        name=weights.name,
        patch_size=module.patch_size,
        size_multiple=module.size_multiple,
        widths=module.widths,
        fingerprint=fingerprint(used, settings),
        licence=weights.licence,
    )
    return Dinov3Encoder(module, spec, mean=weights.mean, std=weights.std, autocast=autocast)


def quarters(depth: int) -> tuple[int, ...]:
    """The ends of the four quarters of ``depth`` blocks, such as (6, 12, 18, 24); fewer for fewer than four blocks."""
    return tuple(sorted({max(1, round(depth * quarter / 4)) for quarter in (1, 2, 3, 4)}))


def _built_vit(config: DINOv3ViTConfig, weights: BackboneWeights) -> DINOv3ViTModel:
    with torch.device("meta"):  # without drawing random weights first
        model = DINOv3ViTModel(config)
    _fill_backbone(model, weights)
    model.rope_embeddings = type(model.rope_embeddings)(config)  # computed, not stored, and still on "meta"
    return model


def _built_convnext(config: DINOv3ConvNextConfig, weights: BackboneWeights) -> DINOv3ConvNextModel:
    with torch.device("meta"):
        model = DINOv3ConvNextModel(config)
    _fill_backbone(model, weights)
    return model


def _fill_backbone(model: nn.Module, weights: BackboneWeights) -> None:
    wanted = model.state_dict()
    nested = any(key.startswith("model.") for key in wanted)  # newer versions of transformers: blocks below "model."
    state = {
        f"model.{key}" if nested and key.startswith(("layer.", "stages.")) else key: tensor
        for key, tensor in weights.state.items()
    }
    if _MASK_TOKEN in wanted:
        state.setdefault(_MASK_TOKEN, torch.zeros(wanted[_MASK_TOKEN].shape))
    fill(model, state, weights.path)


def _checked_stages(stages: Sequence[int], depth: int) -> tuple[int, ...]:
    if not stages or list(stages) != sorted(set(stages)) or stages[0] < 1 or stages[-1] > depth:
        raise ConfigError(f"expected ascending stages within 1..{depth}, got {tuple(stages)}")
    return tuple(stages)


def _check_images(images: Tensor, size_multiple: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"expected images (B, 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
    height, width = images.shape[2:]
    if height % size_multiple or width % size_multiple or not height or not width:
        raise ShapeError(
            f"expected height and width to be multiples of {size_multiple} px, got {height}x{width}; resize first"
        )


def _to_grid(features: Tensor, stride: int, grid_stride: int) -> Tensor:
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
