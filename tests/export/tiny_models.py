"""Tiny random models of transformers behind this package's encoder and head."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import Model, new_model

SIZE = (32, 48)


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """The network with values that matter everywhere."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.2)
    return network


def vit_folder(folder: Path) -> str:
    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=3
    )
    shaken(DINOv3ViTModel(config)).save_pretrained(folder)
    return str(folder)


def convnext_folder(folder: Path) -> str:
    shaken(DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1] * 4))).save_pretrained(
        folder
    )
    return str(folder)


def context_folder(folder: Path) -> str:
    """A ConvNeXt on a grid of 16 px whose stages are joined by `encoders.context`."""
    file = Path(convnext_folder(folder)) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "context": True, "grid_stride": 16}))
    return str(folder)


def settings(encoder: str) -> dict[str, object]:
    return {
        "encoder": encoder,
        "input.height": SIZE[0],
        "input.width": SIZE[1],
        "method.width": 8,
        "method.rarity": 3,
        "method.surround": 3,
        "method.pooling": (),
        "smoothing_sigma_px": 4.0,
    }


def learned_model(encoder: str, **changes: object) -> Model:
    """AD-DINOv3 with learned prompts and rarity, as the embedded model has them."""
    config = PRESETS["embedded"].with_settings(
        {**settings(encoder), **{k.replace("__", "."): v for k, v in changes.items()}}
    )
    return new_model(config)


def prompted_model(encoder: str, class_names: tuple[str, ...] = ("nut", "tile", "object")) -> Model:
    """AD-DINOv3 with frozen prompts of several classes."""
    config = PRESETS["default"].with_settings({**settings(encoder), "method.rarity": 0, "method.gain": 10.0})
    backbone = load_backbone(encoder)
    torch.manual_seed(1)
    head = AdDinoV3(config.method, backbone.spec.widths, 16)
    head.set_prompts({name: torch.nn.functional.normalize(torch.randn(2, 16), dim=-1) for name in class_names})
    return Model(config.model_copy(update={"class_names": class_names}), backbone, head.eval())
