"""The files that a prediction becomes. Each appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.files import replacing

_JPEG_QUALITY = 90
_PNG_LEVEL = 1  # level 6 takes six times as long and saves a tenth


def write_jpeg(path: Path, picture: Image.Image) -> None:
    """Write a picture as JPEG, quality 90."""
    with replacing(path) as unfinished:
        picture.save(unfinished, "JPEG", quality=_JPEG_QUALITY)


def write_map_tiff(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Write an anomaly map (H, W) in [0, 1] as an uncompressed float32 TIFF: exact, and fast to read in any tool."""
    with replacing(path) as unfinished:
        tifffile.imwrite(unfinished, anomaly_map, photometric="minisblack", metadata=None)


def write_map_png16(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Write an anomaly map (H, W) in [0, 1] as a 16-bit grey PNG: value / 65535 is the map within 1e-5."""
    levels = np.rint(anomaly_map * np.float32(65535)).astype(np.uint16)
    with replacing(path) as unfinished:
        Image.fromarray(levels).save(unfinished, "PNG", compress_level=_PNG_LEVEL)


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (H, W) as an 8-bit grey PNG, 255 where anomalous, else 0."""
    with replacing(path) as unfinished:
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(unfinished, "PNG", compress_level=_PNG_LEVEL)
