"""CLIP checkpoints: the names of OpenAI and OpenCLIP into those of Hugging Face, and the shapes' configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ad_dinov3.config.methods import Activation
from ad_dinov3.errors import WeightsError
from ad_dinov3.weights.folders import checkpoint_file, read_json
from ad_dinov3.weights.resolve import WeightSource
from ad_dinov3.weights.tensors import is_torchscript, read_tensors

Towers = Literal["text", "both"]

_HEAD_WIDTH = 64  # of every public CLIP text tower and ViT; a configuration beside the file overrides it
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_VISION = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # the library's spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_TRAINING = "state_dict."  # OpenCLIP's training checkpoints hold optimiser and epoch beside it
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_UNUSED = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # OpenAI's scalars, OpenCLIP's buffer
_NOT_IN_SHAPES = ("num_attention_heads", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")
_HF_PREFIXES = ("text_model.", "text_projection.", "vision_model.", "visual_projection.", "logit_scale")


@dataclass(frozen=True)
class ClipWeights:
    """A CLIP's tensors in the Hugging Face layout.

    Attributes:
        name: the model's name.
        text_config, vision_config: fields of the Hugging Face configurations; vision empty if not read.
        state: float tensors below ``text_model.``, ``text_projection.``, ``vision_model.``, ``visual_projection.``,
            and ``logit_scale``.
        path: where they came from.
        folder: where the tokenizer's files are looked for.
        activation: what the weights were trained with, or None where the files do not say.
        licence: name of the licence.
    """

    name: str
    text_config: Mapping[str, object]
    vision_config: Mapping[str, object]
    state: Mapping[str, Tensor]
    path: Path
    folder: Path
    activation: Activation | None
    licence: str


def load_clip_weights(source: WeightSource, towers: Towers = "text") -> ClipWeights:
    """Read a CLIP, by default only its text tower.

    Raises:
        WeightsError: a file that is missing, broken or not a CLIP.
    """
    folder, file = checkpoint_file(source)
    config = read_json(folder / "config.json")
    open_clip = read_json(folder / "open_clip_config.json")
    raw = _of_model(read_tensors(file, _wanted(towers)))
    state = _to_hugging_face(file, raw)
    if "text_model.embeddings.token_embedding.weight" not in state:
        raise WeightsError(f"{file}: expected a CLIP with a text tower, found tensors such as {_examples(raw)}")
    text = _text_config(state) | _section(config, "text_config") | _open_clip_heads(open_clip, "text_cfg")
    if towers == "both" and "vision_model.embeddings.patch_embedding.weight" not in state:
        raise WeightsError(f"{file}: expected a CLIP with a vision tower, found tensors such as {_examples(raw)}")
    vision = {} if towers == "text" else _vision_config(state) | _section(config, "vision_config")
    return ClipWeights(
        name=source.name,
        text_config=text,
        vision_config=vision,
        state=state,
        path=file,
        folder=folder,
        activation=_trained_activation(config, open_clip, is_torchscript(file)),
        licence=source.licence,
    )


def is_clip(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a CLIP's, in any of its layouts."""
    bare = {_bare(name).removeprefix("text.") for name in names}
    return not bare.isdisjoint({"token_embedding.weight", "text_model.embeddings.token_embedding.weight"})


def _wanted(towers: Towers) -> Callable[[str], bool]:
    """Which names to read: the text tower alone is a third of the file."""

    def keep(name: str) -> bool:
        vision = _bare(name).startswith(("visual", "vision_model."))
        return not name.endswith("position_ids") and (towers == "both" or not vision)

    return keep


def _bare(name: str) -> str:
    """A tensor's name without what a training checkpoint and training on several GPUs put before it."""
    return name.removeprefix(_TRAINING).removeprefix("module.")


def _of_model(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors by their bare names."""
    in_training = any(name.startswith(_TRAINING) for name in raw)
    return {_bare(name): tensor for name, tensor in raw.items() if name.startswith(_TRAINING) or not in_training}


def _to_hugging_face(file: Path, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith("text_model.") for name in raw):
        return {name: tensor for name, tensor in raw.items() if name.startswith(_HF_PREFIXES)}
    state: dict[str, Tensor] = {}
    for raw_name, tensor in raw.items():
        name = raw_name.removeprefix("text.")  # OpenCLIP's two-tower class says "text."
        block = _BLOCK.fullmatch(name)
        if block:
            tower = "vision_model" if block[1] else "text_model"
            state |= _block(f"{tower}.encoder.layers.{block[2]}.", block[3], tensor)
        elif name in _TRANSPOSED:
            state[_TRANSPOSED[name]] = tensor.T.contiguous()
        elif name == "logit_scale":
            state[name] = tensor
        elif name in _TEXT or name in _VISION:
            state[{**_TEXT, **_VISION}[name]] = tensor
        elif name not in _UNUSED:
            raise WeightsError(f"{file}: expected a CLIP with a transformer for text and a ViT, found {raw_name}")
    return state


def _block(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name in {"attn.in_proj_weight", "attn.in_proj_bias"}:
        kind = name.rpartition("_")[2]
        return {
            f"{prefix}self_attn.{part}_proj.{kind}": third for part, third in zip("qkv", tensor.chunk(3), strict=True)
        }
    stem, _, kind = name.rpartition(".")
    return {f"{prefix}{_IN_BLOCK.get(stem, stem)}.{kind}": tensor}


def _text_config(state: Mapping[str, Tensor]) -> dict[str, object]:
    vocabulary, width = state["text_model.embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _depth(state, "text_model"),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": state["text_model.embeddings.position_embedding.weight"].shape[0],
        "projection_dim": state["text_projection.weight"].shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _vision_config(state: Mapping[str, Tensor]) -> dict[str, object]:
    width, _, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    positions = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    return {
        "hidden_size": width,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _depth(state, "vision_model"),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "patch_size": patch,
        "image_size": patch * round((positions - 1) ** 0.5),
        "projection_dim": state["visual_projection.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    return len({name.split(".")[3] for name in state if name.startswith(f"{tower}.encoder.layers.")})


def _section(config: Mapping[str, object], key: str) -> dict[str, object]:
    """What the shapes cannot tell, from one tower's part of a CLIPConfig or from a CLIPTextConfig."""
    section = config.get(key, config if config.get("model_type") == "clip_text_model" else {})
    fields = section if isinstance(section, dict) else {}
    return {name: fields[name] for name in _NOT_IN_SHAPES if name in fields}


def _open_clip_heads(config: Mapping[str, object], key: str) -> dict[str, object]:
    model = config.get("model_cfg")
    section = model.get(key) if isinstance(model, dict) else None
    return {"num_attention_heads": section["heads"]} if isinstance(section, dict) and "heads" in section else {}


def _trained_activation(
    config: Mapping[str, object], open_clip: Mapping[str, object], is_openai: bool
) -> Activation | None:
    if is_openai:
        return "quick_gelu"
    model = open_clip.get("model_cfg")
    if isinstance(model, dict):
        return "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    if not config:
        return None
    text = config.get("text_config", config)
    named = text.get("hidden_act", "quick_gelu") if isinstance(text, dict) else None  # the library's default
    return "quick_gelu" if named == "quick_gelu" else "gelu"


def _examples(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)[:3]) or "none"
