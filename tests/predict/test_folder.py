from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import DataError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.outputs import MapFormat, Outputs
from ad_dinov3.predict.types import Outcome

OPTIONS = DriveOptions(class_name="plate", rule=DecisionRule(0.3), batch_size=4, threads=2)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    draw_part(root / "a" / "x.png", blemish=True)
    draw_part(root / "b" / "x.png")
    draw_part(root / "b" / "x.bmp", blemish=True)
    draw_part(root / "y10.png")
    draw_part(root / "y9.png")
    return root


def score(
    parts: Path,
    out: Path,
    outputs: Outputs | None = None,
    detector: ToyDetector | None = None,
    **settings: object,
) -> FolderSummary:
    options = DriveOptions(**{**vars(OPTIONS), **settings})  # type: ignore[arg-type]
    run = FolderRun(out, "toy", "f1", options, outputs or Outputs(), tables=("csv", "coco"))
    return score_into_folder(find_images([str(parts)]), detector or ToyDetector(), run)


def rows(out: Path) -> dict[str, dict[str, object]]:
    return {row["image"]: row for row in map(json.loads, (out / "results.jsonl").read_text().splitlines())}


def test_every_image_gets_its_own_files_at_its_own_size(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(parts, out)
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    names = ["a/x.png", "b/x.bmp", "b/x.png", "y9.png", "y10.png"]
    for name in names:
        assert {f"overlays/{name}.jpg", f"masks/{name}.png", f"maps/{name}.tiff"} <= written
        assert tifffile.imread(out / f"maps/{name}.tiff").shape == (80, 96)
    assert list(rows(out)) == names
    expected = {"results.jsonl", "results.csv", "coco.json", "report.html", "run.json", ".thumbnails.jsonl"}
    assert {name for name in written if "/" not in name} == expected


def test_tables_agree_with_the_maps_on_disk(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(parts, out)
    coco = json.loads((out / "coco.json").read_text())
    table = {row["image"]: row for row in csv.DictReader((out / "results.csv").open(newline=""))}
    for image in coco["images"]:
        row = rows(out)[image["file_name"]]
        anomaly_map = tifffile.imread(out / str(row["map"]))
        mask = np.asarray(Image.open(out / str(row["mask"]))) == 255
        np.testing.assert_array_equal(mask, anomaly_map >= np.float32(0.3))
        assert (row["anomalous_area_px"], row["decision"] == "anomalous") == (mask.sum(), mask.any())
        mine = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
        assert [one["area"] for one in mine] == [region["area_px"] for region in row["regions"]]
        assert len(mine) == int(table[image["file_name"]]["region_count"]) == int(mask.any())
        for one in mine:
            x, y, width, height = one["bbox"]
            assert mask[y : y + height, x : x + width].sum() == one["area"] == mask.sum()
            assert one["score"] == pytest.approx(float(anomaly_map.max()), abs=1e-6)


def test_a_second_run_skips_what_is_done_and_tries_failures_again(parts: Path, tmp_path: Path) -> None:
    (parts / "bad.png").write_text("no")
    out = tmp_path / "out"
    assert score(parts, out).run.exit_code == 3
    stamp = (out / "maps/y9.png.tiff").stat().st_mtime_ns
    second = score(parts, out)
    assert (second.skipped, second.run.scored, len(second.run.failures)) == (5, 0, 1)
    assert (out / "maps/y9.png.tiff").stat().st_mtime_ns == stamp
    assert len(rows(out)) == 6
    draw_part(parts / "bad.png")
    assert (score(parts, out).run.scored, rows(out)["bad.png"]["decision"]) == (1, "normal")


@pytest.mark.parametrize("change", ["file", "deleted map", "other map format", "class"])
def test_a_second_run_does_again_what_has_changed(parts: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    score(parts, out)
    again = ToyDetector()
    if change == "class":
        score(parts, out, detector=again, class_name="tile")
    elif change == "other map format":
        score(parts, out, Outputs(maps="png16"), again)
    else:
        if change == "file":
            draw_part(parts / "y9.png", size=(40, 44))
            os.utime(parts / "y9.png", ns=(1, 1))
        else:
            (out / "maps/y9.png.tiff").unlink()
        assert (score(parts, out, detector=again).run.scored, (out / "maps/y9.png.tiff").is_file()) == (1, True)
    assert sum(again.batches) == (1 if change in {"file", "deleted map"} else 5)


@pytest.mark.parametrize("maps", ["tiff", "png16"])
def test_another_threshold_decides_on_the_stored_maps_without_the_model(
    parts: Path, tmp_path: Path, maps: MapFormat
) -> None:
    outputs, idle = Outputs(maps=maps), ToyDetector()
    score(parts, tmp_path / "again", outputs)
    summary = score(parts, tmp_path / "again", outputs, idle, rule=DecisionRule(0.9))
    assert (idle.batches, summary.run.scored, summary.redecided, summary.skipped) == ([], 5, 5, 0)
    score(parts, tmp_path / "fresh", outputs, rule=DecisionRule(0.9))
    again, fresh = (rows(tmp_path / place)["a/x.png"] for place in ("again", "fresh"))
    assert {**again, "seconds": 0} == {**fresh, "seconds": 0}
    assert again["decision"] == "normal"
    for name in ("masks/b/x.bmp.png", "coco.json", *["overlays/b/x.bmp.jpg"] * (maps == "tiff")):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    thumbnails = [(tmp_path / place / ".thumbnails.jsonl").read_bytes() for place in ("again", "fresh")]
    assert thumbnails[0] == thumbnails[1]


def test_without_maps_on_disk_another_threshold_scores_again(parts: Path, tmp_path: Path) -> None:
    outputs, again = Outputs(maps="none"), ToyDetector()
    score(parts, tmp_path / "out", outputs)
    score(parts, tmp_path / "out", outputs, again, rule=DecisionRule(0.9))
    assert sum(again.batches) == 5


def test_a_deleted_mask_is_made_anew_from_the_map(parts: Path, tmp_path: Path) -> None:
    score(parts, tmp_path / "out")
    before = (tmp_path / "out/masks/a/x.png.png").read_bytes()
    (tmp_path / "out/masks/a/x.png.png").unlink()
    idle = ToyDetector()
    assert score(parts, tmp_path / "out", detector=idle).run.scored == 1
    assert (idle.batches, (tmp_path / "out/masks/a/x.png.png").read_bytes()) == ([], before)


def test_a_damaged_map_is_named_and_the_rest_is_decided(parts: Path, tmp_path: Path) -> None:
    score(parts, tmp_path / "out")
    (tmp_path / "out/maps/a/x.png.tiff").write_bytes(b"no tiff")
    summary = score(parts, tmp_path / "out", rule=DecisionRule(0.9))
    assert [failure.item.name for failure in summary.run.failures] == ["a/x.png"]
    assert "--overwrite" in summary.run.failures[0].reason
    assert summary.run.scored == 4


def test_a_run_killed_within_a_line_goes_on_after_the_last_whole_one(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(parts, out)
    whole = (out / "results.jsonl").read_bytes()
    cut = whole.splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join(cut[:3]) + cut[3][:40])
    summary = score(parts, out)
    assert (summary.skipped, summary.run.scored) == (3, 2)
    without_times = [{**row, "seconds": 0} for row in rows(out).values()]
    assert without_times == [{**json.loads(line), "seconds": 0} for line in whole.splitlines()]


def test_overwrite_forgets_earlier_runs(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(parts, out)
    (parts / "y9.png").unlink()
    run = FolderRun(out, "toy", "f1", OPTIONS, overwrite=True)
    assert score_into_folder(find_images([str(parts)]), ToyDetector(), run).run.scored == 4
    assert "y9.png" not in rows(out)


def test_results_of_another_program_are_not_rewritten(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(DataError, match=r"results\.jsonl: line 1"):
        score(parts, out)
    assert (out / "results.jsonl").read_text() == '{"mine": 1}\n'


def test_an_output_folder_inside_the_source_is_not_scored_itself(parts: Path) -> None:
    score(parts, parts / "out")
    assert score(parts, parts / "out").skipped == 5
    assert len(rows(parts / "out")) == 5


def test_progress_hears_of_each_image_once(parts: Path, tmp_path: Path) -> None:
    heard: list[Outcome] = []
    run = FolderRun(tmp_path / "out", "toy", "f1", OPTIONS)
    for _ in range(2):
        score_into_folder(find_images([str(parts)]), ToyDetector(), run, heard.append)
    assert [(outcome.item.name, outcome.is_new) for outcome in heard] == [
        (name, is_new) for is_new in (True, False) for name in ("a/x.png", "b/x.bmp", "b/x.png", "y9.png", "y10.png")
    ]
    assert [outcome.decision for outcome in heard[:5]] == [outcome.decision for outcome in heard[5:]]


def test_the_report_shows_worst_first_and_escapes_names(parts: Path, tmp_path: Path) -> None:
    draw_part(parts / "<img src=x onerror=alert(1)>.png")
    (parts / "broken&.png").write_text("no")
    out = tmp_path / "out"
    score(parts, out)
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "broken&amp;.png" in page
    assert page.index('title="a/x.png"') < page.index('title="y10.png"')
