"""TIFF files -> values, by the number of samples rather than by the photometric tag alone.

Pillow refuses a TIFF whose tag contradicts its samples (CVC-ClinicDB's originals), clips 16-bit grey and cuts 16-bit
colour; tifffile reads the numbers. Files that need a codec which is not installed (LZW, JPEG) are left to Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.levels import Pixels, to_levels

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNCOMPRESSED_BY_TIFFFILE = {1, 8, 32773, 32946}  # none, deflate (two codes), PackBits: no further package needed


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF says of itself: height and width in px as stored, orientation 1..8."""

    height: int
    width: int
    orientation: int


@dataclass(frozen=True)
class TiffPixels:
    """The first page of a TIFF.

    Attributes:
        values: (H, W, 1 | 2 | 3 | 4) as stored; grey, grey + alpha, RGB or RGBA; bright is high.
        palette: (K, 3) uint8 colours when the values are indices.
    """

    values: Pixels
    palette: NDArray[np.uint8] | None


def is_tiff(head: bytes) -> bool:
    """Whether a file's first bytes are those of a TIFF or BigTIFF."""
    return head.startswith(_SIGNATURES)


def tiff_header(file: BinaryIO) -> TiffHeader:
    """Size and orientation of the first page."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        tag = page.tags.get(274)
        return TiffHeader(int(page.imagelength), int(page.imagewidth), int(tag.value) if tag is not None else 1)


def tiff_pixels(file: BinaryIO) -> TiffPixels | None:
    """Values of the first page; None when only Pillow can decode its compression or colour space."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        if page.samplesperpixel > 4 or page.imagedepth != 1:
            raise NotImplementedError(
                f"{page.samplesperpixel} channels x {page.imagedepth} planes, expected 1 to 4 x 1"
            )
        photometric = int(page.photometric)
        if photometric in (6, 8) and page.samplesperpixel == 3:
            return None  # YCbCr and CIELab: Pillow knows the conversion
        try:
            stored = page.asarray()
        except (ValueError, ImportError):
            if int(page.compression) in _UNCOMPRESSED_BY_TIFFFILE:
                raise
            return None
        values = _channels_last(stored, page)
        palette = None
        if page.samplesperpixel == 1 and photometric == 0:
            values = _inverted(values)
        elif page.samplesperpixel == 1 and photometric == 3 and page.colormap is not None:
            palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        elif page.samplesperpixel == 4 and photometric == 5:
            values = np.asarray(Image.fromarray(to_levels(values), "CMYK").convert("RGB"))
        elif page.samplesperpixel == 4 and 2 not in page.extrasamples:
            values = values[:, :, :3]  # the fourth sample is not plain alpha (near infrared, premultiplied cover)
        return TiffPixels(values, palette)


def _channels_last(stored: Pixels, page: tifffile.TiffPage) -> Pixels:
    if stored.ndim == 2:
        return stored[:, :, np.newaxis]
    if stored.ndim == 3 and page.axes.startswith("S"):
        stored = np.moveaxis(stored, 0, 2)
    if stored.ndim != 3:
        raise NotImplementedError(f"expected one plane of pixels, got shape {stored.shape} with axes {page.axes}")
    return stored


def _inverted(values: Pixels) -> Pixels:
    if values.dtype == np.bool_:
        return np.logical_not(values)
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        return np.bitwise_not(values.astype(np.uint16)).astype(values.dtype)
    inverted: Pixels = np.subtract(values.max(), values)
    return inverted
