"""Image -> input array of a model: antialiased resizing, channels first.

The Pillow filters are the reference that published results rest on; OpenCV's are not antialiased and differ by tens of
grey levels when an image shrinks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.errors import ShapeError

Interpolation = Literal["bilinear", "bicubic"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """Image (H, W, 3) uint8 -> (3, h, w) uint8 of ``size`` (h, w) in px, by Pillow's antialiased filter.

    Raises:
        ShapeError: the image is not (H, W, 3) uint8 or a side is below one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = size
    if min(height, width, *image.shape[:2]) < 1:
        raise ShapeError(f"expected sides of at least 1 px, got {image.shape[:2]} -> {size}")
    if image.shape[:2] != size:
        image = np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[interpolation]))
    return np.array(image.transpose(2, 0, 1), order="C")
