"""Folders -> samples: pairing by name, and what is said when something does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from official_trees import colondb, draw, mvtec_ad, write_mask
from PIL import Image

from ad_dinov3.data.layouts import list_folder, read_folder
from ad_dinov3.data.masks import load_mask, pair_problem, resize_mask
from ad_dinov3.data.pairing import natural_key, pair_by_name
from ad_dinov3.errors import DataError, ImageError
from ad_dinov3.types import Sample

DATA = Path(os.environ.get("AD_DINOV3_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def test_samples_come_by_class_defect_and_natural_order(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    samples = read_folder(tmp_path)
    assert [sample.class_name for sample in samples] == ["bottle"] * 8 + ["metal_nut"] * 8
    assert [(s.defect, s.image_path.stem) for s in samples[:5]] == [
        ("bent", "000"),
        ("bent", "001"),
        ("bent", "010"),
        ("good", "000"),
        ("good", "001"),
    ]


def test_one_class_is_a_data_set(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    samples = read_folder(tmp_path / "bottle")
    assert len(samples) == 8
    assert {sample.class_name for sample in samples} == {"bottle"}


def test_normal_folders_may_be_called_ok_or_normal(tmp_path: Path) -> None:
    for index, name in enumerate(("ok", "Normal", "good")):
        draw(tmp_path / "part" / "test" / name / "1.png", index)
    assert not any(sample.is_anomalous for sample in read_folder(tmp_path))


def test_a_missing_mask_is_an_error_that_names_both_paths_and_shifts_no_other(tmp_path: Path) -> None:
    truth = mvtec_ad(tmp_path)
    gone = tmp_path / "bottle" / "ground_truth" / "bent" / "000_mask.png"
    gone.unlink()
    with pytest.raises(DataError) as caught:
        read_folder(tmp_path)
    assert str(tmp_path / "bottle" / "test" / "bent" / "000.png") in str(caught.value)
    assert str(gone.parent) in str(caught.value)
    assert gone.name in str(caught.value)
    listing = list_folder(tmp_path)
    assert len(listing.problems) == 1
    for sample in listing.samples:
        if sample.is_anomalous:
            np.testing.assert_array_equal(load_mask(sample), truth[sample.image_path])


def test_two_masks_of_one_name_and_one_mask_of_two_images_are_problems(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    masks = tmp_path / "bottle" / "ground_truth" / "bent"
    write_mask(masks / "000.bmp", np.zeros((24, 36), np.bool_))
    draw(tmp_path / "bottle" / "test" / "scratch" / "000.jpg", 4)
    problems = list_folder(tmp_path).problems
    assert len(problems) == 2
    assert "2 masks (000.bmp, 000_mask.png)" in problems[0]
    assert "is also that of" in problems[1]


def test_masks_without_an_image_are_listed(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    (tmp_path / "bottle" / "test" / "bent" / "010.png").unlink()
    listing = list_folder(tmp_path)
    assert listing.orphans == (tmp_path / "bottle" / "ground_truth" / "bent" / "010_mask.png",)
    assert not listing.problems


def test_a_folder_of_another_shape_says_what_was_expected_and_found(tmp_path: Path) -> None:
    colondb(tmp_path)
    with pytest.raises(DataError, match=r"<class>/test/<defect>/.*found images, masks"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match=r"No such file|does not exist"):
        read_folder(tmp_path / "gone")


def test_pairing_ignores_suffixes_and_endings_but_not_names() -> None:
    folder = Path("masks")
    images = [Path("a/1.bmp"), Path("a/x_2.jpg"), Path("a/3_mask.png"), Path("a/4.png")]
    masks = [Path("masks/1.png"), Path("masks/x_2_Segmentation.png"), Path("masks/3_mask_gt.png"), Path("masks/40.png")]
    pairing = pair_by_name(images, masks, folder)
    assert pairing.pairs == {images[0]: masks[0], images[1]: masks[1], images[2]: masks[2]}
    assert len(pairing.problems) == 1
    assert pairing.orphans == (masks[3],)


def test_natural_order_counts_numbers_and_ignores_case() -> None:
    assert sorted(["b10", "B9", "a", "10", "9"], key=natural_key) == ["9", "10", "a", "B9", "b10"]


def pair(tmp_path: Path, mask_shape: tuple[int, int], above: int | None = None) -> Sample:
    Image.new("RGB", (36, 24)).save(tmp_path / "x.png")
    write_mask(tmp_path / "x_mask.png", np.ones(mask_shape, np.bool_), value=100)
    return Sample(tmp_path / "x.png", tmp_path / "x_mask.png", "part", True, "dent", above)


def test_a_mask_of_another_size_is_refused_with_both_names_and_sizes(tmp_path: Path) -> None:
    sample = pair(tmp_path, (24, 35))
    for message in (r"x_mask\.png does not belong to .*x\.png", "35 x 24 px and the image 36 x 24"):
        with pytest.raises(DataError, match=message):
            load_mask(sample)
    assert "does not belong" in str(pair_problem(sample))


def test_an_unreadable_mask_is_an_error_that_names_both(tmp_path: Path) -> None:
    sample = pair(tmp_path, (24, 36))
    (tmp_path / "x_mask.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"x_mask\.png: the file is empty.*image .*x\.png"):
        load_mask(sample)


def test_the_samples_mask_rule_is_obeyed(tmp_path: Path) -> None:
    assert load_mask(pair(tmp_path, (24, 36))).all()
    assert not load_mask(pair(tmp_path, (24, 36), above=127)).any()


def test_an_exif_turned_image_has_the_size_of_its_upright_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 36)).save(tmp_path / "x.jpg", exif=exif)
    write_mask(tmp_path / "x.png", np.ones((24, 36), np.bool_))
    assert load_mask(Sample(tmp_path / "x.jpg", tmp_path / "x.png", "part", True, "dent")).shape == (24, 36)


def test_a_normal_image_has_an_empty_mask_of_its_size(tmp_path: Path) -> None:
    pair(tmp_path, (24, 36))
    normal = Sample(tmp_path / "x.png", None, "part", False)
    assert load_mask(normal).shape == (24, 36)
    assert not load_mask(normal, (7, 9)).any()
    with pytest.raises(ImageError, match="no such file"):
        load_mask(Sample(tmp_path / "gone.png", None, "part", False))


def test_resizing_a_mask_keeps_the_share_of_thin_lines() -> None:
    mask = np.zeros((96, 96), np.bool_)
    mask[:, ::8] = True
    assert abs(resize_mask(mask, (32, 32)).mean() - mask.mean()) < 0.05
    assert resize_mask(mask, (192, 96))[::2].tolist() == mask.tolist()


def test_an_empty_mask_of_an_anomalous_image_is_a_problem(tmp_path: Path) -> None:
    assert "empty" in str(pair_problem(pair(tmp_path, (24, 36), above=200)))
    assert pair_problem(pair(tmp_path, (24, 36))) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not on this machine")
@pytest.mark.parametrize(
    ("name", "normal", "anomalous"),
    [("mtd", 952, 388), ("bsdata", 300, 394), ("aws_cookies", 31, 32), ("busi", 133, 647), ("crackforest", 0, 118)],
)
def test_real_folders_have_their_published_counts_and_fitting_pairs(name: str, normal: int, anomalous: int) -> None:
    samples = read_folder(DATA / name)
    labels = [sample.is_anomalous for sample in samples]
    assert (labels.count(False), labels.count(True)) == (normal, anomalous)
    assert [pair_problem(sample) for sample in samples[::60]] == [None] * len(samples[::60])
