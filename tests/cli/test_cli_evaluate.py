"""evaluate as a person meets it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ad_dinov3.bench.rows import read_metric_rows
from ad_dinov3.cli.evaluate import app
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.files import file_hash, held

QUICK = ["--method", "mahalanobis", "--batch-size", "4"]


def test_evaluate_prints_each_class_the_mean_and_the_pooled_set(
    data_root: Path, tmp_path: Path, runner: CliRunner
) -> None:
    options = ["--data", str(data_root), "--out", str(tmp_path / "r"), "--curves", "--save-maps", *QUICK]
    shown = runner.invoke(app, options, catch_exceptions=False).output
    assert re.search(r"metal_nut +8 ", shown)
    assert re.search(r"tissue +4 .*n/a", shown)
    assert re.search(r"mean +12 ", shown)
    assert re.search(r"pooled +12 ", shown)
    assert len(list((tmp_path / "r" / "maps").rglob("*.png"))) == 12
    assert len(list((tmp_path / "r" / "curves").rglob("*.svg"))) == 5


def test_limit_takes_images_evenly_from_both_ends(data_root: Path, tmp_path: Path, runner: CliRunner) -> None:
    options = ["--data", str(data_root), "--out", str(tmp_path / "r"), "--limit", "6", *QUICK]
    runner.invoke(app, options, catch_exceptions=False)
    assert {row.class_name for row in read_metric_rows(tmp_path / "r") if row.scope == "class"} == {
        "metal_nut",
        "tissue",
    }


def test_shards_are_scored_apart_and_measured_together(data_root: Path, tmp_path: Path, runner: CliRunner) -> None:
    base = ["--data", str(data_root), "--out", str(tmp_path / "r"), *QUICK]
    for shard in ("0/2", "1/2"):
        assert "is scored" in runner.invoke(app, [*base, "--shard", shard], catch_exceptions=False).output
    assert not (tmp_path / "r" / "rows.jsonl").exists()
    runner.invoke(app, base, catch_exceptions=False)
    assert read_metric_rows(tmp_path / "r")[0].images == 8
    with pytest.raises(ConfigError, match="I < N"):
        runner.invoke(app, [*base, "--shard", "2/2"], catch_exceptions=False)


def test_a_second_run_into_a_folder_is_refused_and_shards_let_each_other_in(
    data_root: Path, tmp_path: Path, runner: CliRunner
) -> None:
    base = ["--data", str(data_root), "--out", str(tmp_path / "r"), *QUICK]
    with held(tmp_path / "r"), pytest.raises(ConfigError, match="another run is writing there"):
        runner.invoke(app, base, catch_exceptions=False)
    with held(tmp_path / "r", shared=True):
        assert "is scored" in runner.invoke(app, [*base, "--shard", "0/2"], catch_exceptions=False).output
        with pytest.raises(ConfigError, match="another run is writing there"):
            runner.invoke(app, base, catch_exceptions=False)


def test_a_set_compared_with_itself_is_measured_and_the_rows_say_so(
    data_root: Path, tmp_path: Path, runner: CliRunner
) -> None:
    options = ["--data", str(data_root), "--out", str(tmp_path / "r"), "--compare", "folder", "--offline"]
    shown = runner.invoke(app, options, catch_exceptions=False).output
    assert "8 images compared with each other; the threshold is a robust guess, with no promise" in shown
    assert {row.model for row in read_metric_rows(tmp_path / "r")} == {
        "embedded comparing the 12 images with each other"
    }


def knowing(folder: Path, sets: list[str], images: list[Path]) -> list[str]:
    """The options for a model folder that says what it has seen; nothing else of it is there."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"trained_on": sets, "encoder": "nano"}))
    (folder / "training_images.txt").write_text("\n".join(map(file_hash, images)))
    return ["--model", str(folder)]


def test_what_cannot_be_measured_is_refused_before_torch_is_loaded(
    data_root: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    data, out = ("--data", str(data_root)), ("--out", str(tmp_path / "r"))
    assert "no method 'patchcore'; there are ad_dinov3" in refused("evaluate", *data, *out, "--method", "patchcore")
    assert "no protocol 'papper'" in refused("evaluate", *data, *out, "--protocol", "papper")
    assert "expected a folder, a manifest" in refused("evaluate", "--data", "gone", *out)
    assert "no such model" in refused("evaluate", *data, *out, "--model", str(tmp_path / "gone"))
    assert "I < N" in refused("evaluate", *data, *out, "--shard", "2/2")
    assert "one process sees all" in refused("evaluate", *data, *out, "--compare", "folder", "--shard", "0/2")
    assert "no tokens" in refused("evaluate", *data, *out, "--compare", "folder", "--method", "adaclip")
    assert "no such folder of normal images" in refused("evaluate", *data, *out, "--normals", "gone")
    for name in ("metal_nut", "tissue"):
        (tmp_path / "normals" / name).mkdir(parents=True)
        (tmp_path / "normals" / name / "1.png").write_bytes(b"no picture")
    assert "1.png" in refused("evaluate", *data, *out, "--normals", str(tmp_path / "normals"))
    assert not (tmp_path / "r").exists()


def test_seen_data_are_refused_before_torch_is_loaded(
    data_root: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    common = ("evaluate", "--data", str(data_root), "--out", str(tmp_path / "r"))
    by_name = refused(*common, *knowing(tmp_path / "a", ["visa", "Toy"], []))
    assert re.search(r"a was trained on toy, and on visa; .*--seen-too", by_name)
    seen = data_root / "tissue" / "test" / "lesion" / "020.png"
    by_image = refused(*common, *knowing(tmp_path / "b", ["visa"], [seen]))
    assert "1 images of toy are among the training or normal images" in by_image
    assert "020.png" in by_image
    shutil.copytree(data_root, tmp_path / "mtd")
    shipped = ("evaluate", "--data", str(tmp_path / "mtd"), "--out", str(tmp_path / "r"))
    assert "error: embedded was trained on mtd" in refused(*shipped)
    plain = (*shipped, "--method", "dinov3_plain", "--weights", "nano")
    assert "the encoder of nano was trained on mtd" in refused(*plain)


def test_seen_data_are_measured_on_request_and_every_row_and_table_says_so(
    data_root: Path, tmp_path: Path, runner: CliRunner
) -> None:
    mtd = data_root.rename(tmp_path / "mtd")
    options = ["--data", str(mtd), "--out", str(tmp_path / "r"), "--offline", "--method", "dinov3_plain"]
    with pytest.raises(DataError, match="was trained on mtd"):
        runner.invoke(app, [*options, "--weights", "nano"], catch_exceptions=False)
    shown = runner.invoke(app, [*options, "--weights", "nano", "--seen-too"], catch_exceptions=False).output
    assert "SEEN DATA, not zero-shot: the encoder of nano was trained on mtd" in " ".join(shown.split())
    assert {row.seen for row in read_metric_rows(tmp_path / "r")} == {True}
