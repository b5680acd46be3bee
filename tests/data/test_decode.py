"""Decoding held against Pillow's and tifffile's own writers, a PNG writer of our own, and broken files of all kinds."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ad_dinov3.data import decode
from ad_dinov3.data.decode import decode_image, decode_mask, image_size
from ad_dinov3.errors import ImageError

RNG = np.random.default_rng(7)
PHOTO = RNG.integers(0, 256, (20, 31, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (9, 13, 4)).astype(np.uint16)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png16(pixels: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of (H, W, C), written by hand: Pillow cannot write one in colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def with_photometric(data: bytes, value: int) -> bytes:
    """The same TIFF with another photometric tag (262)."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offset = file.pages.first.tags[262].valueoffset
    changed[offset : offset + 2] = struct.pack("<H", value)
    return bytes(changed)


def at(folder: Path, data: bytes, name: str = "image.bin") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_rgb_comes_back_exactly(tmp_path: Path, form: str) -> None:
    path = at(tmp_path, encoded(Image.fromarray(PHOTO), form, **({"lossless": True} if form == "WEBP" else {})))
    np.testing.assert_array_equal(decode_image(path), PHOTO)
    assert image_size(path) == (20, 31)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow_and_is_writable(tmp_path: Path, progressive: bool) -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG", quality=85, progressive=progressive)
    image = decode_image(at(tmp_path, data))
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(data))))
    image[:] = 0


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        decode_image(at(tmp_path, encoded(Image.fromarray(PHOTO), "PNG"), "photo.jpg")), PHOTO
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "JPEG"])
def test_grey_is_repeated(tmp_path: Path, form: str) -> None:
    image = decode_image(at(tmp_path, encoded(Image.fromarray(np.full((5, 4), 77, np.uint8)), form)))
    assert image.shape == (5, 4, 3)
    assert (image == 77).all()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_palette_and_one_bit_images_equal_their_colours(tmp_path: Path, form: str) -> None:
    for image in (Image.fromarray(PHOTO).quantize(8), Image.fromarray(PHOTO).convert("1")):
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode_image(at(tmp_path, encoded(image, form))), expected)


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    pixels = np.dstack([np.full((1, 3, 3), 100, np.uint8), np.array([[0, 128, 255]], np.uint8)])
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        image = decode_image(at(tmp_path, encoded(Image.fromarray(pixels), form, **options)))
        assert image[0, 0, 0] == 255
        assert image[0, 1, 0] == round((100 * 128 + 255 * 127) / 255)
        assert image[0, 2, 0] == 100


def test_a_transparent_colour_of_a_palette_or_of_grey_shows_white(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    image = decode_image(at(tmp_path, encoded(palette, "PNG", transparency=0)))
    assert image[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    grey = Image.fromarray(np.array([[5, 9]], np.uint8))
    assert decode_image(at(tmp_path, encoded(grey, "PNG", transparency=5)))[0, :, 0].tolist() == [255, 9]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_equals_pillows_conversion(tmp_path: Path, form: str) -> None:
    data = encoded(Image.fromarray(PHOTO).convert("CMYK"), form)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(at(tmp_path, data)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_each_exif_orientation_equals_pillows_transpose(tmp_path: Path, orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PHOTO), form, exif=exif)
    path = at(tmp_path, data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_image(path), expected)
    assert image_size(path) == expected.shape[:2]
    np.testing.assert_array_equal(decode_mask(path, above=127), expected.max(axis=2) > 127)


def test_broken_exif_counts_as_none(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode_image(at(tmp_path, data)).shape == (20, 31, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_is_divided_by_257(tmp_path: Path, channels: int) -> None:
    pixels = DEEP[:, :, :channels].copy()
    pixels[0, 0] = 65535
    image = decode_image(at(tmp_path, png16(pixels)))
    np.testing.assert_array_equal(image, np.broadcast_to(np.round(pixels / 257), image.shape))


def test_sixteen_bit_png_with_alpha_shows_white_where_clear(tmp_path: Path) -> None:
    pixels = DEEP.copy()
    pixels[..., 3] = 65535
    pixels[0, 0, 3] = 0
    image = decode_image(at(tmp_path, png16(pixels)))
    assert (image[0, 0] == 255).all()
    assert (abs(image[1:].astype(int) - np.round(pixels[1:, :, :3] / 257)) <= 1).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_fill_the_range(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    pixels = np.array([[[0], [top // 2], [top]]], np.uint16)
    for data in (png16(pixels), tiff(pixels[:, :, 0])):
        assert decode_image(at(tmp_path, data))[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bit_tiff_in_every_arrangement_is_divided_by_257(
    tmp_path: Path, compression: str | None, planar: str
) -> None:
    pixels = DEEP[:, :, :3].copy()
    stored = pixels if planar == "contig" else np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    data = tiff(stored, photometric="rgb", planarconfig=planar, compression=compression)
    np.testing.assert_array_equal(decode_image(at(tmp_path, data)), np.round(pixels / 257).astype(np.uint8))


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits", "group4"])
def test_tiff_codecs_that_need_pillow_are_read(tmp_path: Path, compression: str) -> None:
    image = Image.fromarray(PHOTO).convert("1" if compression == "group4" else "RGB")
    data = encoded(image, "TIFF", compression=compression)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(at(tmp_path, data)), expected)


def test_float_tiff_in_the_unit_range_is_times_255(tmp_path: Path) -> None:
    pixels = np.array([[0.0, 0.2, 1.0]], np.float32)
    assert decode_image(at(tmp_path, tiff(pixels)))[0, :, 0].tolist() == [0, 51, 255]


def test_float_tiff_of_other_units_is_windowed_by_percentiles_and_survives_nan(tmp_path: Path) -> None:
    pixels = np.linspace(-40, 60, 10_000, dtype=np.float32).reshape(100, 100)
    pixels[0, 0], pixels[0, 1], pixels[99, 99] = np.nan, -1e9, 1e9
    grey = decode_image(at(tmp_path, tiff(pixels)))[:, :, 0]
    assert grey[0, 0] == 0
    assert grey[0, 1] == 0
    assert grey[99, 99] == 255
    assert abs(int(grey[50, 0]) - 128) <= 1


def test_a_constant_float_image_is_valid(tmp_path: Path) -> None:
    assert decode_image(at(tmp_path, tiff(np.full((3, 3), 7.5, np.float32)))).shape == (3, 3, 3)


def test_min_is_white_tiff_is_inverted(tmp_path: Path) -> None:
    pixels = np.array([[0, 200]], np.uint8)
    assert decode_image(at(tmp_path, tiff(pixels, photometric="miniswhite")))[0, :, 0].tolist() == [255, 55]


@pytest.mark.parametrize("photometric", [0, 1, 3, 4, 5, 32803])
def test_rgb_tiff_with_a_wrong_photometric_tag_is_decoded(tmp_path: Path, photometric: int) -> None:
    data = with_photometric(tiff(PHOTO, photometric="rgb", metadata=None), photometric)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(decode_image(at(tmp_path, data)), PHOTO)


def test_first_page_of_several_counts(tmp_path: Path) -> None:
    data = tiff(np.stack([PHOTO, 255 - PHOTO]), photometric="rgb")
    np.testing.assert_array_equal(decode_image(at(tmp_path, data)), PHOTO)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_one_pixel_is_an_image(tmp_path: Path, form: str) -> None:
    assert decode_image(at(tmp_path, encoded(Image.new("RGB", (1, 1), "white"), form))).shape == (1, 1, 3)


def cut(data: bytes) -> bytes:
    return data[: len(data) * 6 // 10]


BIG = RNG.integers(0, 256, (200, 300, 3)).astype(np.uint8)
BROKEN = {
    "cut.jpg": cut(encoded(Image.fromarray(BIG), "JPEG")),
    "cut-progressive.jpg": cut(encoded(Image.fromarray(BIG), "JPEG", progressive=True)),
    "zeros-at-the-end.jpg": cut(encoded(Image.fromarray(BIG), "JPEG")) + bytes(9999),
    "cut.png": cut(encoded(Image.fromarray(BIG), "PNG")),
    "cut.webp": cut(encoded(Image.fromarray(BIG), "WEBP")),
    "cut.bmp": cut(encoded(Image.fromarray(BIG), "BMP")),
    "cut.tif": cut(tiff(BIG, photometric="rgb")),
    "cut-lzw.tif": cut(encoded(Image.fromarray(BIG), "TIFF", compression="tiff_lzw")),
    "empty.jpg": b"",
    "text.png": b"not an image\n",
    "page.jpg": b"<html><body>404 Not Found</body></html>",
    "header-only.tif": b"II*\0\x08\0\0\0",
    "seven-channels.tif": tiff(np.zeros((4, 4, 7), np.uint8), photometric="minisblack", planarconfig="contig"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_image_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = at(tmp_path, BROKEN[name], name)
    for read in (decode_image, decode_mask):
        with pytest.raises(ImageError, match=name) as caught:
            read(path)
        assert caught.value.reason


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = bytearray(png16(DEEP[:, :, :1]))
    data[16:29] = header
    data[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(ImageError, match=r"3,600,000,000 px"):
        decode_image(at(tmp_path, bytes(data), "bomb.png"))
    bomb = tiff(np.zeros((1, 1), np.uint8), metadata=None)
    with tifffile.TiffFile(io.BytesIO(bomb)) as file:
        offsets = [file.pages.first.tags[tag] for tag in (256, 257)]
    changed = bytearray(bomb)
    for tag in offsets:
        size = 4 if tag.dtype == 4 else 2
        changed[tag.valueoffset : tag.valueoffset + size] = (60000).to_bytes(size, "little")
    with pytest.raises(ImageError, match=r"3,600,000,000 px"):
        decode_image(at(tmp_path, bytes(changed), "bomb.tif"))


def test_a_large_but_sane_image_is_not_a_bomb(tmp_path: Path) -> None:
    # above Pillow's own warning at 89 million pixels
    path = at(tmp_path, encoded(Image.new("1", (10_000, 9_500)), "PNG"))
    assert image_size(path) == (9_500, 10_000)
    assert decode.MAX_PIXELS > 9_500 * 10_000
    assert decode_mask(path).shape == (9_500, 10_000)


def test_things_that_are_not_files_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    for path, words in (
        (tmp_path, "folder"),
        (tmp_path / "link.png", "points to nothing"),
        (tmp_path / "absent.png", "no such file"),
        (tmp_path / "pipe.png", "not a regular file"),
        (tmp_path / "absent" / "x.png", "no such file"),
    ):
        for read in (decode_image, decode_mask, image_size):
            with pytest.raises(ImageError, match=words):
                read(path)


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = at(tmp_path, encoded(Image.fromarray(PHOTO), "PNG"))
    path.chmod(0)
    if os.geteuid() == 0:  # permissions do not bind root
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ImageError, match="no permission"):
        decode_image(path)


FORMS = {form: encoded(Image.fromarray(PHOTO), form) for form in ("JPEG", "PNG", "BMP", "WEBP", "TIFF")} | {
    "LZW": encoded(Image.fromarray(PHOTO), "TIFF", compression="tiff_lzw"),
    "PNG16": png16(DEEP),
}


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(sorted(FORMS)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    keep=st.floats(0.02, 1.0),
)
def test_damaged_bytes_give_an_image_or_an_image_error(
    tmp_path: Path, form: str, changes: list[tuple[int, int]], keep: float
) -> None:
    data = bytearray(FORMS[form])
    for place, value in changes:
        data[place % len(data)] = value
    path = at(tmp_path, bytes(data[: int(len(data) * keep)]))
    for read in (decode_image, decode_mask, image_size):
        with contextlib.suppress(ImageError):
            assert read(path) is not None


def test_mask_of_class_numbers_counts_every_value_above_zero(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 3, 255]], np.uint8)
    assert decode_mask(at(tmp_path, encoded(Image.fromarray(ids), "PNG")))[0].tolist() == [False, True, True, True]


def test_palette_mask_counts_indices_unless_index_zero_is_bright(tmp_path: Path) -> None:
    ids = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    ids.putpalette([0, 0, 0] * 3)  # class 1 is drawn black as well
    assert decode_mask(at(tmp_path, encoded(ids, "PNG")))[0].tolist() == [False, True, True]
    ids.putpalette([255, 255, 255, 0, 0, 0, 255, 0, 0])
    assert decode_mask(at(tmp_path, encoded(ids, "PNG")))[0].tolist() == [True, False, True]


def test_jpeg_mask_ignores_compression_noise(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 19:45] = 255
    path = at(tmp_path, encoded(Image.fromarray(truth), "JPEG", quality=60))
    np.testing.assert_array_equal(decode_mask(path), truth > 0)
    assert decode_mask(path, above=0).sum() > (truth > 0).sum()


def test_one_bit_mask_is_white_above_any_threshold(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[False, True]]))
    for form in ("PNG", "TIFF"):
        assert decode_mask(at(tmp_path, encoded(mask, form)), above=127)[0].tolist() == [False, True]


def test_mask_alpha_is_not_a_defect(tmp_path: Path) -> None:
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 1, 1] = 200
    assert decode_mask(at(tmp_path, encoded(Image.fromarray(pixels), "PNG")))[0].tolist() == [False, True]
