"""Render the sample images that the package carries: ``python -m recipes.render_samples``.

The folder has the MVTec AD layout, so that everything that reads a data set reads it too. A test renders the same
seeds again and compares, so change the renderer and the samples together.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from recipes.synthetic import Rendered, render

SIZE_PX = 400
JPEG_QUALITY = 90
SAMPLES_DIR = Path(__file__).resolve().parents[1] / "src/ad_dinov3/assets/samples"


@dataclass(frozen=True)
class Recipe:
    """One sample: what to render, from which seed."""

    material: str
    defect: str
    seed: int

    def render(self) -> Rendered:
        """The picture and its mask."""
        return render(self.seed, SIZE_PX, self.material, self.defect)

    def image_path(self, root: Path) -> Path:
        """Where the picture goes under ``root``."""
        return root / self.material / "test" / self.defect / "000.jpg"

    def mask_path(self, root: Path) -> Path:
        """Where the mask goes under ``root``; normal pictures have none."""
        return root / self.material / "ground_truth" / self.defect / "000_mask.png"


RECIPES = (
    Recipe("machined_disc", "good", 100),
    Recipe("fruit", "good", 201),
    Recipe("weave", "good", 205),
    Recipe("brushed_metal", "scratch", 2),
    Recipe("gear", "missing", 208),
    Recipe("tablet", "crack", 202),
    Recipe("ceramic_tile", "crack", 405),
    Recipe("mesh", "bend", 306),
    Recipe("circuit_board", "scratch", 306),
    Recipe("ultrasound", "cyst", 103),
    # Two that take a second look.
    Recipe("steel_strip", "dent", 300),
    Recipe("leather", "pit", 206),
)


def jpeg(rendered: Rendered) -> bytes:
    """The picture as a JPEG file."""
    stream = BytesIO()
    Image.fromarray(rendered.image).save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def write_samples(root: Path) -> None:
    """Write every sample and its mask under ``root``."""
    for recipe in RECIPES:
        rendered = recipe.render()
        recipe.image_path(root).parent.mkdir(parents=True, exist_ok=True)
        recipe.image_path(root).write_bytes(jpeg(rendered))
        if rendered.mask.any():
            recipe.mask_path(root).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rendered.mask).save(recipe.mask_path(root), optimize=True)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES_DIR)
