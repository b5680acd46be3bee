"""Pairs of training images with masks: real ones, defects drawn on real ones, photographs, and rendered ones.

A pair is one scene without and with a drawn defect, augmented alike; of a real set every second pair is two crops, one
of an anomalous image and one of a normal one. All of them are pure functions of a pool's name and an index.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ad_dinov3.data.catalog import read_data
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask
from ad_dinov3.types import Sample
from recipes.synthetic import MATERIALS, paste_defect, render
from recipes.synthetic.drawn import add_defect
from recipes.synthetic.plain import Floats, Rng, scene, texture, value_noise

Bytes = NDArray[np.uint8]
Labelled = tuple[Floats, Floats]
"""Image (S, S, 3) in [0, 1] and mask (S, S) in {0, 1}."""
SETS = ("mtd", "bsdata", "neu_seg", "crackforest", "aws_cookies", "busi", "lgg_mri")
PHOTOS = "imagenet_sample"
SHIPPED = frozenset({f"anomaly-{i}.jpg" for i in (10, 20, 30)} | {f"normal-{i}.jpg" for i in range(1, 11)})
"""Of aws_cookies: what the package ships and training leaves out; the shipped head saw the first nine normal ones."""
SIZE = 256
_LONGEST_PX = 512  # of an image kept in memory
_MOST_DEFECT = 0.4  # share of a crop; where most of it is defect, the rest is the odd one
_TRIES = 8


@cache
def load(sample: Sample) -> tuple[Bytes, Bytes]:
    """Image (h, w, 3) and mask (h, w) of 0..255, longest side at most 512; kept in memory after the first call."""
    image = Image.fromarray(decode_image(sample.image_path))
    mask = Image.fromarray(load_mask(sample).astype(np.uint8) * np.uint8(255))
    share = min(1.0, _LONGEST_PX / max(image.size))
    size = (round(image.width * share), round(image.height * share))
    if size != image.size:
        image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.BOX)
    return np.asarray(image), np.asarray(mask)


@cache
def photographs(root: Path) -> tuple[Path, ...]:
    """Files of the everyday photographs; none where the set is not there."""
    return tuple(sorted((root / PHOTOS).glob("*/train/good/*.jpg")))


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


def spoilt(rng: Rng, image: Floats, root: Path, pasted: float) -> Labelled:
    """The image with a drawn defect, a quarter of the time with two or three.

    Args:
        rng: where the randomness comes from.
        image: (S, S, 3) in [0, 1].
        root: of the photographs, which foreign texture is taken from.
        pasted: share of defects that know relief and light; the others are shapes with fills.
    """
    mask = np.zeros(image.shape[:2], np.float32)
    for _ in range(1 if rng.random() < 0.75 else int(rng.integers(2, 4))):
        if rng.random() < pasted:
            pixels, donor = ((x * 255).astype(np.uint8) for x in (image, _donor(rng, root)))
            changed, new = paste_defect(pixels, rng, donor=donor)
            image, mask = changed.astype(np.float32) / 255, np.maximum(mask, new.astype(np.float32))
            continue
        for _ in range(4):
            image, drawn = add_defect(rng, image, lambda: _donor(rng, root))
            if drawn.any():
                mask = np.maximum(mask, drawn)
                break
    return image, mask


def _donor(rng: Rng, root: Path) -> Floats:
    files = photographs(root)
    if rng.random() < 0.3 or not files:
        return texture(rng, SIZE)
    return _whole(rng, decode_image(files[int(rng.integers(len(files)))]))


def _whole(rng: Rng, image: Bytes) -> Floats:
    return crop(rng, image, np.zeros(image.shape[:2], np.uint8), SIZE)[0]


def _alike(rng: Rng, *samples: Labelled) -> list[Labelled]:
    """Every sample under the same augmentation."""
    seed = int(rng.integers(1 << 31))
    return [augmented(np.random.default_rng(seed), image, mask) for image, mask in samples]


def _clean(image: Floats) -> Labelled:
    return image, np.zeros(image.shape[:2], np.float32)


def rendered_pair(root: Path, index: int) -> list[Labelled]:
    """A rendered material, object or tissue; all of them in turn."""
    rng = np.random.default_rng([1, index])
    material, size, seed = list(MATERIALS)[index % len(MATERIALS)], int(rng.choice([256, 320, 384])), 0
    for _ in range(_TRIES):
        seed = int(rng.integers(1 << 31))
        bad = render(seed, size, material)
        if bad.mask.any():
            break
    good = render(seed, size, material, "good")
    box = int(rng.integers(1 << 31))
    mask = bad.mask * np.uint8(255)
    (clean, _), defect = (crop(np.random.default_rng(box), image, mask, SIZE) for image in (good.image, bad.image))
    return _alike(rng, _clean(clean), defect)


def plain_pair(root: Path, index: int) -> list[Labelled]:
    """A plain rendered surface or scene and a drawn defect."""
    rng = np.random.default_rng([2, index])
    image = scene(rng, SIZE)
    return _alike(rng, _clean(image), spoilt(rng, image, root, 0.3))


def photo_pair(root: Path, index: int) -> list[Labelled]:
    """An everyday photograph and a drawn defect; all of them in turn."""
    rng = np.random.default_rng([3, index])
    files = photographs(root)
    image = _whole(rng, decode_image(files[index % len(files)]))
    return _alike(rng, _clean(image), spoilt(rng, image, root, 0.6))


@dataclass(frozen=True)
class RealPairs:
    """Pairs of one data set with masks.

    Attributes:
        root: folder of the data sets.
        name: of this one.
    """

    root: Path
    name: str

    def __call__(self, index: int) -> list[Labelled]:
        """Two crops of it, or one crop of a normal image without and with a drawn defect, by turns of two."""
        rng = np.random.default_rng([4, SETS.index(self.name), index])
        bad, good = grouped(self.root, self.name)
        usual = good or bad
        if index % 4 < 2:
            for _ in range(_TRIES):
                image, mask = crop(rng, *load(_one_of(rng, bad)), SIZE)
                if mask.mean() < _MOST_DEFECT:
                    break
            return [augmented(rng, *crop(rng, *load(_one_of(rng, usual)), SIZE)), augmented(rng, image, mask)]
        image, mask = crop(rng, *load(_one_of(rng, usual)), SIZE)
        changed, new = spoilt(rng, image, self.root, 0.6)
        return _alike(rng, (image, mask), (changed, np.maximum(mask, new)))


def training_samples(root: Path, name: str) -> list[Sample]:
    """The samples of a data set that training may see."""
    return [s for s in read_data(str(root / name)) if name != "aws_cookies" or s.image_path.name not in SHIPPED]


@cache
def grouped(root: Path, name: str) -> tuple[list[Sample], list[Sample]]:
    """The anomalous and the normal samples of a data set."""
    samples = training_samples(root, name)
    return [s for s in samples if s.is_anomalous], [s for s in samples if not s.is_anomalous]


def _one_of(rng: Rng, samples: Sequence[Sample]) -> Sample:
    return samples[int(rng.integers(len(samples)))]


def pairs_of(root: Path, pool: str) -> Callable[[int], list[Labelled]]:
    """What draws the pairs of a pool: ``rendered``, ``plain``, ``photo``, or a data set's name."""
    drawn = {"rendered": rendered_pair, "plain": plain_pair, "photo": photo_pair}.get(pool)
    return RealPairs(root, pool) if drawn is None else lambda index: drawn(root, index)
