"""From a found source to a backbone's tensors in the Hugging Face layout, whatever layout they were stored in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ad_dinov3.errors import WeightsError
from ad_dinov3.files import read_seen_images
from ad_dinov3.weights.convnext import convnext_config, convnext_to_hugging_face
from ad_dinov3.weights.folders import checkpoint_file, read_json
from ad_dinov3.weights.hashes import check_named_hash
from ad_dinov3.weights.resolve import WeightSource, ways
from ad_dinov3.weights.table import DINOV3_LICENCE, IMAGENET_MEAN, IMAGENET_STD, PUBLIC_BACKBONES, Kind, PublicBackbone
from ad_dinov3.weights.tensors import read_tensors
from ad_dinov3.weights.vit import heads_from_periods, stored_periods, vit_config, vit_to_hugging_face

Layout = Literal["Hugging Face", "timm", "Meta", "AD-DINOv3"]

_DEFAULT_GRID_STRIDE = 16  # a ConvNeXt's common grid: the public ViTs' patch size
_HEAD_WIDTH = 64  # channels per head of every public ViT but the 7B
_ROPE_THETA = 100.0  # of every DINOv3 ViT
# What tensors tell as well, so that no config.json makes a model of another size out of them.
_SIZES = ("hidden_size", "hidden_sizes", "depths", "num_hidden_layers", "intermediate_size", "num_register_tokens")
_MODEL_TYPES: dict[str, Kind] = {
    "dinov3_vit": "vit",
    "dinov3_convnext": "convnext",
    "efficientnet_lite": "efficientnet_lite",
}
# A tensor that tells kind and layout; what stands before its name is a wrapper's prefix ("state_dict.", "backbone.").
_ANCHORS: tuple[tuple[str, Kind, Layout], ...] = (
    ("embeddings.patch_embeddings.weight", "vit", "Hugging Face"),
    ("patch_embed.proj.weight", "vit", "Meta"),  # or timm, told apart below
    ("stages.0.downsample_layers.0.weight", "convnext", "Hugging Face"),
    ("downsample_layers.0.0.weight", "convnext", "Meta"),
    ("stem.0.weight", "convnext", "timm"),
    ("blocks.0.depthwise.weight", "efficientnet_lite", "AD-DINOv3"),  # as our recipe writes it
)


@dataclass(frozen=True)
class BackboneWeights:
    """A backbone's tensors in the Hugging Face layout, with what is needed to build it.

    Attributes:
        name: the model's name.
        kind: ``vit``, ``convnext`` or ``efficientnet_lite``.
        config: fields of the Hugging Face configuration; of an EfficientNet-Lite, of our own.
        state: tensors by their Hugging Face names, blocks below ``layer.`` or ``stages.``.
        path: the file they came from.
        layout: how they were stored there.
        licence: name of the licence.
        mean, std: image statistics, per channel of [0, 1].
        grid_stride: pixels per cell of a convolutional backbone's common grid.
        context: a small backbone's stages are joined by those of `encoders.context`.
        rope_periods: the periods of a ViT's rotary positions, where its file holds others than its configuration gives.
        trained_on: names of the data sets that it has seen, where its config.json says so.
        training_images: sha256 of the images that it has seen, where a training_images.txt lies beside it.
    """

    name: str
    kind: Kind
    config: Mapping[str, object]
    state: Mapping[str, Tensor]
    path: Path
    layout: Layout = "Hugging Face"
    licence: str = DINOV3_LICENCE
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    grid_stride: int = _DEFAULT_GRID_STRIDE
    context: bool = False
    rope_periods: tuple[float, ...] | None = None
    trained_on: tuple[str, ...] = ()
    training_images: frozenset[str] = frozenset()


def load_backbone_weights(source: WeightSource) -> BackboneWeights:
    """Read a DINOv3 backbone from Hugging Face's, timm's or Meta's files; the layout is told by the tensors' names.

    The configuration comes from a ``config.json`` of ``transformers`` beside the file, else from the tensors' shapes.

    Raises:
        WeightsError: a file that is missing, truncated, of another model, or whose sha256 is not what its name says.
    """
    folder, file = checkpoint_file(source)
    check_named_hash(file)
    raw = read_tensors(file)
    kind, layout, prefix = _detected(file, raw)
    raw = {name.removeprefix(prefix): tensor for name, tensor in raw.items() if name.startswith(prefix)}
    settings = read_json(folder / "config.json")
    if layout in ("Hugging Face", "AD-DINOv3"):
        state = {re.sub(r"^model\.(?=layer\.|stages\.)", "", name): tensor for name, tensor in raw.items()}
    else:
        state, unknown = (vit_to_hugging_face if kind == "vit" else convnext_to_hugging_face)(raw)
        if unknown:
            raise WeightsError(
                f"{file}: expected a DINOv3 {kind} in {layout}'s layout, found {len(unknown)} tensors that it does not "
                f"have, such as {', '.join(sorted(unknown)[:3])}; this is another model"
            )
    row = source.backbone
    try:
        inferred = _inferred(kind, state, lambda: _heads(file, settings, raw, state, row))
    except KeyError as missing:
        raise WeightsError(f"{file}: expected a DINOv3 {kind}, found no tensor {missing}; download it again") from None
    _check_row(file, row, kind, inferred)
    mean, std = _statistics(folder, settings, row)
    return BackboneWeights(
        name=source.name,
        kind=kind,
        config=_config(file, kind, settings, inferred),
        state=state,
        path=file,
        layout=layout,
        licence=str(settings.get("licence", DINOV3_LICENCE if row is None else source.licence)),
        mean=mean,
        std=std,
        grid_stride=_grid_stride(file, settings),
        context=settings.get("context") is True,
        rope_periods=stored_periods(raw, _ROPE_THETA) if layout == "Meta" and kind == "vit" else None,
        trained_on=_seen_sets(settings),
        training_images=read_seen_images(folder),
    )


def _detected(file: Path, raw: Mapping[str, Tensor]) -> tuple[Kind, Layout, str]:
    for anchor, kind, layout in _ANCHORS:
        name = next((name for name in raw if name == anchor or name.endswith(f".{anchor}")), None)
        if name is not None:
            is_timm = any(other.endswith((".gamma_1", "reg_token")) for other in raw)
            return kind, "timm" if layout == "Meta" and is_timm else layout, name.removesuffix(anchor)
    examples = ", ".join(sorted(raw)[:3]) or "no tensors"
    raise WeightsError(
        f"{file}: expected a DINOv3 backbone in the layout of Hugging Face, timm or Meta, found {examples}."
        f"{ways(PUBLIC_BACKBONES[3])}"
    )


def _inferred(kind: Kind, state: Mapping[str, Tensor], heads: Callable[[], int]) -> Mapping[str, object]:
    """The configuration that the shapes tell; nothing of an EfficientNet-Lite, whose strides no shape tells."""
    if kind == "efficientnet_lite":
        return {}
    return convnext_config(state) if kind == "convnext" else vit_config(state, heads())


def _config(
    file: Path, kind: Kind, settings: Mapping[str, object], inferred: Mapping[str, object]
) -> Mapping[str, object]:
    """The configuration that the shapes tell, changed by that beside the file where it is one of transformers'."""
    model_type = settings.get("model_type")
    if model_type is None:
        return inferred
    if _MODEL_TYPES.get(str(model_type)) != kind:
        raise WeightsError(f"{file}: config.json beside it is of a {model_type!r}, the tensors are of a DINOv3 {kind}")
    for key in _SIZES:
        if key in settings and key in inferred and settings[key] != inferred[key]:
            raise WeightsError(
                f"{file}: config.json beside it says {key} = {settings[key]}, the tensors {inferred[key]}; they are of "
                "two models"
            )
    return {**inferred, **settings}


def _heads(
    file: Path,
    settings: Mapping[str, object],
    raw: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    row: PublicBackbone | None,
) -> int:
    """A ViT's number of heads, which no shape tells: config.json, the name asked for, Meta's periods, or the width."""
    named = settings.get("num_attention_heads", row.heads if row else None)
    if isinstance(named, int):
        return named
    width = int(state["embeddings.patch_embeddings.weight"].shape[0])
    public = {candidate.widths[0]: candidate.heads for candidate in PUBLIC_BACKBONES if candidate.kind == "vit"}
    heads = heads_from_periods(raw) or public.get(width) or width // _HEAD_WIDTH
    if not heads:
        raise WeightsError(
            f"{file}: the number of attention heads of a model {width} wide cannot be told from its tensors; put the "
            f"model's config.json beside it"
        )
    return heads


def _check_row(file: Path, row: PublicBackbone | None, kind: Kind, config: Mapping[str, object]) -> None:
    """That the tensors are of the public model that was asked for, if one was: by kind, widths and depths."""
    if row is None:
        return
    if kind == "vit":
        keys = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "use_gated_mlp"]
        keys += ["num_register_tokens"]
        expected: list[object] = [row.widths[0], row.depths[0], row.heads, row.hidden, row.gated, row.registers]
    else:
        keys = ["hidden_sizes", "depths"]
        expected = [list(row.widths), list(row.depths)]
    found = [config.get(key) for key in keys]
    if kind != row.kind or found != expected:
        raise WeightsError(
            f"{file}: expected {row.name}, a {row.kind} with {', '.join(keys)} = {expected}, found a {kind} with "
            f"{found}; this is another model: rename it, or pass its path instead of the name"
        )


def _statistics(
    folder: Path, settings: Mapping[str, object], row: PublicBackbone | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std: of the folder's files (transformers' processor, timm's config), else of the public model."""
    processor = read_json(folder / "preprocessor_config.json")
    timm = settings.get("pretrained_cfg")
    candidates = [
        (settings.get("image_mean"), settings.get("image_std")),
        (processor.get("image_mean"), processor.get("image_std")),
        (timm.get("mean"), timm.get("std")) if isinstance(timm, dict) else (None, None),
    ]
    for mean, std in candidates:
        if isinstance(mean, list) and isinstance(std, list):
            return tuple(map(float, mean)), tuple(map(float, std))
    return (IMAGENET_MEAN, IMAGENET_STD) if row is None else (row.mean, row.std)


def _seen_sets(settings: Mapping[str, object]) -> tuple[str, ...]:
    sets = settings.get("trained_on")
    return tuple(map(str, sets)) if isinstance(sets, list) else ()


def _grid_stride(file: Path, settings: Mapping[str, object]) -> int:
    stride = settings.get("grid_stride", _DEFAULT_GRID_STRIDE)
    if not isinstance(stride, int):
        raise WeightsError(f"{file}: expected grid_stride in config.json to be a whole number, got {stride!r}")
    return stride
