"""Image -> input array of a model: antialiased resizing, channels first.

The Pillow filters are the reference that published results rest on; OpenCV's are not antialiased and differ by tens of
grey levels when an image shrinks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.levels import without_equal_channels
from ad_dinov3.errors import ConfigError, ShapeError

Interpolation = Literal["bilinear", "bicubic", "bilinear_fast"]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_image(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation = "bicubic"
) -> NDArray[np.uint8]:
    """Image (H, W, 3) uint8 -> (3, h, w) uint8 of ``size`` (h, w) in px, by an antialiased filter.

    Args:
        image: (H, W, 3) uint8.
        size: (h, w) in px.
        interpolation: ``bilinear`` and ``bicubic`` are Pillow's filters; ``bilinear_fast`` is torch's filter for bytes,
            which shrinks 12 megapixels in a sixth of the time and differs from ``bilinear`` by one grey level in two
            of a thousand values. The image's size and what else is loaded have no say.

    Raises:
        ShapeError: the image is not (H, W, 3) uint8 or a side is below one pixel.
        ConfigError: ``bilinear_fast`` is wanted and torch is not installed.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
    height, width = size
    if min(height, width, *image.shape[:2]) < 1:
        raise ShapeError(f"expected sides of at least 1 px, got {image.shape[:2]} -> {size}")
    if image.shape[:2] != size:
        if interpolation == "bilinear_fast":
            return _torch_resize(image, size)
        picture = Image.fromarray(without_equal_channels(image))
        image = np.atleast_3d(np.asarray(picture.resize((width, height), _FILTERS[interpolation])))
    return np.array(np.broadcast_to(image.transpose(2, 0, 1), (3, *size)), order="C")


def _torch_resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        import torch
    except ImportError:
        raise ConfigError(
            "the filter bilinear_fast needs torch, which is not installed; set input.interpolation to bilinear"
        ) from None
    batch = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)[None]  # channels last: the fast path
    small = torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True)
    resized: NDArray[np.uint8] = small[0].contiguous().numpy()
    return resized
