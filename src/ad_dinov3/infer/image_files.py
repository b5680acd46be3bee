"""The files that a prediction becomes: `write` to a path, whole or not at all, or `save` to an open file."""

from __future__ import annotations

import base64
import html
import io
from functools import lru_cache
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
    tifffile.imwrite(file, anomaly_map, photometric="minisblack", metadata=None)


def save_mask(file: Path | BinaryIO, mask: NDArray[np.bool_]) -> None:
    """Put a mask (H, W) into a file as 8-bit grey PNG, 255 where anomalous, else 0."""
    encoded = _encoded_mask(mask) if mask.any() else _empty_mask(mask.shape)
    if isinstance(file, Path):
        file.write_bytes(encoded)
    else:
        file.write(encoded)


@lru_cache(maxsize=8)
def _empty_mask(size: tuple[int, ...]) -> bytes:
    """Most images are normal, and the empty masks of one size are one file."""
    return _encoded_mask(np.zeros(size, bool))


def _encoded_mask(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


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
