"""What folder names say of their images, and data sets that have labels and no masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from official_trees import draw, write_mask

from ad_dinov3.data.catalog import open_data
from ad_dinov3.data.labels import Confusion, confusion, folder_labels, label_of
from ad_dinov3.data.layouts import list_folder
from ad_dinov3.data.masks import load_mask, pair_problem
from ad_dinov3.data.verify import contact_sheet
from ad_dinov3.errors import DataError


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("good", "OK", "Normal"), False),
        (("bad", "NG", "ko", "defect", "Defective", "defects_2024", "anomaly", "anomalous", "abnormal"), True),
        (("crack", "test", "goods", "broken_good", "images", ""), None),
    ],
)
def test_a_name_alone_says_normal_anomalous_or_nothing(names: tuple[str, ...], label: bool | None) -> None:
    assert [label_of(name) for name in names] == [label] * len(names)


def test_beside_normal_images_every_other_folder_is_a_kind_of_defect() -> None:
    lab, shelf = Path("lab"), Path("shelf")
    folders = [lab / "good", lab / "crack", lab / "ground_truth", shelf / "crack", shelf / "ng"]
    assert folder_labels(folders) == {lab / "good": False, lab / "crack": True, shelf / "ng": True}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for number in range(3):
        draw(tmp_path / "lab" / "good" / f"{number}.jpg", number)
        draw(tmp_path / "lab" / "crack" / f"{number}.jpg", 10 + number)
    return tmp_path / "lab"


@pytest.mark.parametrize("shape", ["flat", "with a test folder", "two classes"])
def test_folders_named_by_label_are_a_data_set_without_masks(lab: Path, shape: str) -> None:
    if shape == "with a test folder":
        for name in ("good", "crack"):
            (lab / "test").mkdir(exist_ok=True)
            (lab / name).rename(lab / "test" / name)
    root = lab.parent if shape == "two classes" else lab
    if shape == "two classes":
        draw(root / "cable" / "ng" / "1.png", 30)
    listing = list_folder(root)
    found = [(s.class_name, s.defect, s.is_anomalous) for s in listing.samples if s.class_name == "lab"]
    assert found == [("lab", "crack", True)] * 3 + [("lab", "good", False)] * 3
    assert listing.problems == ()
    assert {sample.class_name for sample in listing.samples} == ({"lab", "cable"} if root != lab else {"lab"})
    assert [s.image_path.parent.name for s in listing.without_masks] == ["ng"] * (root != lab) + ["crack"] * 3


def test_masks_beside_labelled_folders_are_used_and_a_missing_one_is_a_problem(lab: Path) -> None:
    for number in range(2):
        write_mask(lab / "ground_truth" / "crack" / f"{number}.png", np.ones((24, 36), np.bool_))
    listing = list_folder(lab)
    assert [sample.mask_path is not None for sample in listing.samples] == [True, True, False, False, False]
    assert listing.without_masks == []
    assert "2.jpg: no mask" in listing.problems[0]


def test_an_anomalous_image_without_a_mask_is_never_taken_for_one_without_a_defect(lab: Path) -> None:
    listing = list_folder(lab)
    with pytest.raises(DataError, match="anomalous, and there is no mask"):
        load_mask(listing.without_masks[0], (8, 8))
    with pytest.raises(DataError, match=r"masks are needed here, and 3 anomalous images have none, such as .*0\.jpg"):
        listing.complete()
    assert pair_problem(listing.without_masks[0]) is None
    listing.without_masks[0].image_path.write_bytes(b"")
    assert "empty" in str(pair_problem(listing.without_masks[0]))


def test_a_set_of_the_catalog_still_needs_its_masks(lab: Path) -> None:
    listing = open_data(f"mvtec_ad={lab}").listing
    assert [sample.is_anomalous for sample in listing.samples] == [False] * 3
    assert len(listing.problems) == 3


def test_the_sheet_of_examples_shows_images_without_masks(lab: Path) -> None:
    sheet = contact_sheet(open_data(str(lab)))
    tile = sheet[20:140, 180:320]
    assert len(np.unique(tile.reshape(-1, 3), axis=0)) > 20  # a picture, not the word unreadable on grey


def test_decisions_are_counted_against_folder_names_and_unnamed_folders_left_out() -> None:
    good, crack, other = Path("lab/good"), Path("lab/crack"), Path("photos")
    decisions = [(good, False)] * 5 + [(good, True)] * 2 + [(crack, True)] * 3 + [(crack, False), (other, True)]
    counts = confusion(decisions)
    assert counts == Confusion(true_positives=3, false_negatives=1, false_positives=2, true_negatives=5)
    assert "3 of 4 anomalous images were called anomalous (TP 3, FN 1)" in str(counts)
    assert "2 of 7 normal ones (FP 2, TN 5)" in str(counts)
    assert str(confusion(decisions[:7])) == "2 of 7 normal images were called anomalous (FP 2, TN 5)"
    only_anomalous = str(confusion([(Path("lab/defect"), True)] * 2))
    assert only_anomalous == "2 of 2 anomalous images were called anomalous (TP 2, FN 0)"
    assert confusion(decisions[-3:]) is None  # crack alone says nothing
    assert confusion([]) is None
