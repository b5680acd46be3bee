"""What a folder of hostile images costs: every file gives pixels or one ImageError, within the stated memory."""

from __future__ import annotations

import logging
import subprocess
import sys
import tracemalloc
from pathlib import Path

import images
import numpy as np
import pytest
import tifffile
from PIL import Image

from ad_dinov3.data import tiff
from ad_dinov3.data.decode import (
    MAX_MEMORY,
    decode_bytes,
    decode_image,
    decode_within,
    image_header,
    image_size,
)
from ad_dinov3.data.levels import to_levels
from ad_dinov3.errors import ImageError

_PEAK = """
import sys
from pathlib import Path
from ad_dinov3.data.decode import decode_within, image_header
def status(of):
    return int(next(line for line in open("/proc/self/status") if line.startswith(of)).split()[1]) * 1024
small, path = Path(sys.argv[1]), Path(sys.argv[2])
in_hand = int(sys.argv[3])
header = image_header(path).within(in_hand)
decode_within(small, in_hand)  # loads the modules and tables that decoding needs once
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
before = status("VmRSS")
reduction = decode_within(path, in_hand).reduction
print(status("VmHWM") - before, header.decoding_bytes, reduction)
"""

_REDUCED = ("jpeg", "cmyk", "progressive", "coarse", "rgb", "grey", "bmp")
_WHOLE = ("rgb16", "rgba", "clear", "clear grey", "palette", "clear palette", "webp", "float", "zlib")


def test_each_of_600_mutated_images_is_decoded_or_refused_in_words() -> None:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    shapes, reasons = [], []
    for name, content in images.mutants(600, seed=0):
        try:
            shapes.append(decode_bytes(content, Path(name)).shape)
        except ImageError as refusal:
            reasons.append(refusal.reason)
    assert all(shape[2] == 3 for shape in shapes)
    assert all(len(reason) > 10 for reason in reasons)
    assert min(len(shapes), len(reasons)) > 50


@pytest.mark.parametrize("name", ["rgb.png", "rgba16.png", "jpeg0.jpg", "double.tif", "samples.tif", "scans.jpg"])
def test_a_small_file_of_gigabytes_is_refused_before_anything_is_allocated(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(images.bombs()[name]())
    tracemalloc.start()
    with pytest.raises(ImageError, match="bomb"):
        decode_image(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", bytes(16)])
def test_a_sparse_file_of_six_gigabytes_is_refused_at_once(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(6 << 30)
    for look in (decode_image, image_size):
        with pytest.raises(ImageError, match=r"file of 6\.4 GB"):
            look(path)


def test_a_jpeg_of_endless_padding_is_refused_without_reading_it() -> None:
    with pytest.raises(ImageError, match="no image begins"):
        decode_bytes(b"\xff\xd8\xff\xe0\0\x04\0\0" + b"\xff\0" * 5_000_000, Path("junk.jpg"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this kernel does not start a peak again")
@pytest.mark.parametrize("in_hand", [1 << 40, 120_000_000])
@pytest.mark.parametrize("kind", [*_REDUCED, *_WHOLE])
def test_decoding_takes_no_more_than_the_header_says(tmp_path: Path, kind: str, in_hand: int) -> None:
    if in_hand < 1 << 40 and kind not in _REDUCED:
        pytest.skip("is not decoded reduced")
    small, path = tmp_path / "small", tmp_path / "large"
    _write(kind, 64, small)
    _write(kind, 3000, path)
    command = [sys.executable, "-c", _PEAK, str(small), str(path), str(in_hand)]
    peak, stated, reduction = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert peak < stated + 4e6
    assert (reduction > 1) == (in_hand < 1 << 40)


def _write(kind: str, side: int, path: Path) -> None:
    picture = Image.new("RGB", (side, side), (9, 90, 200))
    ramp = np.linspace(0, 300, side * side, dtype=np.float64).reshape(side, side)
    make = {
        "jpeg": lambda: picture.save(path, "JPEG"),
        "cmyk": lambda: picture.convert("CMYK").save(path, "JPEG"),
        "progressive": lambda: picture.save(path, "JPEG", progressive=True, subsampling=0),
        "coarse": lambda: picture.save(path, "JPEG", progressive=True, subsampling=2),
        "rgb": lambda: path.write_bytes(images.png(side, side, 8, 2)),
        "grey": lambda: path.write_bytes(images.png(side, side, 8, 0)),
        "bmp": lambda: picture.save(path, "BMP"),
        "rgb16": lambda: path.write_bytes(images.png(side, side, 16, 2)),
        "rgba": lambda: path.write_bytes(images.png(side, side, 8, 6)),
        "clear": lambda: picture.save(path, "PNG", transparency=(9, 90, 200)),
        "clear grey": lambda: picture.convert("L").save(path, "PNG", transparency=7),
        "palette": lambda: picture.quantize(7).save(path, "PNG"),
        "clear palette": lambda: picture.quantize(7).save(path, "PNG", transparency=0),
        "webp": lambda: picture.save(path, "WEBP", quality=1, method=0),
        "float": lambda: tifffile.imwrite(path, ramp.astype(np.float32)),
        "zlib": lambda: tifffile.imwrite(path, ramp, compression="zlib"),
    }
    make[kind]()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_image_shows_what_the_whole_one_shows(tmp_path: Path, form: str, orientation: int) -> None:
    down, across = np.mgrid[0:250:301j, 0:250:399j]
    picture = Image.fromarray(np.stack([down, across, 250 - down], axis=2).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "x", form, **({} if form == "BMP" else {"exif": exif}))
    whole = decode_image(tmp_path / "x")
    reduced = decode_within(tmp_path / "x", image_header(tmp_path / "x").bytes_in_hand - 1)
    expected = Image.fromarray(whole).resize(reduced.pixels.shape[1::-1], Image.Resampling.BOX)
    assert reduced.reduction == 2
    assert reduced.pixels.shape[:2] == tuple(-(-side // 2) for side in whole.shape[:2])
    assert np.abs(reduced.pixels.astype(int) - np.asarray(expected)).mean() < 3


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"), ("RGB", "TIFF")])
def test_an_image_that_cannot_be_reduced_is_refused_in_one_line(tmp_path: Path, mode: str, form: str) -> None:
    picture = Image.new("RGB", (400, 300), (9, 90, 200))
    picture.convert(mode).save(tmp_path / "x", form)
    with pytest.raises(ImageError, match="400 x 300 px") as refusal:
        decode_within(tmp_path / "x", 900_000)
    assert "\n" not in str(refusal.value)


def test_what_is_appended_to_an_image_counts(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.truncate(50_000_000)
    assert image_header(tmp_path / "x.jpg").bytes_in_hand > 50_000_000


def test_an_image_over_the_callers_limit_is_refused_and_under_it_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "x.png")
    needed = image_header(tmp_path / "x.png").decoding_bytes
    assert needed < MAX_MEMORY
    assert decode_image(tmp_path / "x.png", needed).shape == (200, 300, 3)
    with pytest.raises(ImageError, match="300 x 200 px"):
        decode_image(tmp_path / "x.png", needed - 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_without_one_finite_pixel_is_an_error(tmp_path: Path, value: float) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.full((8, 8), value, np.float32))
    with pytest.raises(ImageError, match="no pixel has a finite value"):
        decode_image(tmp_path / "x.tif")


def test_the_whole_range_of_a_double_is_scaled_without_overflow() -> None:
    most = np.finfo(np.float64).max
    ramp = np.linspace(-1, 1, 1001) * most
    assert np.array_equal(to_levels(ramp), to_levels(np.linspace(-1000, 1000, 1001)))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "u4"])
def test_windows_of_deep_data_are_numpys_percentiles(kind: str) -> None:
    values = (np.random.default_rng(0).normal(300, 9000, (301, 211))).astype(kind)
    low, high = np.percentile(values.astype(np.float64), (0.1, 99.9))
    expected = (np.clip(values.astype(np.float64), low, high) - low) * (255 / (high - low)) + 0.5
    assert np.array_equal(to_levels(values), expected.clip(0, 255).astype(np.uint8))


def test_a_strip_that_unpacks_to_gigabytes_is_refused_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    content = images.long_strip_tiff()
    monkeypatch.setattr(tiff, "_has_imagecodecs", False)
    with pytest.raises(ImageError, match="decompression bomb"):
        decode_bytes(content, Path("x.tif"))
