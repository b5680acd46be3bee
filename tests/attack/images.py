"""Hostile images by a seed: whole ones of every kind, mutated ones, and bombs whose declared size is all they have."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image


def whole_images(seed: int) -> list[tuple[str, bytes]]:
    """(suffix, content) of small images in every format, depth and mode that is decoded."""
    noise = np.random.default_rng(seed)
    found = []
    for height, width in ((48, 64), (1, 37), (90, 1)):
        rgb = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        rgba = noise.integers(0, 256, (height, width, 4), dtype=np.uint8)
        for mode in ("L", "RGB", "CMYK"):
            picture = Image.fromarray(rgb).convert(mode)
            found += [(".jpg", _saved(picture, "JPEG")), (".jpg", _saved(picture, "JPEG", progressive=True))]
        exif = Image.Exif()
        exif[274] = 6
        found.append((".jpg", _saved(Image.fromarray(rgb), "JPEG", exif=exif)))
        for mode in ("1", "L", "P", "RGB"):
            found += [(".png", _saved(Image.fromarray(rgb).convert(mode), "PNG"))]
            found += [(".bmp", _saved(Image.fromarray(rgb).convert(mode), "BMP"))]
        found += [(".png", _saved(Image.fromarray(rgba).convert(mode), "PNG")) for mode in ("RGBA", "LA")]
        found += [(".webp", _saved(Image.fromarray(pixels), "WEBP", lossless=True)) for pixels in (rgb, rgba)]
        found.append((".png", png(height, width, 16, 6, noise.bytes(height * (1 + width * 8)))))
        found.append(
            (".png", _saved(Image.fromarray(noise.integers(0, 4096, (height, width), dtype=np.uint16)), "PNG"))
        )
        for kind in ("u1", "u2", "i2", "u4", "f4", "f8"):
            values = (noise.random((height, width)) * 300).astype(kind)
            found.append((".tif", _tiff(values, None)))
            found.append((".tif", _tiff(np.repeat(values[..., None], 3, axis=2), "zlib")))
    return found


def mutated(content: bytes, random_: random.Random) -> bytes:
    """The content with a few faults: bits, bytes, runs and 32-bit words changed, cut, repeated, or moved."""
    data = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        place = random_.randrange(len(data)) if random_.random() < 0.6 else random_.randrange(min(64, len(data)))
        fault = random_.randrange(7)
        if fault == 0:
            data[place] ^= 1 << random_.randrange(8)
        elif fault == 1:
            data[place] = random_.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif fault == 2:
            word = random_.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000))
            data[place : place + 4] = struct.pack(random_.choice("<>") + "I", word)
        elif fault == 3:
            del data[place:]
        elif fault == 4:
            del data[place : place + random_.randrange(1, 64)]
        elif fault == 5:
            data[place:place] = data[place : place + random_.randrange(1, 64)]
        else:
            data[place : place + 8] = random_.randbytes(8)
        if not data:
            return b""
    return bytes(data)


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` times (name, content); the seed alone decides them."""
    random_ = random.Random(seed)
    whole = whole_images(seed)
    for number in range(count):
        suffix, content = whole[random_.randrange(len(whole))]
        yield f"{number:06d}{suffix}", mutated(content, random_)


def png(height: int, width: int, depth: int, colour: int, raw: bytes | None = None) -> bytes:
    """A PNG; without ``raw`` its pixels are zeros, which are packed a thousandfold."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + -(-width * samples * depth // 8)
    packed = zlib.compress(raw) if raw is not None else _packed_zeros(row * height)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


BOMB_SIDE = 14_100  # 199 million pixels, just below the limit


def bombs() -> dict[str, Callable[[], bytes]]:
    """Name -> small file whose pixels, decoded without limits, take gigabytes."""
    side = BOMB_SIDE
    return {
        "grey.png": lambda: png(side, side, 8, 0),
        "bit.png": lambda: png(side, side, 1, 0),
        "rgb.png": lambda: png(side, side, 8, 2),
        "rgba16.png": lambda: png(side, side, 16, 6),
        **{f"jpeg{number}.jpg": lambda: _large_jpeg(side, False) for number in range(6)},
        "progressive.jpg": lambda: _large_jpeg(9000, True),
        "scans.jpg": lambda: _many_scans(4000, 600),
        "double.tif": lambda: _zlib_tiff(side, side, 64, 3),
        "samples.tif": lambda: _zlib_tiff(9000, 9000, 64, 3, samples=4),
        "webp.webp": lambda: _saved(Image.new("RGB", (16000, 12000)), "WEBP", lossless=True, quality=0, method=0),
        "text.png": _text_bomb,
    }


def _packed_zeros(count: int) -> bytes:
    """zlib's form of ``count`` zeros: one packed block of them, again and again."""
    block = 1 << 22
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = rest.compress(bytes(count % block)) + rest.flush()
    checksum = struct.pack(">HH", count % 65521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + once * (count // block) + last + checksum


def _large_jpeg(side: int, progressive: bool) -> bytes:
    return _saved(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", quality=20, progressive=progressive)


def _many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = _saved(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def _zlib_tiff(
    height: int, width: int, bits: int, sample_format: int, samples: int = 1, packed: bytes | None = None
) -> bytes:
    """A TIFF of one deflated strip, of zeros if nothing else is given."""
    packed = _packed_zeros(height * width * samples * bits // 8) if packed is None else packed
    packed += bytes(len(packed) % 2)
    photometric = 1 if samples == 1 else 2
    tags = [(256, width), (257, height), (258, bits), (259, 8), (262, photometric), (273, 8), (277, samples)]
    tags += [(278, height), (279, len(packed)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def long_strip_tiff() -> bytes:
    """A TIFF of 10 rows whose one strip unpacks to 1.2 GB."""
    return _zlib_tiff(10, 12_000, 64, 3, packed=_packed_zeros(1_200_000_000))


def _text_bomb() -> bytes:
    content = png(16, 16, 8, 2, bytes(16 * (1 + 48)))
    text = b"Comment\0\0" + _packed_zeros(1 << 30)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return content[:33] + chunk + content[33:]


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(values: np.ndarray, compression: str | None) -> bytes:
    buffer = io.BytesIO()
    photometric = "minisblack" if values.ndim == 2 else "rgb"
    tifffile.imwrite(buffer, values, compression=compression, metadata=None, photometric=photometric)
    return buffer.getvalue()
