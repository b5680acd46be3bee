"""DINOv3 ViT checkpoints: the names of Meta and timm into those of Hugging Face, and the configuration from the shapes.

Meta keeps query, key and value in one matrix and masks the key's bias away; timm keeps them in one matrix with the
biases apart, or in three; Hugging Face keeps three and has no key bias. Rotary periods are computed by transformers and
timm, while Meta's code runs with those in its files, rounded to bfloat16; heads that were trained on it need them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOP = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "storage_tokens": "embeddings.register_tokens",  # Meta
    "reg_token": "embeddings.register_tokens",  # timm
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_IN_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.o_proj",
    "attn.q_proj": "attention.q_proj",
    "attn.k_proj": "attention.k_proj",
    "attn.v_proj": "attention.v_proj",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "mlp.w1": "mlp.gate_proj",  # Meta's SwiGLU
    "mlp.w2": "mlp.up_proj",
    "mlp.w3": "mlp.down_proj",
    "mlp.fc1_g": "mlp.gate_proj",  # timm's SwiGLU
    "mlp.fc1_x": "mlp.up_proj",
}
_IN_BLOCK_WHOLE = {
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
# Only used in Meta's training (local crops), or computed by everyone else.
_UNUSED = re.compile(r"rope_embed\.periods|rope\.periods|local_cls_norm\..+|blocks\.\d+\.attn\.qkv\.bias_mask")


def vit_to_hugging_face(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Meta's or timm's tensors by their Hugging Face names, and the names that a DINOv3 ViT does not have."""
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        block = _BLOCK.fullmatch(name)
        if _UNUSED.fullmatch(name):
            continue
        if name in _TOP:
            renamed[_TOP[name]] = tensor.unsqueeze(0) if name == "mask_token" and tensor.ndim == 2 else tensor
        elif block and block[2] in {"attn.qkv.weight", "attn.qkv.bias"}:
            masked = f"blocks.{block[1]}.attn.qkv.bias_mask" in state
            renamed |= _split(f"layer.{block[1]}.attention.", block[2].rpartition(".")[2], tensor, masked)
        elif block and block[2] in _IN_BLOCK_WHOLE:
            renamed[f"layer.{block[1]}.{_IN_BLOCK_WHOLE[block[2]]}"] = tensor
        elif block and block[2].rpartition(".")[0] in _IN_BLOCK:
            stem, _, kind = block[2].rpartition(".")
            renamed[f"layer.{block[1]}.{_IN_BLOCK[stem]}.{kind}"] = tensor
        else:
            unknown.append(name)
    return renamed, unknown


def vit_config(state: Mapping[str, Tensor], heads: int) -> dict[str, object]:
    """The Hugging Face configuration that tensors in the Hugging Face layout tell, but for the number of heads."""
    patches = state["embeddings.patch_embeddings.weight"]
    registers = state.get("embeddings.register_tokens")
    gated = "layer.0.mlp.gate_proj.weight" in state
    return {
        "model_type": "dinov3_vit",
        "hidden_size": patches.shape[0],
        "num_channels": patches.shape[1],
        "patch_size": patches.shape[2],
        "num_hidden_layers": len({name.split(".")[1] for name in state if name.startswith("layer.")}),
        "num_attention_heads": heads,
        "intermediate_size": state["layer.0.mlp.up_proj.weight"].shape[0],
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "query_bias": "layer.0.attention.q_proj.bias" in state,
        "key_bias": "layer.0.attention.k_proj.bias" in state,
        "value_bias": "layer.0.attention.v_proj.bias" in state,
        "proj_bias": "layer.0.attention.o_proj.bias" in state,
        "mlp_bias": "layer.0.mlp.up_proj.bias" in state,
    }


def heads_from_periods(state: Mapping[str, Tensor]) -> int | None:
    """The number of heads that Meta's rotary periods tell: each head has four times as many channels as periods."""
    periods = state.get("rope_embed.periods")
    width = state.get("cls_token")
    if periods is None or width is None:
        return None
    return int(width.shape[-1]) // (4 * int(periods.shape[0]))


def stored_periods(state: Mapping[str, Tensor], theta: float) -> tuple[float, ...] | None:
    """The rotary periods in Meta's file, where they are not those that ``theta`` gives in float32."""
    periods = state.get("rope_embed.periods")
    if periods is None:
        return None
    found = periods.float()
    computed = theta ** (torch.arange(len(found), dtype=torch.float32) / len(found))
    return None if torch.allclose(found, computed, rtol=1e-5, atol=0) else tuple(found.tolist())


def _split(prefix: str, kind: str, tensor: Tensor, masked: bool) -> dict[str, Tensor]:
    """Query, key and value out of one matrix or bias; a key bias that is masked away or zero is left out."""
    query, key, value = tensor.chunk(3)
    split = {f"{prefix}q_proj.{kind}": query, f"{prefix}v_proj.{kind}": value}
    if kind == "weight" or not (masked or bool(torch.nan_to_num(key).eq(0).all())):
        split[f"{prefix}k_proj.{kind}"] = key
    return split
