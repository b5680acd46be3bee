"""Files -> upright RGB pixels, or one ImageError with a reason that the file's owner understands.

JPEG, PNG, BMP, WebP and TIFF are recognised by their first bytes, never by their names. Colour profiles are not
applied; of several pages or frames the first counts.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from ad_dinov3.data.levels import Pixels, to_levels, to_rgb, upright
from ad_dinov3.data.tiff import is_tiff, tiff_header, tiff_pixels
from ad_dinov3.errors import ImageError

try:
    import simplejpeg as _simplejpeg
except ImportError:  # the extra "image" is not installed
    _simplejpeg = None

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 200_000_000
"""Largest image that is decoded, in px (0.6 GB as RGB); Pillow warns at 89 and refuses at 179 million."""

_EXIF_ORIENTATION = 0x0112
_SNIFF_BYTES = 16


@dataclass(frozen=True)
class _Stored:
    """Decoded values (H, W, C) as stored, the RGB(A) palette that they index, and the orientation 1..8 still due."""

    values: Pixels
    palette: NDArray[np.uint8] | None
    orientation: int


def decode_image(path: Path) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) uint8 of a file, upright by its EXIF orientation.

    Grey is repeated, palettes are looked up, transparency shows white, CMYK is converted without a profile, and deeper
    data are windowed by ``levels.to_levels``.

    Raises:
        ImageError: for whatever is wrong with the file.
    """
    with _refusals(path):
        return decode_bytes(_read(path), path)


def decode_bytes(data: bytes, name: Path) -> NDArray[np.uint8]:
    """As `decode_image`, of a file's content; ``name`` is what errors call it."""
    with _refusals(name):
        stored = _stored(name, data)
        values = stored.values if stored.palette is None else stored.palette[stored.values[:, :, 0]]
        return np.require(upright(to_rgb(_levels(values)), stored.orientation), np.uint8, ["C", "W"])


def decode_mask(path: Path, above: int | None = None) -> NDArray[np.bool_]:
    """Mask (H, W) bool of a file: True where the stored value is above ``above``.

    Args:
        path: an image file; of several colours the largest counts, transparency is ignored, and one-bit files hold 0
            and 255.
        above: None takes 127 for JPEG, whose compression leaves noise around 0 and 255, and 0 for all other files,
            whose values may be small class numbers.

    Raises:
        ImageError: for whatever is wrong with the file.
    """
    with _refusals(path):
        data = _read(path)
        if above is None:
            above = 127 if data.startswith(b"\xff\xd8") else 0
        stored = _stored(path, data)
        return np.ascontiguousarray(upright(_brightness(stored) > above, stored.orientation))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in px of the upright image, from the file's header alone.

    Raises:
        ImageError: for whatever is wrong with the header.
    """
    with _refusals(path), _opened(path) as file:
        head = file.read(_SNIFF_BYTES)
        file.seek(0)
        if not head:
            raise ImageError(path, "the file is empty (0 bytes)")
        if is_tiff(head):
            header = tiff_header(file)
            height, width, orientation = header.height, header.width, header.orientation
        else:
            image = _open_with_pillow(file, head)
            width, height = image.size
            orientation = _orientation(image, file)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn everything that a bad file can set off into one ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of odd metadata; the pixels decide
            yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(path, "there is not enough memory to decode it") from error
    except NotImplementedError as error:
        raise ImageError(path, f"is not supported ({error})") from error
    except Exception as error:
        # Decoders answer broken bytes with OSError, SyntaxError, ValueError, struct.error, IndexError, zlib.error...:
        # no list of theirs is complete, and one bad file must never end a run.
        words = " ".join(str(error).split())[:200]
        raise ImageError(path, f"is broken or incomplete ({type(error).__name__}: {words})") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.is_symlink() and not path.exists():
            raise ImageError(path, f"the link points to nothing ({path.readlink()})")
        if path.is_dir():
            raise ImageError(path, "is a folder, expected an image file")
        if not path.exists():
            raise ImageError(path, "no such file")
        if not path.is_file():
            raise ImageError(path, "is not a regular file")  # opening a pipe would wait for ever
        file = path.open("rb")
    except PermissionError as error:
        raise ImageError(path, "no permission to read it") from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    with file:
        yield file


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            path,
            f"{width} x {height} = {height * width:,} px is more than the limit of {MAX_PIXELS:,} px; "
            "a decompression bomb, or an image to cut into tiles first",
        )


def _open_with_pillow(file: BinaryIO, head: bytes) -> ImageFile:
    """Open by signature, without Pillow's search over all of its formats and its own, lower size limit."""
    if head.startswith(b"\xff\xd8"):
        return JpegImagePlugin.JpegImageFile(file)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(file)
    if head.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(file)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    if is_tiff(head):
        return TiffImagePlugin.TiffImageFile(file)
    raise NotImplementedError("its content is not JPEG, PNG, BMP, TIFF or WebP, whatever its name says")


def _pillow(data: bytes) -> ImageFile:
    return _open_with_pillow(io.BytesIO(data), data[:_SNIFF_BYTES])


def _orientation(image: ImageFile, file: BinaryIO) -> int:
    if isinstance(image, PngImagePlugin.PngImageFile) and not _png_may_have_exif(file):
        return 1
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return 1  # broken EXIF is no EXIF, as in every viewer; the pixels are whole
    return value if isinstance(value, int) else 1


def _png_may_have_exif(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk that can hold EXIF; asking Pillow would decode the whole image."""
    position = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
        file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    file.seek(position)
    return len(head) == 8


def _stored(path: Path, data: bytes) -> _Stored:
    """Decode a file's first page or frame, after its header has told that it is not too large."""
    if not data:
        raise ImageError(path, "the file is empty (0 bytes)")
    if is_tiff(data):
        header = tiff_header(io.BytesIO(data))
        _check_size(path, header.height, header.width)
        tiff = tiff_pixels(io.BytesIO(data))
        if tiff is not None:
            return _Stored(tiff.values, tiff.palette, header.orientation)
    file = io.BytesIO(data)
    image = _open_with_pillow(file, data[:_SNIFF_BYTES])
    _check_size(path, image.height, image.width)
    palette = None
    if image.mode == "P":
        image.load()
        image.apply_transparency()
        palette = np.zeros((256, 4), np.uint8)
        colours = np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        palette[: len(colours)] = colours
        values: Pixels = np.asarray(image)[:, :, np.newaxis]
    else:
        values = _pillow_values(image, data)
    return _Stored(values, palette, header.orientation if is_tiff(data) else _orientation(image, file))


def _levels(values: Pixels) -> NDArray[np.uint8]:
    """Grey levels of (H, W, C): the colours share one window, alpha (last of 2 or 4) spans its whole type."""
    if values.shape[2] in (2, 4) and values.dtype == np.uint16:
        alpha = (values[:, :, -1:].astype(np.uint16) >> 8).astype(np.uint8)
        return np.concatenate([to_levels(values[:, :, :-1]), alpha], axis=2)
    return to_levels(values)


def _pillow_values(image: ImageFile, data: bytes) -> Pixels:
    """Stored values (H, W, C) with C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile and image.tile[0].args in ("RGB;16B", "RGBA;16B"):
        return _sixteen_bit_colours(image, data)
    fast = _fast_jpeg(image, data)
    if fast is not None:
        return fast
    if "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    if image.mode in ("1", "L", "I;16", "I;16B", "I;16L", "I", "F"):
        return np.asarray(image)[:, :, np.newaxis]
    return np.asarray(image if image.mode in ("LA", "RGB", "RGBA") else image.convert("RGB"))


def _fast_jpeg(image: ImageFile, data: bytes) -> Pixels | None:
    """Values of a JPEG by simplejpeg, the same pixels in half of Pillow's time; None where Pillow must decide."""
    if _simplejpeg is None or not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("L", "RGB"):
        return None
    try:
        values: Pixels = _simplejpeg.decode_jpeg(data, "GRAY" if image.mode == "L" else "RGB")
    except ValueError:
        return None  # damaged: Pillow knows what can be made of it, and says what cannot
    return values


def _sixteen_bit_colours(image: PngImagePlugin.PngImageFile, data: bytes) -> NDArray[np.uint16]:
    """All sixteen bits of a colour PNG, of which Pillow keeps only the high bytes.

    Decoding the same data once more as if they were little-endian gives the low bytes.
    """
    twin = PngImagePlugin.PngImageFile(io.BytesIO(data))
    tile = twin.tile[0]
    twin.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
    high, low = np.asarray(image, np.uint16), np.asarray(twin, np.uint16)
    joined: NDArray[np.uint16] = np.bitwise_or(high << 8, low)
    return joined


def _brightness(stored: _Stored) -> Pixels:
    """Values (H, W) of a mask: indices of a palette whose first colour is black, else the brightest colour."""
    values = stored.values
    if stored.palette is not None and stored.palette[0, :3].any():
        values = stored.palette[values[:, :, 0]]
    if values.dtype == np.bool_:
        values = to_levels(values)
    brightest: Pixels = values[:, :, : 3 if values.shape[2] >= 3 else 1].max(axis=2)
    return brightest
