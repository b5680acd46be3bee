"""Training samples: real images with masks, drawn defects on real or rendered images, and one augmentation for all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from recipes.synthetic import paste_defect, render
from recipes.synthetic.drawn import add_defect
from recipes.synthetic.plain import Floats, Rng, scene, texture, value_noise

Bytes = NDArray[np.uint8]
SETS = ("mtd", "bsdata", "neu_seg", "crackforest", "aws_cookies", "busi", "lgg_mri")
_LONGEST_PX = 512  # of an image kept in memory
_RENDERED_PX = 256  # of which crops are taken
_MOST_DEFECT = 0.4  # share of a crop; where most of it is defect, the rest is the odd one


@dataclass(frozen=True)
class Item:
    """One image of a data set; ``mask`` is None for a normal image."""

    image: Path
    mask: Path | None


def list_items(root: Path, name: str) -> list[Item]:
    """The images of a data set in the MVTec AD layout, normal ones without a mask, in a fixed order.

    Raises:
        FileNotFoundError: the folder holds no images.
    """
    items = []
    for path in sorted((root / name).glob("*/test/*/*")):
        kind, category = path.parent.name, path.parents[2]
        mask = None if kind == "good" else category / "ground_truth" / kind / f"{path.stem}_mask.png"
        items.append(Item(path, mask))
    if not items:
        raise FileNotFoundError(f"expected {root / name}/<category>/test/<defect>/*, found no file")
    return items


@cache
def load(item: Item) -> tuple[Bytes, Bytes]:
    """Image (h, w, 3) and mask (h, w) of 0..255, longest side at most 512; kept in memory after the first call."""
    image = Image.open(item.image).convert("RGB")
    mask = Image.new("L", image.size) if item.mask is None else Image.open(item.mask).convert("L")
    share = min(1.0, _LONGEST_PX / max(image.size))
    size = (round(image.width * share), round(image.height * share))
    if size != image.size:
        image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.BOX)
    return np.asarray(image), np.asarray(mask)


def crop(rng: Rng, image: Bytes, mask: Bytes, size: int) -> tuple[Floats, Floats]:
    """A box of random scale and aspect, mostly around a point of the defect, as (size, size) float image and mask."""
    height, width = mask.shape
    share = 1.0 if rng.random() < 0.3 else rng.uniform(0.4, 1.0)
    if rng.random() < 0.5:
        box_h, box_w = share * height, share * width
    else:
        box_h = box_w = share * (min(mask.shape) if rng.random() < 0.7 else max(mask.shape))
    aspect = np.exp(rng.uniform(-0.25, 0.25))
    box_h, box_w = max(16, int(min(box_h * aspect, height))), max(16, int(min(box_w / aspect, width)))
    ys, xs = np.nonzero(mask > 127)
    top, left = int(rng.integers(0, height - box_h + 1)), int(rng.integers(0, width - box_w + 1))
    if len(ys) and rng.random() < 0.85:
        k = rng.integers(len(ys))
        top = int(np.clip(ys[k] - rng.uniform(0.1, 0.9) * box_h, 0, height - box_h))
        left = int(np.clip(xs[k] - rng.uniform(0.1, 0.9) * box_w, 0, width - box_w))
    box = slice(top, top + box_h), slice(left, left + box_w)
    return _resized(image[box], size, Image.Resampling.BILINEAR) / 255, _resized_mask(mask[box], size)


def _resized(plane: Bytes, size: int, how: Image.Resampling) -> Floats:
    return np.asarray(Image.fromarray(plane).resize((size, size), how), np.float32)


def _resized_mask(mask: Bytes, size: int) -> Floats:
    how = Image.Resampling.BOX if len(mask) > size else Image.Resampling.BILINEAR
    return (_resized(mask, size, how) > 90).astype(np.float32)  # a third covered: thin cracks survive


def shrunk(rng: Rng, image: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Zoomed out to 50-100 %, mirrored at the border."""
    size = len(mask)
    inner = int(size * rng.uniform(0.5, 1.0))
    gap = size - inner
    top, left = int(rng.integers(0, gap + 1)), int(rng.integers(0, gap + 1))
    pad = (top, gap - top), (left, gap - left)
    small = _resized((image * 255).astype(np.uint8), inner, Image.Resampling.BILINEAR) / 255
    small_mask = _resized_mask((mask * 255).astype(np.uint8), inner)
    return np.pad(small, (*pad, (0, 0)), "reflect"), np.pad(small_mask, pad, "reflect")


def recoloured(rng: Rng, image: Floats) -> Floats:
    """Grey, channels permuted or mixed, inverted, gamma, contrast and brightness."""
    if rng.random() < 0.3:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    elif rng.random() < 0.5:
        mixed = (np.eye(3) + rng.normal(0, 0.15, (3, 3))).astype(np.float32)
        image = image[..., rng.permutation(3)] if rng.random() < 0.5 else np.clip(image @ mixed, 0, 1)
    if rng.random() < 0.2:
        image = 1 - image
    if rng.random() < 0.5:
        image = np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.6:
        level = np.clip(image.mean() + rng.normal(0, 0.12), 0.1, 0.9)
        image = (image - image.mean()) * np.exp(rng.uniform(-0.8, 0.4)) + level
    return image


def degraded(rng: Rng, image: Floats) -> Floats:
    """Uneven light, blur, noise and JPEG, each now and then; (S, S, 3) in [0, 1]."""
    size = len(image)
    if rng.random() < 0.2:
        image = image * (1 + rng.uniform(0.05, 0.3) * value_noise(rng, size, size * 0.8)[..., None])
    if rng.random() < 0.2:
        width = rng.uniform(0.4, 1.5)
        image = ndimage.gaussian_filter(image, (width, width, 0))
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0.005, 0.05), (size, size, 1 if rng.random() < 0.5 else 3))
    image = np.clip(image, 0, 1)
    if rng.random() < 0.15:
        buffer = io.BytesIO()
        pixels = Image.fromarray((image * 255).astype(np.uint8))
        pixels.save(buffer, "JPEG", quality=int(rng.integers(30, 90)))
        image = np.asarray(Image.open(buffer), np.float32) / 255
    return image.astype(np.float32)


def augmented(rng: Rng, image: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Scale, quarter turns, mirror images, colours and degradation."""
    if rng.random() < 0.15:
        image, mask = shrunk(rng, image, mask)
    turns = int(rng.integers(4))
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return degraded(rng, recoloured(rng, image)), mask


class Source:
    """An endless stream of training samples, sets balanced.

    Args:
        items: the images of each training set; empty for rendered images only.
        size: pixels per side.
        mix: shares of real defects, drawn defects on real images, and rendered images.
        materials: share of the rendered images that are materials, objects and tissues; the others are plain
            textures.
    """

    def __init__(
        self, items: Sequence[Sequence[Item]], size: int, mix: Sequence[float], materials: float = 0.0
    ) -> None:
        self.size, self.mix, self.materials = size, tuple(mix), materials
        self.bad = [[item for item in one if item.mask is not None] for one in items]
        self.good = [[item for item in one if item.mask is None] for one in items]

    def sample(self, rng: Rng) -> tuple[Floats, Floats]:
        """Image (S, S, 3) in [0, 1] and mask (S, S) in {0, 1}; a fifth to a quarter have no defect."""
        kind = int(rng.choice(3, p=self.mix))
        if kind == 2 and self.materials and rng.random() < self.materials:
            picture = render(int(rng.integers(1 << 31)), size=_RENDERED_PX)
            return augmented(rng, *crop(rng, picture.image, picture.mask * np.uint8(255), self.size))
        if kind == 0:
            for _ in range(5):
                image, mask = crop(rng, *self._real(rng, rng.random() < 0.8), self.size)
                if mask.mean() < _MOST_DEFECT:
                    break
        elif kind == 1:
            image, mask = crop(rng, *self._real(rng, False), self.size)
        else:
            image, mask = scene(rng, self.size), np.zeros((self.size, self.size), np.float32)
        if kind > 0 and rng.random() < 0.8:
            for _ in range(1 if rng.random() < 0.8 else 2):
                image, mask = (self._pasted if kind == 1 and rng.random() < 0.5 else self._drawn)(rng, image, mask)
        return augmented(rng, image, mask)

    def _pasted(self, rng: Rng, image: Floats, mask: Floats) -> tuple[Floats, Floats]:
        """One of the renderer's defects, which know relief and light."""
        pixels, donor = ((x * 255).astype(np.uint8) for x in (image, self._donor(rng)))
        spoilt, new = paste_defect(pixels, rng, donor=donor)
        return spoilt.astype(np.float32) / 255, np.maximum(mask, new.astype(np.float32))

    def _drawn(self, rng: Rng, image: Floats, mask: Floats) -> tuple[Floats, Floats]:
        for _ in range(4):
            image, new = add_defect(rng, image, lambda: self._donor(rng))
            if new.any():
                return image, np.maximum(mask, new)
        return image, mask

    def _real(self, rng: Rng, defect: bool) -> tuple[Bytes, Bytes]:
        k = int(rng.integers(len(self.bad)))
        pool = self.bad[k] if defect or not self.good[k] else self.good[k]
        return load(pool[int(rng.integers(len(pool)))])

    def _donor(self, rng: Rng) -> Floats:
        if rng.random() < 0.5 or not self.bad:
            return texture(rng, self.size)
        return crop(rng, *self._real(rng, False), self.size)[0]
