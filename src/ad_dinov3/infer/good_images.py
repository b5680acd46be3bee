"""Good images as they are given: each content once, and their files' hashes, so that no model is measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.pixels import ImageSource, as_rgb, check_several
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import file_hash


def distinct(images: Sequence[ImageSource]) -> Iterator[NDArray[np.uint8]]:
    """The images as RGB, one at a time; a copy of an earlier one is no further evidence and is omitted.

    Raises:
        ImageError: a file cannot be decoded.
        ShapeError: one path was given, not several images.
    """
    check_several(images)
    seen: set[bytes] = set()
    for image in images:
        pixels = as_rgb(image)
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            yield pixels


def file_hashes(images: Sequence[ImageSource]) -> frozenset[str]:
    """sha256 of those images that are files."""
    return frozenset(file_hash(Path(image)) for image in images if isinstance(image, str | Path))


def check_unseen(images: Sequence[ImageSource], seen: Collection[str]) -> None:
    """Refuse to calibrate a model by images that it knows: their scores say nothing of new ones.

    Raises:
        ConfigError: an image is among those seen; the message names it.
        ShapeError: one path was given, not several images.
    """
    check_several(images)
    for image in images:
        if isinstance(image, str | Path) and file_hash(Path(image)) in seen:
            raise ConfigError(
                f"{image}: the model has seen this image and would score it too well; calibrate by images that it "
                "was neither trained on nor given as normal (what it remembers has calibrated it already)"
            )
