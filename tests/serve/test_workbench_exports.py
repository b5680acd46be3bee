"""Reviewed labels as other tools read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from bench_service import THRESHOLD
from PIL import Image

from ad_dinov3.data.normals import find_class_normals
from ad_dinov3.errors import ConfigError, ImageError
from ad_dinov3.infer.decide import find_regions, smallest_region_px, threshold_mask
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.serve.workbench.bench import Bench


@pytest.fixture
def bench(scored: Path) -> Bench:
    made = Bench(scored, "parts")
    made.store.add_review("review-0001", "crack/0.png", "ok")
    made.store.add_review("review-0002", "good/0.png", "ng")
    made.store.add_review("review-0003", "crack/2.png", "skip")
    return made


def row_of(bench: Bench, name: str) -> Row:
    return next(row for row in read_rows(bench.results.folder) if row.image == name)


def test_the_table_says_what_who_said_and_what_was_decided(bench: Bench) -> None:
    folder, count = bench.export()
    with (folder / "labels.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert count == len(rows) == 5
    assert {name: (row["label"], row["by"], row["decision"]) for name, row in rows.items()} == {
        "crack/0.png": ("ok", "review", "anomalous"),
        "crack/1.png": ("ng", "folder", "anomalous"),
        "good/0.png": ("ng", "review", "normal"),
        "good/1.png": ("ok", "folder", "normal"),
        "good/2.png": ("ok", "folder", "normal"),
    }


def test_coco_and_label_studio_have_the_regions_of_defects_only(bench: Bench) -> None:
    folder, _ = bench.export()
    row = row_of(bench, "crack/1.png")
    assert row.map is not None
    regions = find_regions(read_map(bench.results.folder / row.map), THRESHOLD, smallest_region_px(row.grid, (80, 97)))
    coco = json.loads((folder / "coco.json").read_text())
    assert len(coco["images"]) == 5
    assert [one["area"] for one in coco["annotations"]] == [region.area_px for region in regions]
    tasks = {Path(task["data"]["image"]).parent.name + Path(task["data"]["image"]).name: task
             for task in json.loads((folder / "label_studio.json").read_text())}  # fmt: skip
    points = tasks["crack1.png"]["predictions"][0]["result"][0]["value"]["points"]
    np.testing.assert_allclose(np.array(points) * (97, 80) / 100, regions[0].polygon)
    assert tasks["crack1.png"]["annotations"] == []
    assert tasks["crack0.png"]["annotations"][0]["result"][0]["value"] == {"choices": ["normal"]}
    assert tasks["crack0.png"]["predictions"][0]["result"] == []


def test_the_data_set_has_masks_and_good_images_that_calibrate_takes(bench: Bench) -> None:
    folder, _ = bench.export()
    home = folder / "mvtec" / "part"
    row = row_of(bench, "crack/1.png")
    assert row.map is not None
    mask = np.asarray(Image.open(home / "ground_truth" / "defect" / "crack__1_mask.png"))
    expected = threshold_mask(
        read_map(bench.results.folder / row.map), THRESHOLD, smallest_region_px(row.grid, (80, 97))
    )
    np.testing.assert_array_equal(mask > 0, expected)
    good = find_class_normals(home / "test" / "good")
    assert [path.name for path in good["object"]] == ["crack__0.png", "good__1.png", "good__2.png"]


def test_a_second_export_replaces_the_first(bench: Bench) -> None:
    bench.export()
    bench.store.add_review("review-0004", "crack/1.png", "skip")
    folder, count = bench.export()
    assert count == 4
    assert not (folder / "mvtec" / "part" / "test" / "defect" / "crack__1.png").exists()


def test_without_labels_or_files_nothing_is_written(bench: Bench, parts_folder: Path) -> None:
    bench.export()
    (parts_folder / "good" / "1.png").unlink()
    with pytest.raises(ImageError, match="the file is gone"):
        bench.export()
    assert (bench.results.folder / "reviewed" / "labels.csv").is_file()  # the earlier one is still there
    for number, name in enumerate(bench.results.rows):
        bench.store.add_review(f"skipped-{number:04d}", name, "skip")
    with pytest.raises(ConfigError, match="no image has a label"):
        bench.export()
