"""Makes a model of the package from a training run: `python package.py --run fold_a --data ROOT --model DIR ...`.

The backbone's folder gets config.json and model.safetensors (fp16); the model's folder gets what
`ad_dinov3.model.save_model` writes. With the package's own `encoders/nano` and `methods/embedded` this makes the
embedded model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from network import GRID_STRIDE
from pretrain import FOLDS
from safetensors.torch import load_file
from samples import list_items
from torch import Tensor

from ad_dinov3.config import InputConfig, MethodConfig, ModelConfig, PromptConfig
from ad_dinov3.encoders import dinov3
from ad_dinov3.methods.ad_dinov3 import DEFAULT_CLASS, AdDinoV3
from ad_dinov3.model import Model, save_model

_OWN_FOLDER = Path(dinov3.__file__).parent / "nano"
_NAMES = (
    (".directions", "rarities", ".projection.weight"),
    (".first.weight", "patch_adapters", ".first.weight"),
    (".second.weight", "patch_adapters", ".second.weight"),
)


def head_config(rare: int, width: int) -> MethodConfig:
    """The switches with which `methods.ad_dinov3` computes what `network.Head` computes."""
    return MethodConfig(
        width=width,
        adapter="bottleneck",
        rarity=rare,
        fusion="logits",
        gain=10,
        learned_gain=True,
        image_score="top_patches",
    )


def head_state(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's weights under the package's names."""
    state = {"prompts": ours["prompts"][None], "log_gain": ours["log_gain"], "bias": ours["bias"]}
    stages = range(len(ours["bias"]))
    for i in stages:
        for ending, group, name in _NAMES:
            state[f"{group}.{i}{name}"] = ours[f"patch_adapters.{i}{ending}"]
        # One layer here, two there: the second is the identity, after which LeakyReLU changes next to nothing.
        first = ours[f"cls_adapters.{i}.weight"]
        state[f"cls_adapters.{i}.first.weight"] = first
        state[f"cls_adapters.{i}.second.weight"] = torch.eye(len(first))
    return state


def place_backbone(run: Path, folder: Path) -> str:
    """Copy the backbone; returns the name by which a model finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((run / "backbone" / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "grid_stride": GRID_STRIDE, "licence": "Apache-2.0"}, indent=2) + "\n"
    )
    shutil.copyfile(run / "backbone" / "model.safetensors", folder / "model.safetensors")
    return "nano" if folder.resolve() == _OWN_FOLDER.resolve() else str(folder.resolve())


def image_hashes(root: Path, names: tuple[str, ...]) -> frozenset[str]:
    """sha256 of every training image's file."""
    items = [item for name in names for item in list_items(root, name)]
    return frozenset(hashlib.sha256(item.image.read_bytes()).hexdigest() for item in items)


def main() -> None:
    """Reads the command line and writes the two folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="--out of pretrain.py")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=int, default=256, help="px per side of the input")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--card", type=Path, help="Markdown that goes into the model card")
    args = parser.parse_args()
    recipe = json.loads((args.run / "recipe.json").read_text())
    state = head_state(load_file(args.run / "head.safetensors"))
    encoder_name = place_backbone(args.run, args.backbone)
    config = ModelConfig(
        preset="embedded",
        encoder=encoder_name,
        input=InputConfig(height=args.input, width=args.input),
        prompts=PromptConfig(source="learned"),
        method=head_config(*state["rarities.0.projection.weight"].shape[:1], state["prompts"].shape[-1]),
        threshold=args.threshold,
        trained_on=tuple(recipe["sets"]),
    )
    encoder = dinov3.load_dinov3(encoder_name, offline=True)
    head = AdDinoV3(config.method, encoder.spec.widths, config.method.width, (DEFAULT_CLASS,), learned_prompts=True)
    head.load_state_dict(state)
    model = Model(config, encoder, head.eval(), image_hashes(args.data, FOLDS[recipe["fold"]]))
    save_model(model, args.model, args.card.read_text() if args.card else "")


if __name__ == "__main__":
    main()
