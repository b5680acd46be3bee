from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.pixels import as_rgb
from ad_dinov3.errors import ImageError, ShapeError


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def test_kinds_that_hold_the_same_pixels_give_the_same_image(rgb: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    kinds = {
        "path": tmp_path / "a.png",
        "name": str(tmp_path / "a.png"),
        "bytes": (tmp_path / "a.png").read_bytes(),
        "picture": Image.open(tmp_path / "a.png"),
        "opaque": np.dstack([rgb, np.full((5, 7), 255, np.uint8)]),
        "tensor": torch.from_numpy(rgb).permute(2, 0, 1),
        "floats": rgb / 255,
        "float tensor": torch.from_numpy(rgb).permute(2, 0, 1).float() / 255,
        "sixteen bits": rgb.astype(np.uint16) * 257,
    }
    for kind, image in kinds.items():
        found = as_rgb(image)
        np.testing.assert_array_equal(found, rgb, err_msg=kind)
        assert found.dtype == np.uint8


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_is_repeated(rgb: np.ndarray, shape: tuple[int, ...]) -> None:
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(as_rgb(grey.reshape(shape)), np.repeat(grey[:, :, None], 3, 2))
    np.testing.assert_array_equal(as_rgb(Image.fromarray(grey)), np.repeat(grey[:, :, None], 3, 2))


def test_what_is_transparent_shows_white(rgb: np.ndarray) -> None:
    clear = np.dstack([rgb, np.zeros((5, 7), np.uint8)])
    for image in (clear, Image.fromarray(clear), torch.from_numpy(clear).permute(2, 0, 1)):
        assert (as_rgb(image) == 255).all()


def test_a_mask_is_black_and_white() -> None:
    mask = np.eye(4, dtype=bool)
    np.testing.assert_array_equal(as_rgb(mask)[:, :, 1], mask * np.uint8(255))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "RGBA"])
def test_a_picture_of_any_mode_equals_its_file(rgb: np.ndarray, tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 200)
    else:
        picture = Image.fromarray(rgb).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    picture.save(path)
    np.testing.assert_array_equal(as_rgb(picture), decode_image(path))


def test_a_picture_is_turned_upright_as_its_file_is(rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", exif=exif)
    picture = Image.open(io.BytesIO(file.getvalue()))
    assert as_rgb(picture).shape == (7, 5, 3)
    np.testing.assert_array_equal(as_rgb(picture), as_rgb(file.getvalue()))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5, 7), np.uint8), r"\(4, 5, 7\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.full((4, 5), 2.0), r"\[0, 1\], got \[2, 2\]"),
        (np.full((4, 5), np.nan), "nan"),
        (np.zeros((4, 5), np.complex64), "complex64"),
        (torch.zeros(7, 5, 3), r"a tensor \(C, H, W\)"),
        (12, "got int"),
    ],
)
def test_what_is_no_image_is_refused_in_words(image: object, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        as_rgb(image)  # type: ignore[arg-type]


def test_bytes_that_are_no_image_file_are_refused() -> None:
    with pytest.raises(ImageError, match="its content is not JPEG"):
        as_rgb(b"no picture at all, but long enough")
