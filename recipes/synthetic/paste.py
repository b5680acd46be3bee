"""A synthetic defect pasted onto a real image, with its exact mask: training material without labels."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from ad_dinov3.errors import ShapeError
from recipes.synthetic.defects import DEFECTS
from recipes.synthetic.surface import (
    Colours,
    Mask,
    Surface,
    is_coloured,
    random_light,
    shade,
    to_pixels,
    without_colour,
)

_DARK = 0.08  # grey level under which a region counts as empty background
_BLACK = 16  # grey level, of 255
_TRIES = 3
_LEAST_CHANGE = 5.0  # mean grey levels by which a defect must differ to be worth a label
_LEAST_SHARE = 0.00015  # share of the image's area
_IN_GROUPS = (
    "scratch",
    "stain",
    "lesion",
    "missing",
    "bright_spot",
    "dent",
    "colour_shift",
    "cutpaste",
    "fibre",
    "pit",
)


def _foreground(albedo: Colours) -> Mask:
    """Where the picture is not black: the anatomy of a scan, or everything."""
    bright = albedo[..., 1] > _DARK
    return bright if bright.mean() > 0.03 else np.ones(albedo.shape[:2], dtype=np.bool_)


def _visible_change(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: Mask) -> bool:
    """Whether a person could see the change: enough pixels, enough grey levels on average."""
    if mask.sum() < max(6.0, _LEAST_SHARE * mask.size):
        return False
    return float(np.abs(after[mask].astype(np.int16) - before[mask]).mean()) >= _LEAST_CHANGE


def _moved_structure(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: Mask) -> bool:
    """Whether a displaced pattern differs beyond its grain: the change survives a blur."""
    change = after.sum(axis=2, dtype=np.int16) - before.sum(axis=2, dtype=np.int16)
    blurred = ndimage.uniform_filter(change.astype(np.float32), max(3, min(mask.shape) // 50))
    return float(np.abs(blurred[mask]).mean()) >= 3 * _LEAST_CHANGE


def _attempt(
    image: NDArray[np.uint8], rng: Generator, donor: Colours | None, defect: str
) -> tuple[NDArray[np.uint8], Mask]:
    """The image with one named defect (often a second of its kind) and the mask."""
    albedo = image.astype(np.float32) * np.float32(1 / 255)
    coloured = is_coloured(albedo)
    light = random_light(rng, specular=float(rng.uniform(0, 0.25)) if rng.random() < 0.4 else 0.0)
    height = np.zeros(image.shape[:2], dtype=np.float32)
    surface = Surface(albedo, height, _foreground(albedo), donor=donor, light=light, clips=False)
    mask = DEFECTS[defect](surface, rng)
    if defect in _IN_GROUPS and rng.random() < 0.3:
        mask |= DEFECTS[defect](surface, rng)
    if height.any():
        # The picture holds its own highlights already: add only what the relief changes.
        resting = shade(np.zeros((3, 3, 3), np.float32), np.zeros((3, 3), np.float32), light)[1, 1]
        albedo = shade(albedo, height, light) - resting
    if not coloured and rng.random() < 0.9:
        # A tint in a grey picture would give the defect away for a reason that no factory has.
        albedo = without_colour(albedo)
    pasted = to_pixels(albedo)
    # On black ground many defects change nothing: such pixels carry no label.
    black = (image[..., 1] < _BLACK) & mask
    mask[black] = np.abs(pasted[black].astype(np.int16) - image[black]).max(axis=1) > 3
    return pasted, mask


def paste_defect(
    image: NDArray[np.uint8], rng: Generator, donor: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Mask]:
    """Paste a random defect onto a picture.

    Args:
        image: (H, W, 3) uint8 RGB, at least 32 px on a side; it is not changed.
        rng: where the randomness comes from; an equal generator gives an equal defect.
        donor: (H, W, 3) uint8, another picture from which foreign texture is taken.

    Returns:
        The new picture (H, W, 3) uint8 and the mask (H, W) bool of the pixels that the defect changed.

    Raises:
        ShapeError: the image is not (H, W, 3) uint8 or smaller than 32 px.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 32:
        raise ShapeError(
            f"expected an RGB image (H, W, 3) uint8 of at least 32 px a side, got {image.shape} {image.dtype}; "
            "decode it with decode_image"
        )
    texture = None if donor is None else donor.astype(np.float32) * np.float32(1 / 255)
    names = list(DEFECTS)
    for _ in range(_TRIES):
        defect = names[int(rng.integers(len(names)))]
        pasted, mask = _attempt(image, rng, texture, defect)
        if _visible_change(image, pasted, mask) and (defect != "bend" or _moved_structure(image, pasted, mask)):
            return pasted, mask
    return _attempt(image, rng, texture, "bright_spot")
