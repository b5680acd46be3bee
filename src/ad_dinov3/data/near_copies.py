"""Is an image nearly one of the normal ones: saved again, resized, the next frame of a film? Then it is no test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.decode import decode_image

_SIDE = 16  # of the small grey pictures that are compared, in px
_SHARE = 0.25  # of how far normal images usually are from the most similar other one
_GREY_LEVELS = 1.0  # where there is one normal image only


class NearCopies:
    """Finds near copies of some normal images.

    Images are compared as grey pictures of 16 x 16 px. A near copy is four times as close to a normal image as normal
    images usually are to the most similar other one; where parts lie in a fixture and all look alike, little more than
    the same file is that close.

    Args:
        normals: files of normal images.

    Raises:
        ImageError: one cannot be decoded.
    """

    def __init__(self, normals: Sequence[Path]) -> None:
        self._normals = list(normals)
        self._small = np.stack([_small(decode_image(path)) for path in normals])
        self._limit = _GREY_LEVELS
        if len(normals) > 1:
            apart = np.sqrt(((self._small[:, None] - self._small[None]) ** 2).mean(axis=2))
            np.fill_diagonal(apart, np.inf)
            self._limit = max(_SHARE * float(np.median(apart.min(axis=1))), 1e-3)

    def original(self, image: NDArray[np.uint8]) -> Path | None:
        """The normal image that an image (H, W, 3) uint8 is a near copy of, if there is one."""
        apart = np.sqrt(((self._small - _small(image)) ** 2).mean(axis=1))
        nearest = int(apart.argmin())
        return self._normals[nearest] if apart[nearest] <= self._limit else None


def near_copy_words(copies: Sequence[tuple[str, Path]]) -> str:
    """What a person reads of images, one at least, and the normal ones that they are near copies of."""
    name, original = copies[0]
    count = "1 image is nearly a normal one" if len(copies) == 1 else f"{len(copies)} images are nearly normal ones"
    return f"{count} ({name} is like {original}): such images are scored too well, and no promise holds for them"


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(grey, np.float32).ravel()
