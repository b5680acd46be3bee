"""Manifests and meta.json: read, written, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from official_trees import draw, mvtec_ad, real_iad, write_mask

from ad_dinov3.data.catalog import open_data, read_data
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.data.manifest import read_manifest, read_meta, write_meta
from ad_dinov3.errors import DataError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for index, name in enumerate(("a.png", "b.png", "sub/c.png")):
        write_mask(tmp_path / "masks" / f"{index}.png", draw(tmp_path / name, index))
    return tmp_path


ROWS = [
    {"image": "a.png", "mask": "", "class": "nut", "label": "good"},
    {"image": "b.png", "mask": "masks/1.png", "class": "nut", "label": "dent"},
    {"image": "sub/c.png", "mask": "masks/2.png", "class": "bolt", "label": "1"},
]


def written(folder: Path, suffix: str, rows: list[dict[str, str]]) -> Path:
    path = folder / f"list{suffix}"
    if suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), path)
        return path
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_manifest_rows_become_samples(files: Path, suffix: str) -> None:
    samples = read_data(str(written(files, suffix, ROWS)))
    assert [(s.class_name, s.is_anomalous, s.defect) for s in samples] == [
        ("nut", False, "good"),
        ("nut", True, "dent"),
        ("bolt", True, "anomaly"),
    ]
    assert samples[0].mask_path is None
    assert samples[2].mask_path == files / "masks" / "2.png"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_without_a_label_the_mask_decides_and_the_class_is_object(files: Path, suffix: str) -> None:
    rows = [{"image": "a.png", "mask": ""}, {"image": "b.png", "mask": "masks/1.png"}]
    samples = read_data(str(written(files, suffix, rows)))
    assert [sample.is_anomalous for sample in samples] == [False, True]
    assert {sample.class_name for sample in samples} == {"object"}


def test_the_mask_of_an_image_labelled_normal_is_not_used(files: Path) -> None:
    rows = [{"image": "a.png", "mask": "masks/0.png", "label": "0"}]
    (sample,) = read_data(str(written(files, ".csv", rows)))
    assert sample.mask_path is None


def test_rows_whose_files_are_missing_are_problems_that_name_both(files: Path) -> None:
    rows = [
        {"image": "gone.png", "mask": "masks/0.png", "label": "1"},
        {"image": "b.png", "mask": "masks/gone.png", "label": "1"},
        {"image": "sub/c.png", "mask": "", "label": "crack"},
    ]
    listing = open_data(str(written(files, ".csv", rows))).listing
    assert not listing.samples
    assert "gone.png" in listing.problems[0]
    assert "b.png" in listing.problems[1]
    assert "masks/gone.png" in listing.problems[1]
    with pytest.raises(DataError, match="3 images do not fit"):
        listing.complete()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "image,label,colour\na.png,0,red\n", "row 1: .*unknown colour"),
        ("x.csv", "mask,label\nm.png,0\n", "row 1: .*no image"),
        ("x.csv", "image,label\n", "no rows"),
        ("x.jsonl", '{"image": "a.png"}\n{broken\n', "not JSON"),
        ("x.jsonl", "[1]\n", "expected a JSON object, got list"),
        ("x.json", '{"train": {}}', '"test"'),
        ("x.json", '{"test": {"nut": [{"anomaly": 1}]}}', "img_path"),
        ("x.txt", "a.png\n", "expected a manifest named"),
    ],
)
def test_other_contents_are_refused_with_what_was_expected(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / name)


def test_meta_json_round_trips_and_holds_relative_paths(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    samples = read_folder(tmp_path)
    write_meta(samples, tmp_path / "meta.json")
    assert read_meta(tmp_path / "meta.json").complete() == samples
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content["train"] == {}
    assert content["test"]["bottle"][0] == {
        "img_path": "bottle/test/bent/000.png",
        "mask_path": "bottle/ground_truth/bent/000_mask.png",
        "cls_name": "bottle",
        "specie_name": "bent",
        "anomaly": 1,
    }


def test_a_folder_that_holds_only_a_meta_json_is_read_by_it(tmp_path: Path) -> None:
    mvtec_ad(tmp_path / "elsewhere")
    samples = read_folder(tmp_path / "elsewhere")
    (tmp_path / "packed").mkdir()
    write_meta(samples, tmp_path / "packed" / "meta.json")
    assert [s.image_path.resolve() for s in read_data(str(tmp_path / "packed"))] == [s.image_path for s in samples]


def test_real_iad_takes_the_largest_images_and_refuses_other_json(tmp_path: Path) -> None:
    real_iad(tmp_path)
    (tmp_path / "realiad_512").mkdir()
    assert all("realiad_1024" in str(sample.image_path) for sample in read_data(f"real_iad={tmp_path}"))
    (tmp_path / "realiad_jsons" / "realiad_jsons" / "usb.json").write_text("{}")
    with pytest.raises(DataError, match=r"usb\.json: expected"):
        read_data(f"real_iad={tmp_path}")
