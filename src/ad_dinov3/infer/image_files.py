"""The files that a prediction becomes: `write` to a path, whole or not at all, or `save` to an open file."""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.errors import ImageError
from ad_dinov3.files import replacing

_JPEG_QUALITY = 90
_FIGURE_PX = 420
_PNG_LEVEL = 1  # level 6 takes six times as long and saves a tenth
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_STRIP_ROWS, _TIFF_STRIP_BYTES = 256, 257, 278, 279  # tags


def save_jpeg(file: Path | BinaryIO, picture: Image.Image) -> None:
    """Put a picture into a file as JPEG, quality 90."""
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)


def figure_html(picture: Image.Image, caption: str) -> str:
    """A picture, its longer side shrunk to 420 px, and words below it, as HTML that needs no other file."""
    small = picture.copy()
    small.thumbnail((_FIGURE_PX, _FIGURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    words, data = html.escape(caption), base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="display:inline-block;margin:0;width:{small.width}px">'
        f'<img alt="{words}" src="data:image/jpeg;base64,{data}"><figcaption>{words}</figcaption></figure>'
    )


def save_map_tiff(file: Path | BinaryIO, anomaly_map: NDArray[np.float32]) -> None:
    """Put an anomaly map (H, W) in [0, 1] into a file as uncompressed float32 TIFF: exact, fast to read in any tool."""
    values = np.ascontiguousarray(anomaly_map, "<f4")
    _save(file, _tiff_header(anomaly_map.shape), values.data)


def _tiff_header(size: tuple[int, ...]) -> bytes:
    """What stands before the values of a map (H, W): tifffile's own header with another size in it.

    tifffile takes as long for the header of a small map as is needed to write it, and the header is always the same.
    """
    height, width = size
    sizes = {
        _TIFF_WIDTH: width,
        _TIFF_HEIGHT: height,
        _TIFF_STRIP_ROWS: height,
        _TIFF_STRIP_BYTES: 4 * height * width,
    }
    header = bytearray(_tiff_header_of_one_px())
    (entries,) = struct.unpack_from("<I", header, 4)
    (count,) = struct.unpack_from("<H", header, entries)
    for entry in range(entries + 2, entries + 2 + 12 * count, 12):  # tag, type, count, value: 12 bytes
        (tag,) = struct.unpack_from("<H", header, entry)
        if tag in sizes:
            struct.pack_into("<I", header, entry + 8, sizes[tag])
    return bytes(header)


@cache
def _tiff_header_of_one_px() -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, np.zeros((1, 1), "<f4"), byteorder="<", photometric="minisblack", metadata=None)
    return buffer.getvalue()[:-4]


def save_mask(file: Path | BinaryIO, mask: NDArray[np.bool_]) -> None:
    """Put a mask (H, W) into a file as 8-bit grey PNG, 255 where anomalous, else 0."""
    _save(file, _encoded_mask(mask) if mask.any() else _empty_mask(mask.shape))


def _save(file: Path | BinaryIO, *parts: bytes | memoryview) -> None:
    if isinstance(file, Path):
        with file.open("wb") as opened:
            opened.writelines(parts)
    else:
        file.writelines(parts)


@lru_cache(maxsize=8)
def _empty_mask(size: tuple[int, ...]) -> bytes:
    """Most images are normal, and the empty masks of one size are one file."""
    return _encoded_mask(np.zeros(size, bool))


def _encoded_mask(mask: NDArray[np.bool_]) -> bytes:
    return grey_png(mask.view(np.uint8) * np.uint8(255), zlib.Z_RLE)


def grey_png(levels: NDArray[np.uint8], strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Grey levels (H, W) as a PNG file, without the filters that Pillow tries on every row.

    Args:
        levels: (H, W).
        strategy: of zlib; ``Z_RLE`` is best for runs of equal levels.
    """
    height, width = levels.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = levels
    packer = zlib.compressobj(_PNG_LEVEL, strategy=strategy)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    packed = packer.compress(rows.data) + packer.flush()
    chunks = (_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", packed), _png_chunk(b"IEND", b""))
    return b"".join((b"\x89PNG\r\n\x1a\n", *chunks))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_jpeg(path: Path, picture: Image.Image) -> None:
    """Write a picture as `save_jpeg` does."""
    with replacing(path) as unfinished:
        save_jpeg(unfinished, picture)


def write_map_tiff(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Write an anomaly map as `save_map_tiff` does."""
    with replacing(path) as unfinished:
        save_map_tiff(unfinished, anomaly_map)


def write_map_png16(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Write an anomaly map (H, W) in [0, 1] as a 16-bit grey PNG: value / 65535 is the map within 1e-5."""
    levels = np.rint(anomaly_map * np.float32(65535)).astype(np.uint16)
    with replacing(path) as unfinished:
        Image.fromarray(levels).save(unfinished, "PNG", compress_level=_PNG_LEVEL)


def read_map(path: Path) -> NDArray[np.float32]:
    """An anomaly map (H, W) in [0, 1] as `write_map_tiff` or `write_map_png16` wrote it.

    Raises:
        ImageError: the file is missing or holds no such map.
    """
    try:
        if path.suffix == ".tiff":
            anomaly_map: NDArray[np.float32] = tifffile.imread(path).astype(np.float32, copy=False)
        else:
            with Image.open(path) as picture:
                anomaly_map = np.asarray(picture).astype(np.float32) / np.float32(65535)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise ImageError(path, f"cannot be read as an anomaly map ({error}); run again with --overwrite") from None
    if anomaly_map.ndim != 2:
        raise ImageError(path, f"expected an anomaly map (H, W), found {anomaly_map.shape}")
    return anomaly_map


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask as `save_mask` does."""
    with replacing(path) as unfinished:
        save_mask(unfinished, mask)
