"""A folder of normal images: one class's own, or a sub-folder for each class."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ad_dinov3.data.normals import find_normals
from ad_dinov3.errors import ConfigError


def _images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)


def test_every_sub_folder_is_a_class_and_its_images_come_in_natural_order(tmp_path: Path) -> None:
    _images(tmp_path / "nut", "10.png", "9.png")
    _images(tmp_path / "bolt" / "day 1", "a.png")
    _images(tmp_path / ".hidden", "b.png")
    found = find_normals(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "bolt": ["a.png"],
        "nut": ["9.png", "10.png"],
    }


def test_a_single_class_may_lie_in_the_folder_itself_or_in_its_sub_folder(tmp_path: Path) -> None:
    _images(tmp_path / "flat", "a.png")
    assert list(find_normals(tmp_path / "flat", ["nut"])) == ["nut"]
    _images(tmp_path / "deep" / "nut", "b.png")
    _images(tmp_path / "deep" / "bolt", "c.png")
    assert [path.name for path in find_normals(tmp_path / "deep", ["nut"])["nut"]] == ["b.png"]


def test_of_several_classes_each_needs_a_sub_folder(tmp_path: Path) -> None:
    _images(tmp_path / "nut", "a.png")
    with pytest.raises(ConfigError, match="there is none for bolt, screw"):
        find_normals(tmp_path, ["screw", "nut", "bolt"])


def test_what_holds_no_images_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent: no such folder"):
        find_normals(tmp_path / "absent")
    with pytest.raises(ConfigError, match="a sub-folder of normal images for each class, or one class's name"):
        find_normals(tmp_path)
    (tmp_path / "nut").mkdir()
    (tmp_path / "nut" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no normal images in .*nut"):
        find_normals(tmp_path)
