"""Figure 3: images, ground truth and each method's map side by side; cases chosen by a rule, never by eye.

The rule: of the anomalous images, ranked by the pixel AP of the first method's map on that image alone, the best, the
worst and those evenly between. Every map is drawn on the same fixed scale, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ad_dinov3.bench.scoring import Item, read_scored
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.metrics.ranking import ranking_metrics
from ad_dinov3.report.overlay import colour_table

TILE_PX = 224
_GAP_PX, _TEXT_PX, _LEFT_PX = 6, 14, 150
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 26, 31), (110, 116, 126)
_TRUTH = (36, 200, 120)

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One row of the figure.

    Attributes:
        items: the same image in each method's store.
        value: pixel AP of the first method on this image.
        place: 1 for the best of ``count`` images.
        count: anomalous images that were ranked.
    """

    items: tuple[Item, ...]
    value: float
    place: int
    count: int


def choose_cases(items: Sequence[Sequence[Item]], count: int = 4) -> list[Case]:
    """The cases of the rule above.

    Args:
        items: for each method the scored images, all in one order.
        count: how many cases, at least 2.

    Raises:
        ConfigError: fewer than two cases, or no anomalous image with a mask.
        DataError: an image is not in the store.
    """
    if count < 2:
        raise ConfigError(f"expected at least 2 cases, the best and the worst, got {count}")
    rated = []
    for group in zip(*items, strict=True):
        if group[0].sample.mask_path is not None:
            mask = load_mask(group[0].sample)
            value = ranking_metrics(upsample(read_scored(group[0]).patch_map, mask.shape), mask).average_precision
            if value is not None:
                rated.append((value, group))
    if not rated:
        raise ConfigError("the figure needs anomalous images with masks, and there are none")
    rated.sort(key=lambda pair: -pair[0])
    places = sorted({round(place) for place in np.linspace(0, len(rated) - 1, count)})
    return [Case(tuple(rated[place][1]), rated[place][0], place + 1, len(rated)) for place in places]


def draw_gallery(cases: Sequence[Case], methods: Sequence[str]) -> Image.Image:
    """The figure: a row per case; columns are the image, the ground truth and each method's map.

    Args:
        cases: from `choose_cases`.
        methods: names of the columns, in the order of the cases' items.
    """
    rows = []
    for case in cases:
        sample = case.items[0].sample
        image, mask = decode_image(sample.image_path), load_mask(sample)
        maps = [heat(upsample(read_scored(item).patch_map, mask.shape)) for item in case.items]
        label = f"{sample.class_name}\n{sample.defect}\nAP {100 * case.value:.1f} %\nplace {case.place} of {case.count}"
        rows.append((label, [image, outlined(image, mask), *maps]))
    return sheet(("image", "ground truth", *methods), rows)


def sheet(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Pictures (H, W, 3) uint8 in a grid of square tiles, with heads above, labels on the left and the scale below."""
    font = ImageFont.load_default(_TEXT_PX)
    step = TILE_PX + _GAP_PX
    top = _TEXT_PX + 14
    canvas = Image.new("RGB", (_LEFT_PX + step * len(heads), top + step * len(rows) + 40), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, head in enumerate(heads):
        draw.text((_LEFT_PX + column * step + TILE_PX / 2, top / 2), head, _INK, font, anchor="mm")
    for row, (label, pictures) in enumerate(rows):
        y = top + row * step
        draw.multiline_text((8, y + TILE_PX / 2), label, _INK, font, anchor="lm", spacing=4)
        for column, picture in enumerate(pictures):
            tile = _fitted(picture)
            x = _LEFT_PX + column * step + (TILE_PX - tile.width) // 2
            canvas.paste(tile, (x, y + (TILE_PX - tile.height) // 2))
    _draw_scale(canvas, top + step * len(rows) + 10)
    return canvas


def heat(anomaly_map: NDArray[np.floating]) -> Picture:
    """A map (H, W) in [0, 1] in colours (H, W, 3) on the fixed scale."""
    levels = np.rint(np.clip(anomaly_map, 0.0, 1.0) * 255).astype(np.uint8)
    coloured: Picture = colour_table()[levels]
    return coloured


def outlined(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """The image with the ground truth tinted and outlined, the line thick enough to be seen at the tile's size."""
    width = max(1, round(max(mask.shape) / TILE_PX * 1.5))
    edge = ndimage.binary_dilation(mask, iterations=width) & ~mask
    picture = image.copy()
    picture[mask] = (0.7 * image[mask] + 0.3 * np.array(_TRUTH)).astype(np.uint8)
    picture[edge] = _TRUTH
    return picture


def _fitted(picture: Picture) -> Image.Image:
    height, width = picture.shape[:2]
    scale = TILE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST)


def _draw_scale(canvas: Image.Image, y: int) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_PX)
    ramp = Image.fromarray(np.repeat(colour_table()[None], 10, axis=0))
    canvas.paste(ramp, (_LEFT_PX + 24, y))
    draw.text((_LEFT_PX + 12, y + 5), "0", _FAINT, font, anchor="mm")
    draw.text((_LEFT_PX + 24 + 268, y + 5), "1", _FAINT, font, anchor="mm")
