"""From a found source to tensors in the Hugging Face layout, whatever layout they were stored in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ad_dinov3.weights.resolve import WeightSource
from ad_dinov3.weights.table import DINOV3_LICENCE, IMAGENET_MEAN, IMAGENET_STD, Kind

_DEFAULT_GRID_STRIDE = 16  # a ConvNeXt's common grid, the ViT's patch size


@dataclass(frozen=True)
class BackboneWeights:
    """A backbone's tensors in the Hugging Face layout, with what is needed to build it.

    Attributes:
        name: the model's name.
        kind: ``vit`` or ``convnext``.
        config: the fields of the Hugging Face configuration.
        state: tensors by their Hugging Face keys, blocks below ``layer.`` or ``stages.``.
        path: where they came from, for messages.
        licence: name of the licence.
        mean, std: image statistics.
        grid_stride: pixels per cell of a ConvNeXt's common grid.
    """

    name: str
    kind: Kind
    config: Mapping[str, object]
    state: Mapping[str, Tensor]
    path: Path
    licence: str = DINOV3_LICENCE
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    grid_stride: int = _DEFAULT_GRID_STRIDE


def load_backbone_weights(source: WeightSource) -> BackboneWeights:
    """Read a backbone."""
    config = json.loads((source.path / "config.json").read_text())
    state = load_file(source.path / "model.safetensors")
    kind: Kind = "vit" if config["model_type"] == "dinov3_vit" else "convnext"
    return BackboneWeights(
        name=source.name,
        kind=kind,
        config=config,
        state={key.removeprefix("model."): tensor for key, tensor in state.items()},
        path=source.path,
        grid_stride=config.pop("grid_stride", _DEFAULT_GRID_STRIDE),
        licence=config.pop("licence", DINOV3_LICENCE),
    )
