"""Image -> input array of a model: antialiased resizing, channels first.

The Pillow filters are the reference that published results rest on; OpenCV's are not antialiased and differ by tens of
grey levels when an image shrinks.
"""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.errors import ShapeError

Interpolation = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LARGE_PX = 1_000_000


def resize_image(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """Image (H, W, 3) uint8 -> (3, h, w) uint8 of ``size`` (h, w) in px, by Pillow's antialiased filter.

    From a megapixel on torch's bilinear filter for bytes takes Pillow's place where torch is loaded anyway: it is
    several times as fast and within one grey level, in a thousandth of the values. Bicubic is always Pillow's: the
    systems that use it take a hundred times as long for the rest, and their published maps rest on it.

    Raises:
        ShapeError: the image is not (H, W, 3) uint8 or a side is below one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = size
    if min(height, width, *image.shape[:2]) < 1:
        raise ShapeError(f"expected sides of at least 1 px, got {image.shape[:2]} -> {size}")
    if image.shape[:2] != size:
        is_large = image.shape[0] * image.shape[1] >= _LARGE_PX
        if is_large and interpolation == "bilinear" and "torch" in sys.modules:
            return _torch_resize(image, size)
        source = np.ascontiguousarray(image[:, :, 0]) if _is_grey(image) else image
        image = np.atleast_3d(np.asarray(Image.fromarray(source).resize((width, height), _FILTERS[interpolation])))
    return np.array(np.broadcast_to(image.transpose(2, 0, 1), (3, *size)), order="C")


def _is_grey(image: NDArray[np.uint8]) -> bool:
    """Whether the three channels are equal, as in most industrial and medical images; one row tells of most others."""
    return all(np.array_equal(rows[:, :, 0], rows[:, :, channel]) for rows in (image[:1], image) for channel in (1, 2))


def _torch_resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    import torch

    batch = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)[None]  # channels last: the fast path
    small = torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True)
    resized: NDArray[np.uint8] = small[0].contiguous().numpy()
    return resized
