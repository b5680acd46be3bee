"""An EfficientNet-Lite as it is published: batch norms apart, padding written out, under the published names.

It shares nothing with the package; its random tensors are what `recipes/embedded/convert_lite.py` takes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

# repeats, kernel, stride, expansion, width
GROUPS = ((1, 3, 1, 1, 8), (2, 3, 2, 2, 8), (2, 5, 2, 2, 12), (1, 3, 2, 2, 16), (2, 5, 1, 2, 20), (1, 5, 2, 2, 24))
STAGES = (3, 5, 8, 9)
WIDTHS, STRIDES = (8, 12, 20, 24), (4, 8, 16, 32)
MEAN, STD = 127 / 255, 128 / 255


def published(seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the published names."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{conv}.weight"] = torch.randn(shape) * (2 / fan_in) ** 0.5
        state[f"{norm}.weight"] = torch.rand(shape[0]) + 0.5
        state[f"{norm}.bias"] = torch.randn(shape[0]) * 0.3
        state[f"{norm}.running_mean"] = torch.randn(shape[0]) * 0.2
        state[f"{norm}.running_var"] = torch.rand(shape[0]) + 0.5

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    width, block = 32, 0
    for repeats, kernel, _, expansion, out in GROUPS:
        for _ in range(repeats):
            inner, name = width * expansion, f"_blocks.{block}"
            if expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", (inner, width, 1, 1))
            add(f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, kernel, kernel))
            add(f"{name}._project_conv", f"{name}._bn2", (out, inner, 1, 1))
            width, block = out, block + 1
    return state


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's SAME: as many outputs as ceil(size / stride), the odd pixel of padding at the end."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + weight.shape[2] - side, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def blocks_of(state: dict[str, Tensor], pixels: Tensor) -> list[Tensor]:
    """The output of every block for normalised pixels (B, 3, H, W)."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        x = same_conv(x, state[f"{conv}.weight"], stride, groups)
        statistics = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, *statistics, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)

    x = step(pixels, "_conv_stem", "_bn0", 2).clamp(0, 6)
    outputs, block = [], 0
    for repeats, _, stride, expansion, _ in GROUPS:
        for index in range(repeats):
            name, before = f"_blocks.{block}", x
            if expansion > 1:
                x = step(x, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
            own = stride if index == 0 else 1
            x = step(x, f"{name}._depthwise_conv", f"{name}._bn1", own, x.shape[1]).clamp(0, 6)
            x = step(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if x.shape == before.shape else x
            outputs.append(x)
            block += 1
    return outputs


def lite_folder(folder: Path, state: dict[str, Tensor], **changes: object) -> str:
    """A backbone's folder with tensors under our names."""
    config = {
        "model_type": "efficientnet_lite",
        "groups": GROUPS,
        "stages": STAGES,
        "grid_stride": 8,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "licence": "Apache-2.0",
        **changes,
    }
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
