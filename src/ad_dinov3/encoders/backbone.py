"""The frozen backbones: from a name or a folder of weights to Features of uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ad_dinov3.config import validated
from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.encoders.convnext import ConvNeXt, ConvNextConfig
from ad_dinov3.encoders.efficientnet_lite import Group, StagedLite, read_groups
from ad_dinov3.encoders.filling import fill, fingerprint
from ad_dinov3.encoders.stages import StagedConvNeXt, StagedViT, check_images
from ad_dinov3.types import EncoderSpec, Features
from ad_dinov3.weights import BackboneWeights, load_backbone_weights, resolve_weights

if TYPE_CHECKING:
    from transformers import DINOv3ViTModel

# What decides a ViT's features beside the tensors and the stages; part of the fingerprint.
_VIT_SETTINGS = ("patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "rope_theta")
_MASK_TOKEN = "embeddings.mask_token"  # unused here; some layouts drop it
# A processor encodes so many pixels at once, four images of 256 px. Of more, the widest maps pass the 32 MiB up to
# which glibc keeps freed memory at hand: each would be asked of the system, and cleared by it, anew.
_AT_ONCE_PX = 4 * 256 * 256


StagedModule = StagedViT | StagedConvNeXt | StagedLite | ContextStages


class FrozenBackbone:
    """A frozen ViT, ConvNeXt or EfficientNet-Lite: (B, 3, H, W) uint8 RGB images to Features (an ImageEncoder).

    Attributes:
        module: the backbone as stages, on normalised float images; train or export this one.
        spec: what others must know of the encoder.
        mean, std: the statistics that the images are normalised with, per channel of [0, 1].
        autocast: the dtype that the backbone computes in on its device; None for the weights' own.
    """

    def __init__(
        self,
        module: StagedModule,
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

    def to(self, target: torch.device | str) -> FrozenBackbone:
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
        check_images(images, self.spec.size_multiple)
        device = self.device
        enabled = self.autocast is not None
        # no_grad, not inference_mode: adapters are trained on these tensors, and autograd refuses inference tensors.
        height, width = images.shape[2:]
        at_once = max(1, _AT_ONCE_PX // (height * width)) if device.type == "cpu" else max(1, len(images))
        with torch.no_grad(), torch.autocast(device.type, dtype=self.autocast, enabled=enabled):
            parts = [self.module(self.normalise(part.to(device))) for part in torch.split(images, at_once)]
        return Features(
            _joined([part.patch_tokens for part in parts]),
            _joined([part.cls_tokens for part in parts]),
            (int(height), int(width)),
        )


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The stages of all parts of a batch, as float32."""
    return tuple((torch.cat(stage) if len(stage) > 1 else stage[0]).float() for stage in zip(*parts, strict=True))


def load_backbone(
    name_or_path: str,
    *,
    stages: tuple[int, ...] | None = None,
    offline: bool = False,
    autocast: torch.dtype | None = None,
) -> FrozenBackbone:
    """A frozen encoder from a public name, ``lite0``, a folder or a file.

    Args:
        name_or_path: see ``weights.resolve_weights``.
        stages: 1-based counts of blocks (ViT) or stages (ConvNeXt); by default the ends of the four quarters.
        offline: never download.
        autocast: compute in this dtype, such as ``torch.bfloat16`` on a GPU.

    Raises:
        WeightsError: weights that are missing, gated, truncated or of another model.
        ConfigError: stages that the model does not have.
    """
    return build_backbone(load_backbone_weights(resolve_weights(name_or_path, offline=offline)), stages, autocast)


def build_backbone(
    weights: BackboneWeights,
    stages: tuple[int, ...] | None = None,
    autocast: torch.dtype | None = None,
    *,
    normed: bool = True,
) -> FrozenBackbone:
    """A frozen encoder from tensors that are already read; see ``load_backbone``.

    Args:
        weights: the tensors.
        stages, autocast: as there.
        normed: whether a ViT's tokens pass through its final LayerNorm.
    """
    settings: dict[str, object] = {"mean": weights.mean, "std": weights.std, "autocast": str(autocast)}
    module: StagedModule
    if weights.kind == "vit":
        vit = _built_vit(weights)
        module = StagedViT(vit, stages or quarters(vit.config.num_hidden_layers), normed)
        settings |= {key: getattr(vit.config, key) for key in _VIT_SETTINGS}
        if not normed:
            settings["normed"] = False
    else:
        if weights.kind == "efficientnet_lite":
            groups, usual = read_groups(weights.config, weights.path)
            module = _built_lite(groups, stages or usual, weights)
            settings["groups"] = groups
        else:
            config = validated(ConvNextConfig, dict(weights.config), f"{weights.path.parent}/config.json")
            every = tuple(range(1, len(config.depths) + 1))
            module = StagedConvNeXt(_built_convnext(config, weights), stages or every, weights.grid_stride)
            settings |= {"hidden_act": config.hidden_act, "layer_norm_eps": config.layer_norm_eps}
        if weights.context:
            module = ContextStages(module, weights.mean, weights.std)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks the argument
    settings |= {"kind": weights.kind, "stages": module.stages, "grid": module.patch_size}
    if weights.context:
        settings["context"] = True
    if weights.rope_periods is not None:
        settings["rope_periods"] = weights.rope_periods
    used = {name: tensor for name, tensor in weights.state.items() if name != _MASK_TOKEN}
    spec = EncoderSpec(
        name=weights.name,
        patch_size=module.patch_size,
        size_multiple=module.size_multiple,
        widths=module.widths,
        fingerprint=fingerprint(used, settings),
        licence=weights.licence,
        trained_on=weights.trained_on,
        training_images=weights.training_images,
    )
    return FrozenBackbone(module, spec, mean=weights.mean, std=weights.std, autocast=autocast)


def quarters(depth: int) -> tuple[int, ...]:
    """The ends of the four quarters of ``depth`` blocks, such as (6, 12, 18, 24); fewer for fewer than four blocks."""
    return tuple(sorted({max(1, round(depth * quarter / 4)) for quarter in (1, 2, 3, 4)}))


def middle(depth: int) -> tuple[int, ...]:
    """The blocks from 58 to 73 % of the depth: 14 to 18 of 24 and 23 to 29 of 40, as SubspaceAD takes them."""
    return tuple(range(max(1, round(0.58 * depth)), max(1, round(0.73 * depth)) + 1))


def _built_vit(weights: BackboneWeights) -> DINOv3ViTModel:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel  # takes longer than all else; a ConvNeXt does not need it

    config = DINOv3ViTConfig.from_dict(dict(weights.config))
    with torch.device("meta"):  # without drawing random weights first
        model = DINOv3ViTModel(config)
    wanted = model.state_dict()
    nested = any(key.startswith("model.") for key in wanted)  # newer versions of transformers: blocks below "model."
    state = {
        f"model.{key}" if nested and key.startswith("layer.") else key: tensor for key, tensor in weights.state.items()
    }
    state.setdefault(_MASK_TOKEN, torch.zeros(wanted[_MASK_TOKEN].shape))
    fill(model, state, weights.path)
    rope = type(model.rope_embeddings)(config)  # computed, not stored, and still on "meta"
    if weights.rope_periods is not None:
        rope.inv_freq = 1 / torch.tensor(weights.rope_periods)
    model.rope_embeddings = rope
    return model


def _built_convnext(config: ConvNextConfig, weights: BackboneWeights) -> ConvNeXt:
    with torch.device("meta"):
        model = ConvNeXt(config)
    fill(model, weights.state, weights.path)
    return model


def _built_lite(groups: Sequence[Group], stages: Sequence[int], weights: BackboneWeights) -> StagedLite:
    with torch.device("meta"):
        model = StagedLite(groups, stages, weights.grid_stride)
    fill(model, weights.state, weights.path)
    return model
