"""Ground truth of a sample at the size of evaluation, refused when it does not fit its image."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.decode import decode_image, decode_mask, image_size
from ad_dinov3.errors import DataError, ImageError
from ad_dinov3.types import Sample

MaskRule = Literal["nearest", "bilinear_half", "bilinear_any"]
_ABOVE = {"bilinear_half": 127, "bilinear_any": 0}  # of 255, after Pillow's antialiased filter


def load_mask(sample: Sample, size: tuple[int, int] | None = None, rule: MaskRule = "nearest") -> NDArray[np.bool_]:
    """Mask (h, w) bool of a sample; all False for a normal image.

    Args:
        sample: the image, its ground truth, and the value above which that is anomalous.
        size: (h, w) in px; None keeps the image's own size.
        rule: how it is resized; see `resize_mask`.

    Raises:
        DataError: the image is anomalous and has no mask, or the mask cannot be read or has another size than its
            image; names both files.
        ImageError: the image's size is asked for (normal image, ``size`` None) and cannot be read.
    """
    if not sample.has_pixel_labels:
        raise DataError(f"{sample.image_path}: anomalous, and there is no mask for it")
    if sample.mask_path is None:
        return np.zeros(size or image_size(sample.image_path), np.bool_)
    try:
        mask = decode_mask(sample.mask_path, sample.mask_above)
        expected = image_size(sample.image_path)
    except ImageError as error:
        raise DataError(f"{error} (image {sample.image_path}, mask {sample.mask_path})") from error
    if mask.shape != expected:
        raise DataError(
            f"the mask has {mask.shape[1]} x {mask.shape[0]} px and the image {expected[1]} x {expected[0]}: "
            f"{sample.mask_path} does not belong to {sample.image_path}"
        )
    return mask if size is None or size == mask.shape else resize_mask(mask, size, rule)


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int], rule: MaskRule = "nearest") -> NDArray[np.bool_]:
    """Mask (H, W) -> (h, w) bool of ``size`` (h, w) in px.

    ``nearest`` keeps of a thin defect its share of the pixels. The bilinear rules are those of AD-DINOv3's released
    code, on 8-bit levels with antialiasing: anomalous from half coverage on (a thin defect may vanish), or as soon as
    the filter meets the defect (it grows).
    """
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    filtered = levels.resize(
        (size[1], size[0]), Image.Resampling.NEAREST if rule == "nearest" else Image.Resampling.BILINEAR
    )
    return np.asarray(filtered) > _ABOVE.get(rule, 0)


def pair_problem(sample: Sample) -> str | None:
    """Decode a sample's image, and its mask if there is one, completely; what is wrong with them, or None."""
    try:
        decode_image(sample.image_path)
        if not sample.has_pixel_labels:
            return None
        mask = load_mask(sample)
    except (ImageError, DataError) as error:
        return str(error)
    if sample.is_anomalous and not mask.any():
        return f"{sample.mask_path}: the mask is empty, but {sample.image_path} is listed as anomalous"
    return None
