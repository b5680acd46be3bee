"""A data set held against its catalog row and against itself: counts, every pair opened, a picture to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ad_dinov3.data.catalog import CATALOG, ClassRow, LabelledData
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask, pair_problem
from ad_dinov3.errors import DataError, ImageError
from ad_dinov3.types import Sample

_THUMB_PX = 160
_LABEL_PX = 170
_GAP_PX = 6
_OUTLINE = (255, 40, 90)


@dataclass(frozen=True)
class ClassCount:
    """Images found in one class, beside what the catalog expects (None: the catalog does not say)."""

    class_name: str
    normal: int
    anomalous: int
    expected: ClassRow | None

    @property
    def fits(self) -> bool:
        """Whether the counts are those of the catalog, as far as it gives any."""
        row = self.expected
        return row is None or (row.normal in (None, self.normal) and row.anomalous in (None, self.anomalous))


def count_classes(data: LabelledData) -> list[ClassCount]:
    """Counts per class, the catalog's missing classes included, in the data set's order."""
    rows = CATALOG[data.name].classes if data.name in CATALOG else {}
    found = dict.fromkeys(sample.class_name for sample in data.listing.samples)
    counts = []
    for name in [*found, *(name for name in rows if name not in found)]:
        labels = [sample.is_anomalous for sample in data.listing.samples if sample.class_name == name]
        expected = rows.get(name, ClassRow("", 0, 0) if rows else None)
        counts.append(ClassCount(name, labels.count(False), labels.count(True), expected))
    return counts


def find_problems(samples: Sequence[Sample], on_progress: Callable[[], None] | None = None) -> list[str]:
    """One line for each sample whose image or mask cannot be decoded or does not fit, in the samples' order.

    Args:
        samples: what to open; decoding runs in a few threads.
        on_progress: called after each sample.
    """
    problems: list[str] = []
    with ThreadPoolExecutor() as pool:
        for problem in pool.map(pair_problem, samples):
            if problem is not None:
                problems.append(problem)
            if on_progress is not None:
                on_progress()
    return problems


def contact_sheet(data: LabelledData, columns: int = 8) -> NDArray[np.uint8]:
    """Picture (H, W, 3) with a row of examples per class, defects first and all kinds shown, masks outlined in red."""
    rows: dict[str, list[Sample]] = {}
    for sample in data.listing.samples:
        rows.setdefault(sample.class_name, []).append(sample)
    width = _LABEL_PX + columns * (_THUMB_PX + _GAP_PX)
    sheet = Image.new("RGB", (width, max(1, len(rows)) * (_THUMB_PX + 22 + _GAP_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (class_name, samples) in enumerate(rows.items()):
        top = index * (_THUMB_PX + 22 + _GAP_PX)
        label = f"{class_name}\n{data.words.get(class_name, '')}\n{len(samples)} images"
        draw.multiline_text((6, top + 6), label, fill="black", font=font)
        for column, sample in enumerate(_spread(samples, columns)):
            left = _LABEL_PX + column * (_THUMB_PX + _GAP_PX)
            sheet.paste(_thumbnail(sample), (left, top))
            draw.text((left, top + _THUMB_PX + 2), sample.defect[:22], fill=(110, 110, 110), font=font)
    return np.asarray(sheet)


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to ``count`` samples, one of each defect in turn and normal images last."""
    kinds: dict[tuple[bool, str], list[Sample]] = {}
    for sample in samples:
        kinds.setdefault((not sample.is_anomalous, sample.defect), []).append(sample)
    queues = [kinds[key][:: max(1, len(kinds[key]) // count)] for key in sorted(kinds)]
    picked = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)]
    return sorted(picked[:count], key=lambda sample: not sample.is_anomalous)


def _thumbnail(sample: Sample) -> Image.Image:
    canvas = Image.new("RGB", (_THUMB_PX, _THUMB_PX), (235, 235, 235))
    try:
        image = decode_image(sample.image_path)
        mask = load_mask(sample) if sample.has_pixel_labels else np.zeros(image.shape[:2], np.bool_)
    except (ImageError, DataError):
        ImageDraw.Draw(canvas).text((8, 8), "unreadable", fill="black")  # the list of problems says why
        return canvas
    scale = _THUMB_PX / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = np.array(Image.fromarray(image).resize((width, height)))
    shown = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)) > 0
    small[ndimage.binary_dilation(shown) & ~shown] = _OUTLINE
    canvas.paste(Image.fromarray(small), ((_THUMB_PX - width) // 2, (_THUMB_PX - height) // 2))
    return canvas
