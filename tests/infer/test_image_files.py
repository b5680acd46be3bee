"""Maps, masks and pictures on disk: exact where they promise it, refused by name where they are broken."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ad_dinov3.errors import ImageError
from ad_dinov3.infer.image_files import (
    read_map,
    save_map_tiff,
    save_mask,
    write_jpeg,
    write_map_png16,
    write_map_tiff,
    write_mask,
)


def _map(height: int = 7, width: int = 11) -> np.ndarray:
    return np.random.default_rng(0).random((height, width), np.float32)


@pytest.mark.parametrize("size", [(1, 1), (7, 11), (300, 2)])
def test_a_map_comes_back_from_tiff_to_the_bit_in_our_reader_and_in_another(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    anomaly_map = _map(*size)
    write_map_tiff(tmp_path / "a.tiff", anomaly_map)
    np.testing.assert_array_equal(read_map(tmp_path / "a.tiff"), anomaly_map)
    with Image.open(tmp_path / "a.tiff") as picture:
        np.testing.assert_array_equal(np.asarray(picture), anomaly_map)


def test_the_ends_of_a_16_bit_map_are_exact_and_the_rest_is_within_half_a_level(tmp_path: Path) -> None:
    anomaly_map = _map()
    anomaly_map[0, :2] = 0.0, 1.0
    write_map_png16(tmp_path / "a.png", anomaly_map)
    read = read_map(tmp_path / "a.png")
    assert read[0, :2].tolist() == [0.0, 1.0]
    assert np.abs(read - anomaly_map).max() <= 0.5 / 65535 + 1e-7
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode in {"I;16", "I"}


@pytest.mark.parametrize("size", [(1, 1), (7, 11), (300, 2), (2, 70_000)])
def test_a_mask_is_0_and_255_in_one_grey_channel(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = _map(*size) > 0.5
    write_mask(tmp_path / "a.png", mask)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), np.where(mask, 255, 0))


def test_what_goes_to_an_open_file_is_what_goes_to_a_path(tmp_path: Path) -> None:
    anomaly_map, mask = _map(), _map() > 0.5
    tiff, png = io.BytesIO(), io.BytesIO()
    save_map_tiff(tiff, anomaly_map)
    save_mask(png, mask)
    write_map_tiff(tmp_path / "a.tiff", anomaly_map)
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff.getvalue())), read_map(tmp_path / "a.tiff"))
    assert png.getvalue() == (tmp_path / "a.png").read_bytes()


def test_a_jpeg_looks_like_its_picture(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, axis=2).repeat(64, axis=0)
    write_jpeg(tmp_path / "a.jpg", Image.fromarray(ramp))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert np.abs(np.asarray(picture).astype(int) - ramp).max() <= 6


@pytest.mark.parametrize("name", ["a.tiff", "a.png"])
def test_a_map_that_is_missing_or_cut_short_is_refused_by_name_with_a_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ImageError, match=rf"{name}.*run again with --overwrite"):
        read_map(path)
    (write_map_tiff if name.endswith("tiff") else write_map_png16)(path, _map(64, 64))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=name):
        read_map(path)


def test_a_picture_in_colour_is_no_map(tmp_path: Path) -> None:
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"expected an anomaly map \(H, W\), found \(5, 4, 3\)"):
        read_map(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(5, 7), (7, 5), (1, 1)])
def test_empty_masks_are_written_once_for_each_size_and_full_ones_as_they_are(
    size: tuple[int, int], tmp_path: Path
) -> None:
    empty, some = np.zeros(size, bool), np.zeros(size, bool)
    some[-1, -1] = True
    for name, mask in (("first", empty), ("some", some), ("second", empty)):
        write_mask(tmp_path / f"{name}.png", mask)
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), mask * np.uint8(255))
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
