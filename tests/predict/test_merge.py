from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import DataError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.merge import MergeSummary, merge_shards
from ad_dinov3.predict.results import read_rows
from ad_dinov3.predict.shards import ALL, Shard

COUNT = 3


def score(parts: Path, out: Path, shard: Shard = ALL, threshold: float = 0.3, stop_after: int = 99) -> None:
    folder = shard.folder(out) if shard.count > 1 else out
    run = FolderRun(folder, "toy", "f1", DriveOptions(rule=DecisionRule(threshold)), shard=shard)
    items = [item for item in find_images([str(parts)]) if shard.holds(item.name)]
    done: list[object] = []
    score_into_folder(items, ToyDetector(), run, done.append, lambda: len(done) >= stop_after)


def plain(out: Path) -> list[dict[str, object]]:
    """Rows without seconds and without the shard's folder before the names of files."""

    def bare(name: str | None) -> str | None:
        return name and name[name.index("/") + 1 :] if name and name.startswith("shard-") else name

    rows = (replace(row, overlay=bare(row.overlay), map=bare(row.map), mask=bare(row.mask)) for row in read_rows(out))
    return [{**asdict(row), "seconds": 0} for row in rows]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for index in range(12):
        draw_part(tmp_path / "parts" / f"{index % 3}" / f"{index}.png", blemish=index % 4 == 0)
    (tmp_path / "parts" / "bad.png").write_bytes(b"no")
    return tmp_path / "parts"


@pytest.fixture
def shards(parts: Path, tmp_path: Path) -> Path:
    for index in range(COUNT):
        score(parts, tmp_path / "out", Shard(index, COUNT))
    return tmp_path / "out"


def test_merged_shards_equal_one_run_row_for_row_and_table_for_table(parts: Path, shards: Path, tmp_path: Path) -> None:
    score(parts, tmp_path / "one")
    assert merge_shards([shards], shards, ("csv", "coco")) == MergeSummary(3, 9, 1, ())
    assert plain(shards) == plain(tmp_path / "one")
    for row in read_rows(shards):
        for name in (row.overlay, row.map, row.mask):
            assert name is None or (shards / name).is_file()
    images = json.loads((shards / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [
        row.image for row in read_rows(tmp_path / "one") if row.score is not None
    ]
    page = (shards / "report.html").read_text()
    assert page.count("data:image/jpeg") == (tmp_path / "one" / "report.html").read_text().count("data:image/jpeg") > 0
    assert json.loads((shards / "run.json").read_text())["images"] == 13


def test_merge_elsewhere_points_to_the_files_where_they_are(shards: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "joint"
    target.mkdir(parents=True)
    merge_shards([shards / name.name for name in sorted(shards.iterdir())], target)
    assert all((target / row.map).resolve().is_file() for row in read_rows(target) if row.map)


def test_merge_refuses_a_missing_shard_unless_told(shards: Path) -> None:
    shutil.rmtree(Shard(1, COUNT).folder(shards))
    with pytest.raises(DataError, match="1 of 3 shards are missing or unfinished: 1/3"):
        merge_shards([shards], shards)
    assert not (shards / "results.jsonl").exists()
    summary = merge_shards([shards], shards, allow_missing=True)
    assert summary.missing == (Shard(1, COUNT),)
    assert json.loads((shards / "run.json").read_text())["missing_shards"] == ["1/3"]


@pytest.mark.parametrize("how", ["interrupted", "killed on a second run"])
def test_merge_takes_a_run_without_an_end_for_missing(parts: Path, shards: Path, how: str) -> None:
    folder = Shard(0, COUNT).folder(shards)
    if how == "interrupted":
        shutil.rmtree(folder)
        score(parts, shards, Shard(0, COUNT), stop_after=1)
    else:
        items = [item for item in find_images([str(parts)]) if Shard(0, COUNT).holds(item.name)]
        run = FolderRun(folder, "toy", "f2", DriveOptions(rule=DecisionRule(0.3)), shard=Shard(0, COUNT))
        with pytest.raises(KeyboardInterrupt):
            score_into_folder(items, ToyDetector(), run, on_outcome=_interrupt)
    with pytest.raises(DataError, match="unfinished: 0/3"):
        merge_shards([shards], shards)


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_merge_refuses_what_does_not_belong_together(parts: Path, shards: Path, tmp_path: Path) -> None:
    score(parts, tmp_path / "other", Shard(0, COUNT), threshold=0.4)
    with pytest.raises(DataError, match="there twice"):
        merge_shards([shards, Shard(0, COUNT).folder(shards)], shards)
    shutil.rmtree(Shard(0, COUNT).folder(shards))
    with pytest.raises(DataError, match="options"):
        merge_shards([shards, tmp_path / "other"], shards)
    with pytest.raises(DataError, match="no finished shard"):
        merge_shards([tmp_path / "nowhere"], shards)


def test_merge_refuses_lost_and_foreign_rows(shards: Path) -> None:
    file = Shard(2, COUNT).folder(shards) / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[1:]))
    with pytest.raises(DataError, match="rows, found"):
        merge_shards([shards], shards)
    file.write_bytes(b"".join([*lines, (Shard(1, COUNT).folder(shards) / "results.jsonl").read_bytes()]))
    with pytest.raises(DataError, match="does not belong to shard 2/3"):
        merge_shards([shards], shards)
