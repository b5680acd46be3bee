"""An image of any kind that Python programs hold -> upright RGB pixels, each kind by a stated rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ad_dinov3.data.decode import decode_bytes, decode_image
from ad_dinov3.data.header import values_mode
from ad_dinov3.data.levels import Pixels, to_levels, to_rgb
from ad_dinov3.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | Pixels | Tensor"


def check_several(images: object) -> None:
    """Refuse one path where several images are expected: it would be taken letter by letter.

    Raises:
        ShapeError: it is a path.
    """
    if isinstance(images, str | Path):
        raise ShapeError(f"expected several images, got one path; of a folder: sorted(Path({str(images)!r}).glob('*'))")


def as_rgb(image: ImageSource) -> NDArray[np.uint8]:
    """An image as (H, W, 3) uint8 RGB.

    - A path: the file, decoded by `decode.decode_image`; bytes: a file's content.
    - A PIL image: turned upright by its EXIF orientation; palettes and CMYK become RGB, other modes are read as an
      array of their values.
    - A NumPy array (H, W) or (H, W, C): grey, grey + alpha, RGB or RGBA for C = 1, 2, 3, 4.
    - A torch tensor (H, W) or (C, H, W), channels first as torch has them, on any device.

    Values of 8 bits are taken as they are; bool is 0 and 255; floats must lie in [0, 1]; integers of 16 bits are scaled
    by the smallest usual depth that holds them (`levels.to_levels`). Transparent pixels show a white ground.

    Raises:
        ImageError: a file cannot be decoded.
        ShapeError: an array or tensor has another shape or type, or floats outside [0, 1].
    """
    if isinstance(image, str | Path):
        return decode_image(Path(image))
    if isinstance(image, bytes):
        return decode_bytes(image, Path("image"))
    if isinstance(image, Image.Image):
        return _array_as_rgb(_pillow_values(image))
    if isinstance(image, np.ndarray):
        return _array_as_rgb(image)
    if hasattr(image, "detach"):  # a torch tensor, told without importing torch
        return _array_as_rgb(_tensor_values(image))
    raise ShapeError(f"expected a file, bytes, a PIL image, an array or a torch tensor, got {type(image).__name__}")


def _pillow_values(image: Image.Image) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    mode = values_mode(upright)
    return np.asarray(upright if mode == upright.mode else upright.convert(mode))


def _tensor_values(tensor: Tensor) -> Pixels:
    values: Pixels = tensor.detach().cpu().numpy()
    if values.ndim == 3 and values.shape[0] not in (1, 2, 3, 4):
        raise ShapeError(f"expected a tensor (C, H, W) with 1 to 4 channels or (H, W), got {values.shape}")
    return np.moveaxis(values, 0, -1) if values.ndim == 3 else values


def _array_as_rgb(values: Pixels) -> NDArray[np.uint8]:
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or values.size == 0:
        raise ShapeError(f"expected an array (H, W) or (H, W, C) with 1 to 4 channels, got {values.shape}")
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ShapeError(f"expected floats in [0, 1], got [{low:.4g}, {high:.4g}]; scale the image first")
        return to_rgb(np.rint(values * 255).astype(np.uint8))
    if values.dtype not in (np.bool_, np.uint8, np.uint16, np.int32):
        raise ShapeError(f"expected an image of bool, uint8, uint16 or float in [0, 1], got {values.dtype}")
    return np.ascontiguousarray(to_rgb(to_levels(values)))
