"""Files -> upright RGB pixels, or one ImageError with a reason that the file's owner understands.

JPEG, PNG, BMP, WebP and TIFF are recognised by their first bytes, never by their names. Colour profiles are not
applied; of several pages or frames the first counts.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL.Image import Image
from PIL.ImageFile import ImageFile

from ad_dinov3.data.header import (
    ImageHeader,
    OpenImage,
    has_sixteen_bit_colours,
    is_averaged,
    open_image,
    read_header,
    values_mode,
)
from ad_dinov3.data.levels import Pixels, has_finite, looked_up, to_levels, to_rgb, upright
from ad_dinov3.data.tiff import tiff_pixels
from ad_dinov3.errors import ImageError

try:
    import simplejpeg as _simplejpeg
except ImportError:  # the extra "image" is not installed
    _simplejpeg = None

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 200_000_000
"""Largest image that is decoded, in px (0.6 GB as RGB); Pillow warns at 89 and refuses at 179 million."""
MAX_MEMORY = 1_300_000_000
"""What decoding one image may take, in bytes: its file, the decoder's copies, the RGB image."""

_MAX_SCANS = 100  # a progressive JPEG has about ten; each takes as long as the whole image
_LARGE_PX, _BAND_PX = 1 << 22, 1 << 20  # large images leave Pillow in bands: two more copies would be made on the way


@dataclass(frozen=True)
class _Stored:
    """Decoded values (H, W, C) as stored, the RGB(A) palette that they index, and the orientation 1..8 still due."""

    values: Pixels
    palette: NDArray[np.uint8] | None
    orientation: int


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image that may be smaller than its file says.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        reduction: 1, 2, 4 or 8, by which the stored sides were divided, rounded up.
    """

    pixels: NDArray[np.uint8]
    reduction: int


def decode_image(path: Path, max_memory: int = MAX_MEMORY) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) uint8 of a file, upright by its EXIF orientation.

    Grey is repeated, palettes are looked up, transparency shows white, CMYK is converted without a profile, and deeper
    data are windowed by ``levels.to_levels``.

    Args:
        path: an image file.
        max_memory: what decoding may take, in bytes; the header tells, so that nothing more is read of what is refused.

    Raises:
        ImageError: for whatever is wrong with the file.
    """
    with _refusals(path), _opened(path) as file:
        return _decoded(path, file, _checked(path, file, max_memory))


def decode_bytes(data: bytes, name: Path, max_memory: int = MAX_MEMORY) -> NDArray[np.uint8]:
    """As `decode_image`, of a file's content; ``name`` is what errors call it."""
    with _refusals(name):
        file = io.BytesIO(data)
        return _decoded(name, file, _checked(name, file, max_memory))


def decode_within(path: Path, in_hand: int, data: bytes | None = None) -> DecodedImage:
    """As `decode_image`, for an image that is judged and written afterwards: reduced where the whole takes too much.

    A JPEG is decoded with fewer frequencies, an 8-bit PNG or BMP without transparency averaged; others are not reduced.

    Args:
        path: an image file, or what errors call its content.
        in_hand: what the image may take from decoding to written results, in bytes.
        data: the file's content, if it is in memory.

    Raises:
        ImageError: for whatever is wrong with the file, or no reduction suffices.
    """
    with _refusals(path), _opened(path) if data is None else io.BytesIO(data) as file:
        _check_file_size(path, file, in_hand)
        opened = open_image(file)
        header = opened.header.within(in_hand)
        check_size(path, header, header.bytes_in_hand, in_hand)
        return DecodedImage(_decoded(path, file, replace(opened, header=header)), header.reduction)


def _decoded(name: Path, file: BinaryIO, opened: OpenImage) -> NDArray[np.uint8]:
    stored = _stored(name, file, opened)
    values = stored.values if stored.palette is None else looked_up(stored.palette, stored.values[:, :, 0])
    if not has_finite(values):
        raise ImageError(name, "no pixel has a finite value, all are NaN or infinity")
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
    with _refusals(path), _opened(path) as file:
        if above is None:
            above = 127 if file.read(2) == b"\xff\xd8" else 0
            file.seek(0)
        stored = _stored(path, file, _checked(path, file, MAX_MEMORY))
        return np.ascontiguousarray(upright(_brightness(stored) > above, stored.orientation))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in px of the upright image, from the file's header alone.

    Raises:
        ImageError: for whatever is wrong with the header.
    """
    return image_header(path).size


def image_header(path: Path, data: bytes | None = None) -> ImageHeader:
    """The header of an image file, or of its content; ``path`` is then what errors call it.

    Raises:
        ImageError: for whatever is wrong with it.
    """
    with _refusals(path), _opened(path) if data is None else io.BytesIO(data) as file:
        _check_file_size(path, file, MAX_MEMORY)
        return read_header(file)


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
        if not path.is_file():  # opening a pipe would wait for ever
            raise ImageError(path, _why_no_file(path))
        file = path.open("rb")
    except PermissionError as error:
        raise ImageError(path, "no permission to read it") from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    with file:
        yield file


def _why_no_file(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"the link points to nothing ({path.readlink()})"
    if path.is_dir():
        return "is a folder, expected an image file"
    return "is not a regular file" if path.exists() else "no such file"


def _check_file_size(path: Path, file: BinaryIO, max_memory: int) -> None:
    """Refuse a file that is empty, or larger than what may be in memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        raise ImageError(path, "the file is empty (0 bytes)")
    if size > max_memory:
        raise ImageError(path, f"is a file of {size / 1e9:.1f} GB, more than the limit of {max_memory / 1e9:.1f} GB")


def check_size(path: Path, header: ImageHeader, needed: int, max_memory: int) -> None:
    """Refuse an image of too many pixels, or one that takes more bytes than may be.

    Raises:
        ImageError: it does.
    """
    height, width = header.size
    if header.pixels > MAX_PIXELS:
        raise ImageError(
            path,
            f"{width} x {height} = {header.pixels:,} px is more than the limit of {MAX_PIXELS:,} px; "
            "a decompression bomb, or an image to cut into tiles first",
        )
    if needed > max_memory:
        raise ImageError(
            path,
            f"{width} x {height} px in a file of {header.file_bytes / 1e6:,.1f} MB take {needed / 1e9:.1f} GB, more "
            f"than the limit of {max_memory / 1e9:.1f} GB; a decompression bomb, or an image to cut into tiles first",
        )


def _checked(path: Path, file: BinaryIO, max_memory: int) -> OpenImage:
    """An image that is decoded whole, after its header has told that this does not take too much."""
    _check_file_size(path, file, max_memory)
    opened = open_image(file)
    check_size(path, opened.header, opened.header.decoding_bytes, max_memory)
    return opened


def _stored(path: Path, file: BinaryIO, opened: OpenImage) -> _Stored:
    """Decode a file's first page or frame."""
    header, image = opened.header, opened.image
    if image is None:
        tiff = tiff_pixels(file)
        if tiff is not None:
            return _Stored(tiff.values, tiff.palette, header.orientation)
        file.seek(0)
        image = TiffImagePlugin.TiffImageFile(file)
    palette = None
    if image.mode == "P":
        image.load()
        image.apply_transparency()
        palette = np.zeros((256, 4), np.uint8)
        colours = np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        palette[: len(colours)] = colours
        values = _array(image)
    else:
        values = _pillow_values(path, image, file, header.reduction)
    return _Stored(values, palette, header.orientation)


def _levels(values: Pixels) -> NDArray[np.uint8]:
    """Grey levels of (H, W, C): the colours share one window, alpha (last of 2 or 4) spans its whole type."""
    if values.shape[2] in (2, 4) and values.dtype == np.uint16:
        alpha = (values[:, :, -1:].astype(np.uint16) >> 8).astype(np.uint8)
        return np.concatenate([to_levels(values[:, :, :-1]), alpha], axis=2)
    return to_levels(values)


def _pillow_values(path: Path, image: ImageFile, file: BinaryIO, reduction: int) -> Pixels:
    """Stored values (H, W, C) with C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""
    if isinstance(image, PngImagePlugin.PngImageFile) and has_sixteen_bit_colours(image):
        return _sixteen_bit_colours(image, file)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        data = _jpeg_content(path, image, file)
        fast = _fast_jpeg(image, data) if reduction == 1 else None
        if fast is not None:
            return fast
        image.draft(None, (image.width // reduction, image.height // reduction))
    elif reduction > 1 and is_averaged(image):
        return _array(image.reduce(reduction))
    mode = values_mode(image)
    return _array(image if mode == image.mode else image.convert(mode))


def _array(image: Image) -> Pixels:
    """The values (H, W, C) of a Pillow image."""
    if image.width * image.height <= _LARGE_PX:
        return np.atleast_3d(np.asarray(image))
    corner = np.atleast_3d(np.asarray(image.crop((0, 0, 1, 1))))
    values: Pixels = np.empty((image.height, image.width, corner.shape[2]), corner.dtype)
    for rows, band in _bands(image):
        values[rows] = band
    return values


def _bands(image: Image) -> Iterator[tuple[slice, Pixels]]:
    """Rows and values (h, W, C) of a Pillow image, part by part."""
    step = max(1, _BAND_PX // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), np.atleast_3d(np.asarray(image.crop((0, top, image.width, bottom))))


def _jpeg_content(path: Path, image: ImageFile, file: BinaryIO) -> bytes:
    """The bytes of a JPEG, which does not have too many scans."""
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    if image.width * image.height > _BAND_PX and data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError(path, f"a JPEG of more than {_MAX_SCANS} scans, which would take minutes; a bomb")
    return data


def _fast_jpeg(image: ImageFile, data: bytes) -> Pixels | None:
    """Values of a JPEG by simplejpeg, the same pixels in half of Pillow's time; None where Pillow must decide.

    Grey comes in three channels, which it would be copied into afterwards.
    """
    if _simplejpeg is None or image.mode not in ("L", "RGB"):
        return None
    try:
        values: Pixels = _simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None  # damaged: Pillow knows what can be made of it, and says what cannot
    return values


def _sixteen_bit_colours(image: PngImagePlugin.PngImageFile, file: BinaryIO) -> NDArray[np.uint16]:
    """All sixteen bits of a colour PNG, of which Pillow keeps only the high bytes.

    Decoding the same data once more as if they were little-endian gives the low bytes.
    """
    joined = np.empty((image.height, image.width, len(image.getbands())), np.uint16)
    for rows, band in _bands(image):
        joined[rows] = band
    joined <<= 8
    file.seek(0)
    twin = PngImagePlugin.PngImageFile(file)
    tile = twin.tile[0]
    twin.tile = [tile._replace(args=str(tile.args).replace("16B", "16L"))]
    for rows, band in _bands(twin):
        joined[rows] |= band.astype(np.uint16)
    return joined


def _brightness(stored: _Stored) -> Pixels:
    """Values (H, W) of a mask: indices of a palette whose first colour is black, else the brightest colour."""
    values = stored.values
    if stored.palette is not None and stored.palette[0, :3].any():
        values = looked_up(stored.palette, values[:, :, 0])
    if values.dtype == np.bool_:
        values = to_levels(values)
    brightest: Pixels = values[:, :, : 3 if values.shape[2] >= 3 else 1].max(axis=2)
    return brightest
