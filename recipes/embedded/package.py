"""Makes a model of the package from a training run.

The backbone's folder gets config.json and model.safetensors (fp16); the model's folder gets what
`ad_dinov3.model.save_model` writes. With the package's own `assets/nano` and `assets/embedded` this makes the
embedded model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from ad_dinov3.config import InputConfig, ModelConfig, PromptConfig
from ad_dinov3.encoders import dinov3
from ad_dinov3.files import file_hash, write_seen_images, write_text
from ad_dinov3.methods.ad_dinov3 import DEFAULT_CLASS, AdDinoV3
from ad_dinov3.model import Model, save_model
from recipes.embedded.network import GRID_STRIDE, HEAD
from recipes.embedded.pretrain import FOLDS
from recipes.embedded.samples import list_items

_OWN_FOLDER = Path(dinov3.__file__).parent / "nano"


def place_backbone(run: Path, folder: Path, sets: tuple[str, ...], images: frozenset[str]) -> str:
    """Copy the backbone and note what it has seen; returns the name by which a model finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((run / "backbone" / "config.json").read_text())
    own = {"grid_stride": GRID_STRIDE, "context": True, "licence": "Apache-2.0", "trained_on": sets}
    write_text(folder / "config.json", json.dumps({**config, **own}, indent=2))
    write_seen_images(folder, images)
    shutil.copyfile(run / "backbone" / "model.safetensors", folder / "model.safetensors")
    return "nano" if folder.resolve() == _OWN_FOLDER.resolve() else str(folder.resolve())


def image_hashes(root: Path, names: tuple[str, ...]) -> frozenset[str]:
    """sha256 of every training image's file."""
    items = [item for name in names for item in list_items(root, name)]
    return frozenset(file_hash(item.image) for item in items)


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
    sets = tuple(recipe["sets"])
    encoder_name = place_backbone(args.run, args.backbone, sets, image_hashes(args.data, FOLDS[recipe["fold"]]))
    config = ModelConfig(
        preset="embedded",
        encoder=encoder_name,
        input=InputConfig(height=args.input, width=args.input),
        prompts=PromptConfig(source="learned"),
        method=HEAD,
        threshold=args.threshold,
        trained_on=sets,
    )
    encoder = dinov3.load_dinov3(encoder_name, offline=True)
    head = AdDinoV3(config.method, encoder.spec.widths, config.method.width, (DEFAULT_CLASS,), learned_prompts=True)
    head.load_state_dict(load_file(args.run / "head.safetensors"))
    save_model(Model(config, encoder, head.eval()), args.model, args.card.read_text() if args.card else "")


if __name__ == "__main__":
    main()
