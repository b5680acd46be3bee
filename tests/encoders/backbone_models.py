"""Tiny random DINOv3 networks of transformers, and their tensors written as Meta and timm would write them.

The writers go the other way than the package and share nothing with it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

WIDTH, DEPTH, HEADS, REGISTERS = 32, 4, 2, 3
STAGE_WIDTHS, STAGE_DEPTHS = [8, 12, 16, 24], [1, 2, 1, 1]


def tiny_vit(*, gated: bool = False, bias: bool = True) -> DINOv3ViTModel:
    """A random ViT whose every tensor matters: no zero biases, layer scales that differ."""
    config = DINOv3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_register_tokens=REGISTERS,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        query_bias=bias,
        value_bias=bias,
    )
    model = DINOv3ViTModel(config).eval()
    shake(model)
    return model


def tiny_convnext() -> DINOv3ConvNextModel:
    """A random ConvNeXt whose every tensor matters."""
    model = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=STAGE_WIDTHS, depths=STAGE_DEPTHS)).eval()
    shake(model)
    return model


def shake(model: nn.Module) -> None:
    """Random values everywhere, so that a tensor in the wrong place shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.2)


def saved(model: DINOv3ViTModel | DINOv3ConvNextModel, folder: Path) -> str:
    """The model as transformers saves it; the folder's path as a string."""
    model.save_pretrained(folder)
    return str(folder)


def vit_as_meta(model: DINOv3ViTModel) -> dict[str, Tensor]:
    """Meta's names: query, key and value in one matrix, a key bias that a mask removes, the rotary periods."""
    tensors = model.state_dict()
    written = {
        "cls_token": tensors["embeddings.cls_token"],
        "mask_token": tensors["embeddings.mask_token"][0],
        "storage_tokens": tensors["embeddings.register_tokens"],
        "patch_embed.proj.weight": tensors["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": tensors["embeddings.patch_embeddings.bias"],
        "norm.weight": tensors["norm.weight"],
        "norm.bias": tensors["norm.bias"],
        "local_cls_norm.weight": torch.ones(WIDTH),
        "rope_embed.periods": 1 / model.rope_embeddings.inv_freq,
    }
    for index in range(DEPTH):
        block, old = f"blocks.{index}.", f"model.layer.{index}."
        names = [f"{old}attention.{part}_proj" for part in "qkv"]
        written[f"{block}attn.qkv.weight"] = torch.cat([tensors[f"{name}.weight"] for name in names])
        if f"{names[0]}.bias" in tensors:
            key = torch.full((WIDTH,), torch.nan)  # whatever stands there is masked away
            biases = [tensors[f"{names[0]}.bias"], key, tensors[f"{names[2]}.bias"]]
            written[f"{block}attn.qkv.bias"] = torch.cat(biases)
            written[f"{block}attn.qkv.bias_mask"] = torch.cat(
                [torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)]
            )
        written |= _block_rest(tensors, old, block, ("w1", "w2", "w3"))
        for number in (1, 2):
            written[f"{block}ls{number}.gamma"] = tensors[f"{old}layer_scale{number}.lambda1"]
    return written


def vit_as_timm(model: DINOv3ViTModel, *, fused: bool) -> dict[str, Tensor]:
    """timm's names: one matrix with the biases apart, or three; no mask token."""
    tensors = model.state_dict()
    written = {
        "cls_token": tensors["embeddings.cls_token"],
        "reg_token": tensors["embeddings.register_tokens"],
        "patch_embed.proj.weight": tensors["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": tensors["embeddings.patch_embeddings.bias"],
        "norm.weight": tensors["norm.weight"],
        "norm.bias": tensors["norm.bias"],
    }
    for index in range(DEPTH):
        block, old = f"blocks.{index}.", f"model.layer.{index}."
        parts = {part: tensors[f"{old}attention.{part}_proj.weight"] for part in "qkv"}
        biases = {part: tensors.get(f"{old}attention.{part}_proj.bias") for part in "qv"}
        if fused:
            written[f"{block}attn.qkv.weight"] = torch.cat(list(parts.values()))
        else:
            written |= {f"{block}attn.{part}_proj.weight": tensor for part, tensor in parts.items()}
        for part, bias in biases.items():
            if bias is not None:
                written[f"{block}attn.{part}_bias" if fused else f"{block}attn.{part}_proj.bias"] = bias
        written |= _block_rest(tensors, old, block, ("fc1_g", "fc1_x", "fc2"))
        for number in (1, 2):
            written[f"{block}gamma_{number}"] = tensors[f"{old}layer_scale{number}.lambda1"]
    return written


def _block_rest(tensors: dict[str, Tensor], old: str, block: str, gated: tuple[str, str, str]) -> dict[str, Tensor]:
    """Norms, output projection and MLP of a block, with the names of a gated MLP given."""
    written = {}
    is_gated = f"{old}mlp.gate_proj.weight" in tensors
    mlp = dict(zip(("gate_proj", "up_proj", "down_proj"), gated, strict=True))
    if not is_gated:
        mlp = {"up_proj": "fc1", "down_proj": "fc2"}
    for kind in ("weight", "bias"):
        for norm in ("norm1", "norm2"):
            written[f"{block}{norm}.{kind}"] = tensors[f"{old}{norm}.{kind}"]
        written[f"{block}attn.proj.{kind}"] = tensors[f"{old}attention.o_proj.{kind}"]
        for theirs, name in mlp.items():
            written[f"{block}mlp.{name}.{kind}"] = tensors[f"{old}mlp.{theirs}.{kind}"]
    return written


def convnext_as_meta(model: DINOv3ConvNextModel) -> dict[str, Tensor]:
    """Meta's names; its final norm is there twice."""
    layer = {
        "depthwise_conv": "dwconv",
        "layer_norm": "norm",
        "pointwise_conv1": "pwconv1",
        "pointwise_conv2": "pwconv2",
    }
    written = {}
    for name, tensor in model.state_dict().items():
        parts = name.removeprefix("model.").split(".")
        if parts[0] == "layer_norm":
            written[f"norm.{parts[1]}"] = written[f"norms.3.{parts[1]}"] = tensor
        elif parts[2] == "downsample_layers":
            written[f"downsample_layers.{parts[1]}.{parts[3]}.{parts[4]}"] = tensor
        else:
            rest = [layer.get(part, part) for part in parts[4:]]
            written[".".join(["stages", parts[1], parts[3], *rest])] = tensor
    return written


def convnext_as_timm(model: DINOv3ConvNextModel) -> dict[str, Tensor]:
    """timm's names."""
    layer = {
        "depthwise_conv": "conv_dw",
        "layer_norm": "norm",
        "pointwise_conv1": "mlp.fc1",
        "pointwise_conv2": "mlp.fc2",
    }
    written = {}
    for name, tensor in model.state_dict().items():
        parts = name.removeprefix("model.").split(".")
        if parts[0] == "layer_norm":
            written[f"head.norm.{parts[1]}"] = tensor
        elif parts[2] == "downsample_layers":
            stem = "stem" if parts[1] == "0" else f"stages.{parts[1]}.downsample"
            written[f"{stem}.{parts[3]}.{parts[4]}"] = tensor
        else:
            rest = [layer.get(part, part) for part in parts[4:]]
            written[".".join(["stages", parts[1], "blocks", parts[3], *rest])] = tensor
    return written
