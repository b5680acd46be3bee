"""TIFF files -> values, by the number of samples rather than by the photometric tag alone.

Pillow refuses a TIFF whose tag contradicts its samples (CVC-ClinicDB's originals), clips 16-bit grey and cuts 16-bit
colour; tifffile reads the numbers. Files that need a codec which is not installed (LZW, JPEG) are left to Pillow.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.levels import Pixels, to_levels

_has_imagecodecs = find_spec("imagecodecs") is not None
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RGB_BYTES = 3
_DEFLATE_RATIO = 1032  # the most that deflate packs
_HARMLESS_BYTES = 1 << 28
_UNCOMPRESSED_BY_TIFFFILE = {1, 8, 32773, 32946}  # none, deflate (two codes), PackBits: no further package needed


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF says of itself.

    Attributes:
        height: in px, as stored.
        width: in px, as stored.
        orientation: 1..8.
        bytes_per_px: of the stored values, their levels and RGB; of floats and wide integers a copy for percentiles.
    """

    height: int
    width: int
    orientation: int
    bytes_per_px: int


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
        orientation = int(tag.value) if tag is not None else 1
        return TiffHeader(int(page.imagelength), int(page.imagewidth), orientation, _bytes_per_px(page))


def _bytes_per_px(page: tifffile.TiffPage) -> int:
    samples = int(page.samplesperpixel) * int(page.imagedepth)
    depth = -(-int(np.max(page.bitspersample)) // 8)  # samples of several depths come as a tuple
    stored = depth if depth <= 2 else 2 * depth
    return samples * (stored + 2) + _RGB_BYTES


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
        _check_deflated(page, file)
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


def _check_deflated(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Refuse a strip that unpacks to more than its image; imagecodecs stops there, Python's zlib would go on."""
    if _has_imagecodecs or int(page.compression) not in (8, 32946):
        return
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count * _DEFLATE_RATIO > _HARMLESS_BYTES:
            file.seek(offset)
            unpacker = zlib.decompressobj()
            unpacker.decompress(file.read(count), page.nbytes + _HARMLESS_BYTES)
            if unpacker.unconsumed_tail:
                raise ValueError(
                    f"a strip unpacks to more than the image's {page.nbytes:,} bytes; a decompression bomb"
                )


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
