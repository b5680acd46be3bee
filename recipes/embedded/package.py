"""Makes a model of the package from a training run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file

from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.files import file_hash
from ad_dinov3.model import Model, save_model
from recipes.embedded.pool import CONFIG
from recipes.embedded.samples import PHOTOS, photographs, training_samples
from recipes.embedded.train import new_head

CARD = Path(__file__).with_name("card.md")
"""What the model card says below its generated part."""


def packaged(run: Path, root: Path) -> Model:
    """The run's head with the preset's settings, and the hashes of every image that it was trained on."""
    recipe = json.loads((run / "recipe.json").read_text())
    head = new_head(0)
    head.load_state_dict(load_file(run / "head.safetensors"))
    files = [sample.image_path for name in recipe["sets"] for sample in training_samples(root, name)]
    photos = photographs(root) if recipe["photographs"] else ()
    sets = (*recipe["sets"], PHOTOS) if photos else tuple(recipe["sets"])
    config = CONFIG.with_settings({"train.seed": recipe["seed"]}).model_copy(update={"trained_on": sets})
    seen = frozenset(file_hash(file) for file in (*files, *photos))
    return Model(config, load_backbone(CONFIG.encoder, offline=True), head.eval(), seen)


def main() -> None:
    """Reads the command line and writes the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="--out of recipes.embedded.train")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    save_model(packaged(arguments.run, arguments.data), arguments.model, CARD.read_text())


if __name__ == "__main__":
    main()
