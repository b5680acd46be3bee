"""Draw docs/figures/demo.jpg and compared.jpg: photographs, and what the embedded model marks on them.

    python recipes/readme_picture.py

The maps are those of the model that has seen nine photographs of whole cookies, as `ad-dinov3 demo` shows them; the
photographs' licence is in assets/samples/cookie/CREDITS.md.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import ad_dinov3
from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
from ad_dinov3.data.pixels import as_rgb

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
SIDE_PX, GAP_PX = 300, 8


def draw(predictions: ad_dinov3.Predictions) -> Image.Image:
    """Two rows: the photographs, and their overlays without the strip below them."""
    count = len(predictions)
    picture = Image.new("RGB", (count * SIDE_PX + (count - 1) * GAP_PX, 2 * SIDE_PX + GAP_PX), "white")
    for column, prediction in enumerate(predictions):
        height, width = prediction.size
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        for row, tile in enumerate((Image.fromarray(as_rgb(prediction.source)), prediction.overlay())):
            shown = tile.crop((left, top, left + side, top + side)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            picture.paste(shown, (column * (SIDE_PX + GAP_PX), row * (SIDE_PX + GAP_PX)))
    return picture


def main() -> None:
    """All photographs, and one of them alone."""
    photographs = sorted((SAMPLES / "cookie" / "test").rglob("*.jpg"))
    detector = ad_dinov3.load(offline=True)
    detector.remember(sorted((GOOD_SAMPLES / "cookie").glob("*.jpg")))
    predictions = detector.predict_batch(photographs)
    draw(predictions).save(FIGURES / "demo.jpg", quality=88)
    draw(ad_dinov3.Predictions(predictions[:1])).save(FIGURES / "compared.jpg", quality=88)


if __name__ == "__main__":
    main()
