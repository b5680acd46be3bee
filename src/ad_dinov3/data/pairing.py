"""Images and masks belong together by name; their order on disk says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.data.decode import IMAGE_SUFFIXES

MASK_ENDINGS = ("_mask", "_segmentation", "_gt")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Pairing:
    """What matched by name and what did not.

    Attributes:
        pairs: image -> mask, in the images' order.
        problems: one line for each image without exactly one mask; names the image and where its mask was sought.
        orphans: masks that no image claims.
    """

    pairs: dict[Path, Path]
    problems: tuple[str, ...]
    orphans: tuple[Path, ...]


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Sorting key under which ``img2`` comes before ``img10``; the case of letters does not matter."""
    parts = _DIGITS.split(text.casefold())
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def list_images(folder: Path) -> list[Path]:
    """The image files of one folder (not below it), hidden files left out, in natural order.

    Raises:
        OSError: the folder cannot be listed.
    """
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    return sorted(files, key=lambda file: natural_key(file.name))


def pair_by_name(images: Iterable[Path], masks: Iterable[Path], sought_in: Path) -> Pairing:
    """Pair images and masks of equal stems, whatever their suffixes; a mask's stem may end in ``MASK_ENDINGS``."""
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        for stem in {mask.stem, _without_ending(mask.stem)}:
            by_stem.setdefault(stem, []).append(mask)
    pairs: dict[Path, Path] = {}
    problems: list[str] = []
    owners: dict[Path, Path] = {}
    for image in images:
        found = by_stem.get(image.stem, [])
        if len(found) != 1:
            what = "no mask" if not found else f"{len(found)} masks ({', '.join(mask.name for mask in found)})"
            problems.append(f"{image}: {what} of its name in {sought_in}, expected one such as {image.stem}_mask.png")
        elif found[0] in owners:
            problems.append(f"{image}: its mask {found[0]} is also that of {owners[found[0]]}")
        else:
            owners[found[0]] = image
            pairs[image] = found[0]
    claimed = set(owners)
    orphans = tuple(dict.fromkeys(mask for group in by_stem.values() for mask in group if mask not in claimed))
    return Pairing(pairs, tuple(problems), orphans)


def _without_ending(stem: str) -> str:
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)]
    return stem
