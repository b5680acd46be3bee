"""What a file says of its image before it is decoded: kind, size, orientation, and the memory that decoding takes.

Nothing here reads more of a file than its metadata, so that a file is refused before it costs anything.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import Image, getmodebands
from PIL.ImageFile import ImageFile

from ad_dinov3.data.tiff import is_tiff, tiff_header

SNIFF_BYTES = 16
_MAX_READS, _BYTES_PER_READ = 50_000, 64
_EXIF_ORIENTATION = 0x0112
_RGB_BYTES = 3
_PILLOW_BYTES = 4  # how Pillow keeps the colours of a pixel; grey takes one
_WEBP_CANVASES = 4  # libwebp's two, Pillow's copy of the bytes, and its own
_COEFFICIENT_BYTES = 2  # libjpeg keeps those of a progressive JPEG until the last scan
_MODES_AS_STORED = frozenset({"1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L"})
_REDUCTIONS = (1, 2, 4, 8)  # what libjpeg can leave out by decoding fewer frequencies

# Image, map, mask, labels of regions, and the overlay while it is drawn, which larger images have reduced.
_IN_HAND_BYTES, _LARGE_IN_HAND_BYTES, _LARGE_PX = 22, 14, 40_000_000


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image.

    Attributes:
        height: in px, as stored.
        width: in px, as stored.
        orientation: 1..8, what is due to turn it upright.
        decoding_bytes_per_px: what decoding it to RGB takes at most, beside the file itself.
        reducing_bytes_per_px: what each stored pixel takes while the image is decoded reduced; None: it cannot be.
        file_bytes: of the file itself.
        reduction: 1, 2, 4 or 8, by which its sides are divided in decoding.
    """

    height: int
    width: int
    orientation: int
    decoding_bytes_per_px: float
    reducing_bytes_per_px: float | None = None
    file_bytes: int = 0
    reduction: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px of the upright image, as stored."""
        is_turned = self.orientation in (5, 6, 7, 8)
        return (self.width, self.height) if is_turned else (self.height, self.width)

    @property
    def pixels(self) -> int:
        """Number of stored pixels."""
        return self.height * self.width

    @property
    def decoding_bytes(self) -> int:
        """What decoding takes at most, in bytes, the file itself included."""
        whole = 0.0 if self.reduction == 1 else self.pixels * (self.reducing_bytes_per_px or 0.0)
        return int(self.file_bytes + whole + self._decoded_pixels * self.decoding_bytes_per_px)

    @property
    def bytes_in_hand(self) -> int:
        """What the image takes at most, from decoding to written results, in bytes."""
        pixels = self._decoded_pixels
        per_px = _IN_HAND_BYTES if pixels <= _LARGE_PX else _LARGE_IN_HAND_BYTES
        return max(self.decoding_bytes, self.file_bytes + pixels * per_px)

    @property
    def _decoded_pixels(self) -> int:
        return -(-self.height // self.reduction) * -(-self.width // self.reduction)

    def within(self, in_hand: int) -> ImageHeader:
        """The image reduced as little as takes so many bytes in hand; as it is if nothing does."""
        if self.reducing_bytes_per_px is None:
            return self
        ways = (replace(self, reduction=by) for by in _REDUCTIONS if by <= min(self.height, self.width))
        return next((way for way in ways if way.bytes_in_hand <= in_hand), self)


def header_of(image: NDArray[np.uint8]) -> ImageHeader:
    """What a header would say of an image (H, W, 3) that is decoded already."""
    height, width, channels = image.shape
    return ImageHeader(height, width, 1, channels)


def read_header(file: BinaryIO) -> ImageHeader:
    """The header of an open image file, which is left at its start; decoders' errors come through.

    Raises:
        NotImplementedError: the content is of no kind that is decoded here.
    """
    return open_image(file).header


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image whose header is read.

    Attributes:
        header: what it says.
        image: that header as Pillow goes on from it; None for a TIFF.
    """

    header: ImageHeader
    image: ImageFile | None


def open_image(file: BinaryIO) -> OpenImage:
    """As `read_header`, with what is needed to decode it."""
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(SNIFF_BYTES)
    file.seek(0)
    image = None
    if is_tiff(head):
        tiff = tiff_header(file)
        decoding = tiff.bytes_per_px + _RGB_BYTES
        header = ImageHeader(tiff.height, tiff.width, tiff.orientation, decoding, file_bytes=file_bytes)
    else:
        image = open_with_pillow(file, head)
        costs = _pillow_bytes_per_px(image), _reducing_bytes_per_px(image)
        header = ImageHeader(image.height, image.width, orientation_of(image, file), *costs, file_bytes)
    file.seek(0)
    return OpenImage(header, image)


def open_with_pillow(file: BinaryIO, head: bytes) -> ImageFile:
    """Open by signature, without Pillow's search over all of its formats and its own, lower size limit.

    Raises:
        NotImplementedError: the content is of no kind that is decoded here.
    """
    patient = cast("BinaryIO", _Patient(file))
    if head.startswith(b"\xff\xd8"):
        return _from_now_on(JpegImagePlugin.JpegImageFile(patient), file)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _from_now_on(PngImagePlugin.PngImageFile(patient), file)
    if head.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(file)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    raise NotImplementedError("its content is not JPEG, PNG, BMP, TIFF or WebP, whatever its name says")


class _Patient:
    """A file that ends when a header is read byte by byte for ever, as Pillow reads what stands between markers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._calls = self._bytes = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        data = self._file.read(size)
        self._calls, self._bytes = self._calls + 1, self._bytes + len(data)
        if self._calls > _MAX_READS + self._bytes // _BYTES_PER_READ:
            raise ValueError("no image begins where its header should end")
        return data


def _from_now_on(image: ImageFile, file: BinaryIO) -> ImageFile:
    """The image, reading from the file itself: the header is behind it."""
    image.fp = file
    if isinstance(image, PngImagePlugin.PngImageFile) and image.png is not None:
        image.png.fp = file
    return image


def orientation_of(image: ImageFile, file: BinaryIO) -> int:
    """The EXIF orientation 1..8 of an image that is not a TIFF."""
    if isinstance(image, PngImagePlugin.PngImageFile) and not _png_may_have_exif(file):
        return 1
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return 1  # broken EXIF is no EXIF, as in every viewer; the pixels are whole
    return value if isinstance(value, int) else 1


def has_sixteen_bit_colours(image: ImageFile) -> bool:
    """Whether this is a colour PNG of which Pillow alone would keep half of the bits."""
    is_png = isinstance(image, PngImagePlugin.PngImageFile) and bool(image.tile)
    return is_png and image.tile[0].args in ("RGB;16B", "RGBA;16B")


def _png_may_have_exif(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk that can hold EXIF; asking Pillow would decode the whole image."""
    position = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
        file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    file.seek(position)
    return len(head) == 8


def values_mode(image: Image) -> str:
    """The mode, as Pillow names it, that an image's values are taken in: palettes and CMYK become RGB."""
    if "transparency" in image.info:
        return "RGBA"
    return image.mode if image.mode in _MODES_AS_STORED else "RGB"


def is_averaged(image: ImageFile) -> bool:
    """Whether the image is reduced by averaging its pixels, which Pillow holds in 8 bits."""
    is_plain = isinstance(image, PngImagePlugin.PngImageFile | BmpImagePlugin.BmpImageFile)
    has_levels = image.mode in ("L", "RGB") and not has_sixteen_bit_colours(image)
    return is_plain and has_levels and "transparency" not in image.info


def _pillow_bytes_per_px(image: ImageFile) -> float:
    """Decoder's copies, stored values, grey levels and RGB of what Pillow or simplejpeg decodes."""
    samples = len(image.getbands())
    if has_sixteen_bit_colours(image):
        return 2 * _PILLOW_BYTES + 3 * samples + _RGB_BYTES
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        return _WEBP_CANVASES * _PILLOW_BYTES + samples + _RGB_BYTES
    depth = {"I": 4, "F": 4}.get(image.mode, 2 if image.mode.startswith("I;16") else 1)
    if depth > 1:
        return samples * (3 * depth + 2) + _RGB_BYTES
    mode = values_mode(image)
    converted, samples = 0 if mode == image.mode else _PILLOW_BYTES, getmodebands(mode)
    copied = samples + max(samples, _RGB_BYTES)  # the array is joined from its parts before it becomes RGB
    return _own_bytes_per_px(image) + converted + copied + _coefficient_bytes_per_px(image)


def _own_bytes_per_px(image: ImageFile) -> int:
    """What Pillow keeps of a pixel of 8 bits a sample."""
    return {"L": 1, "P": 1, "1": 2}.get(image.mode, _PILLOW_BYTES)


def _coefficient_bytes_per_px(image: ImageFile) -> float:
    """What a progressive JPEG's coefficients take for each pixel: less where colours are stored more coarsely."""
    if not image.info.get("progressive") or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 0
    layers = [(across, down) for _, across, down, _ in image.layer]
    most = max(across for across, _ in layers) * max(down for _, down in layers)
    return _COEFFICIENT_BYTES * sum(across * down for across, down in layers) / max(1, most)


def _reducing_bytes_per_px(image: ImageFile) -> float | None:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _coefficient_bytes_per_px(image)
    return _own_bytes_per_px(image) if is_averaged(image) else None
