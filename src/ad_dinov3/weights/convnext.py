"""DINOv3 ConvNeXt checkpoints: the names of Meta and timm into those of Hugging Face, and the shapes' configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (pattern of Meta or timm, Hugging Face); i stage, j layer
_NAMES = (
    (r"downsample_layers\.(\d+)\.(\d+)\.(weight|bias)", r"stages.\1.downsample_layers.\2.\3"),
    (r"stem\.(\d+)\.(weight|bias)", r"stages.0.downsample_layers.\1.\2"),
    (r"stages\.(\d+)\.downsample\.(\d+)\.(weight|bias)", r"stages.\1.downsample_layers.\2.\3"),
    (r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.(?:dwconv|conv_dw)\.(weight|bias)", r"stages.\1.layers.\2.depthwise_conv.\3"),
    (r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.norm\.(weight|bias)", r"stages.\1.layers.\2.layer_norm.\3"),
    (
        r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.(?:pwconv|mlp\.fc)([12])\.(weight|bias)",
        r"stages.\1.layers.\2.pointwise_conv\3.\4",
    ),
    (r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.gamma", r"stages.\1.layers.\2.gamma"),
    (r"(?:head\.)?norm\.(weight|bias)", r"layer_norm.\1"),
)
_UNUSED = re.compile(r"norms\.\d+\.(weight|bias)")  # Meta's second name for the final norm


def convnext_to_hugging_face(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Meta's or timm's tensors by their Hugging Face names, and the names that a DINOv3 ConvNeXt does not have."""
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        if _UNUSED.fullmatch(name):
            continue
        new = next((re.sub(old, to, name) for old, to in _NAMES if re.fullmatch(old, name)), None)
        if new is None:
            unknown.append(name)
        else:
            renamed[new] = tensor
    return renamed, unknown


def convnext_config(state: Mapping[str, Tensor]) -> dict[str, object]:
    """The Hugging Face configuration that tensors in the Hugging Face layout tell."""
    layers = {tuple(name.split(".")[1:4:2]) for name in state if ".layers." in name}  # (stage, layer)
    stages = sorted({0, *(int(stage) for stage, _ in layers)})
    return {
        "model_type": "dinov3_convnext",
        "num_channels": state["stages.0.downsample_layers.0.weight"].shape[1],
        "hidden_sizes": [state[f"stages.{stage}.layers.0.gamma"].shape[0] for stage in stages],
        "depths": [sum(int(of) == stage for of, _ in layers) for stage in stages],
    }
