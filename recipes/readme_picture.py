"""Draws docs/figures/demo.jpg: three samples, and what the embedded model marks on them.

python recipes/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import ad_dinov3
from ad_dinov3.data.decode import decode_image

SAMPLES = Path(ad_dinov3.__file__).parent / "assets" / "samples"
CHOSEN = ("brushed_metal/test/scratch", "ceramic_tile/test/crack", "steel_strip/test/dent")
SIDE_PX, GAP_PX = 300, 8


def main() -> None:
    """Two rows: the images, and their overlays."""
    detector = ad_dinov3.load(offline=True)
    width = len(CHOSEN) * SIDE_PX + (len(CHOSEN) - 1) * GAP_PX
    picture = Image.new("RGB", (width, 2 * SIDE_PX + GAP_PX), "white")
    for column, name in enumerate(CHOSEN):
        image = decode_image(SAMPLES / name / "000.jpg")
        overlay = detector.predict(image).overlay(image)
        for row, tile in enumerate((Image.fromarray(image), overlay)):
            # The colour bar lies beside the picture; the README shows the picture alone.
            shown = tile.crop((0, 0, image.shape[1], image.shape[0])).resize((SIDE_PX, SIDE_PX))
            picture.paste(shown, (column * (SIDE_PX + GAP_PX), row * (SIDE_PX + GAP_PX)))
    out = Path(__file__).parents[1] / "docs" / "figures" / "demo.jpg"
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out, quality=90)


if __name__ == "__main__":
    main()
