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
from ad_dinov3.data.decode import MAX_MEMORY, decode_bytes, decode_image, image_header, image_size
from ad_dinov3.data.levels import to_levels
from ad_dinov3.errors import ImageError

_PEAK = """
import sys
from pathlib import Path
from ad_dinov3.data.decode import decode_image, image_header
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
path = Path(sys.argv[1])
header = image_header(path)
before = peak()
decode_image(path, 1 << 40)
print(peak() - before, header.decoding_bytes + path.stat().st_size)
"""


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["jpeg", "progressive", "rgb16", "rgba", "webp", "float", "zlib"])
def test_decoding_takes_no_more_than_the_header_says(tmp_path: Path, kind: str) -> None:
    side, path = 3000, tmp_path / kind
    picture = Image.new("RGB", (side, side), (9, 90, 200))
    ramp = np.linspace(0, 300, side * side, dtype=np.float64).reshape(side, side)
    make = {
        "jpeg": lambda: picture.save(path, "JPEG"),
        "progressive": lambda: picture.save(path, "JPEG", progressive=True, subsampling=0),
        "rgb16": lambda: path.write_bytes(images.png(side, side, 16, 2)),
        "rgba": lambda: path.write_bytes(images.png(side, side, 8, 6)),
        "webp": lambda: picture.save(path, "WEBP", quality=1, method=0),
        "float": lambda: tifffile.imwrite(path, ramp.astype(np.float32)),
        "zlib": lambda: tifffile.imwrite(path, ramp, compression="zlib"),
    }
    make[kind]()
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    peak, stated = map(int, done.stdout.split())
    assert peak < stated + 8e6  # the modules that decoding loads


def test_an_image_over_the_callers_limit_is_refused_and_under_it_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "x.png")
    needed = image_header(tmp_path / "x.png").decoding_bytes + (tmp_path / "x.png").stat().st_size
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
