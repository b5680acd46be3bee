"""Runs whose results go into an object store: the same as into a folder, resumed after a kill, merged there."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import s3_server
from numpy.typing import NDArray
from pydantic import TypeAdapter
from s3_server import Store
from toy_detector import ToyDetector, draw_part
from typer.testing import CliRunner

from ad_dinov3.cli.predict import app
from ad_dinov3.data import remote
from ad_dinov3.data.remote import list_files, read_bytes
from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.predict import store as stores
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.journal import Journal
from ad_dinov3.predict.merge import merge_shards, merge_stored_shards
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.row_scorer import RowScorer
from ad_dinov3.predict.shards import Shard
from ad_dinov3.predict.store import Tenure, UriStore, open_place

OUT = UriStore("s3://parts/out")
TABLES = ("csv", "coco")
ROW = TypeAdapter(Row)


@pytest.fixture
def parts(tmp_path: Path, store: Store) -> Path:
    for index in range(12):
        draw_part(tmp_path / "parts" / ("ab"[index % 2]) / f"{index}.png", blemish=index % 3 == 0)
    (tmp_path / "parts" / "bad.png").write_bytes(b"no")
    s3_server.upload(tmp_path / "parts", store.endpoint)
    return tmp_path / "parts"


def run_into(
    work: Path, remote_store: UriStore | None, threshold: float = 0.3, shard: Shard | None = None
) -> FolderRun:
    options = DriveOptions(rule=DecisionRule(threshold), batch_size=4, threads=3)
    return FolderRun(work, "toy", "f1", options, tables=TABLES, remote=remote_store, shard=shard or Shard())


def score(parts: Path, run: FolderRun, detector: ToyDetector | None = None) -> FolderSummary:
    items = (item for item in find_images([str(parts)]) if run.shard.holds(item.name))
    return score_into_folder(items, detector or ToyDetector(), run)


def stored(below: UriStore = OUT) -> dict[str, bytes]:
    return {file.name: read_bytes(file.uri) for file in list_files(below.uri)}


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(content: bytes) -> list[dict[str, object]]:
    lines = content.decode().splitlines()
    return [asdict(replace(row, seconds=0.0)) for row in map(ROW.validate_json, lines)]


@pytest.mark.parametrize("every", [0, 10])
def test_a_run_into_a_store_leaves_what_a_run_into_a_folder_leaves(
    parts: Path, store: Store, tmp_path: Path, every: int
) -> None:
    score(parts, run_into(tmp_path / "here", None))
    store.front.every = every
    summary = score(parts, run_into(tmp_path / "work", OUT))
    assert (summary.run.scored, summary.exit_code, bool(store.front.refused)) == (12, 3, bool(every))
    here, there = in_folder(tmp_path / "here"), stored()
    assert there.keys() == here.keys()
    for name in here.keys() - {"results.jsonl", "results.csv", "run.json", "report.html"}:
        assert there[name] == here[name], name
    assert rows(there["results.jsonl"]) == rows(here["results.jsonl"])


def test_a_second_run_skips_what_is_there_and_decides_anew_on_stored_maps(parts: Path, tmp_path: Path) -> None:
    score(parts, run_into(tmp_path / "one", OUT))
    idle = ToyDetector()
    assert score(parts, run_into(tmp_path / "two", OUT), idle).skipped == 12
    again = score(parts, run_into(tmp_path / "two", OUT, threshold=0.9), idle)
    assert (again.redecided, idle.batches) == (12, [])
    score(parts, run_into(tmp_path / "here", None, threshold=0.9))
    assert stored()["coco.json"] == (tmp_path / "here" / "coco.json").read_bytes()
    remote.remove_file(f"{OUT.uri}/overlays/a/0.png.jpg")
    assert score(parts, run_into(tmp_path / "three", OUT, threshold=0.9)).skipped == 11


class Killed(ToyDetector):
    def score(self, batch: NDArray[np.uint8], class_names: list[str]) -> RawScores:
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().score(batch, class_names)


def test_a_killed_run_goes_on_from_the_parts_of_its_journal(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_EVERY_S", 0.0)
    with monkeypatch.context() as dead:
        dead.setattr(Journal, "close", lambda self: None)  # a killed process closes nothing
        with pytest.raises(KeyboardInterrupt):
            score(parts, run_into(tmp_path / "work", OUT), Killed())
    kept = stored()
    assert "results.jsonl" not in kept
    done = sum(content.count(b"\n") for name, content in kept.items() if name.startswith(".journal/results"))
    assert done > 0
    summary = score(parts, run_into(tmp_path / "other machine", OUT))
    assert (summary.skipped, summary.run.scored) == (done, 12 - done)
    score(parts, run_into(tmp_path / "here", None))
    assert stored().keys() == in_folder(tmp_path / "here").keys()
    assert rows(stored()["results.jsonl"]) == rows((tmp_path / "here" / "results.jsonl").read_bytes())


def test_an_image_that_fails_later_loses_its_files_in_the_store(parts: Path, tmp_path: Path) -> None:
    score(parts, run_into(tmp_path / "work", OUT))
    assert any("a/2.png" in name for name in stored())
    (parts / "a" / "2.png").write_bytes(b"no")
    score(parts, run_into(tmp_path / "work", OUT))
    assert not any("a/2.png" in name for name in stored())


def test_results_below_a_source_are_not_the_next_runs_images(store: Store, parts: Path, tmp_path: Path) -> None:
    run = run_into(tmp_path / "work", OUT)
    first = score_into_folder(find_images(["s3://parts/"]), ToyDetector(), run)
    second = score_into_folder(find_images(["s3://parts/"]), ToyDetector(), run)
    assert (first.run.scored, second.run.scored, second.skipped) == (12, 0, 12)


def test_shards_in_a_store_are_merged_there_as_those_in_a_folder(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards = [Shard(index, 2) for index in range(2)]
    for shard in shards:
        score(parts, run_into(shard.folder(tmp_path / "here"), None, shard=shard))
        if shard.index == 1:
            with pytest.raises(DataError, match="1 of 2 shards are missing"):
                merge_stored_shards(OUT)
        score(parts, run_into(tmp_path / "work", UriStore(f"{OUT.uri}/{shard.folder_name}"), shard=shard))
    one, other = merge_shards([tmp_path / "here"], tmp_path / "here", TABLES), merge_stored_shards(OUT, TABLES)
    assert asdict(one) == asdict(other)
    assert stored().keys() == in_folder(tmp_path / "here").keys()
    assert rows(stored()["results.jsonl"]) == rows((tmp_path / "here" / "results.jsonl").read_bytes())


def test_the_command_writes_to_a_store_and_leaves_nothing_here(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = [str(parts), "-o", "s3://parts/said", "--coco", "--maps", "none"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 3, ran.output
    assert "report: s3://parts/said/report.html" in ran.output
    assert {"results.jsonl", "run.json", "coco.json", "report.html"} <= stored(UriStore("s3://parts/said")).keys()
    assert not any((tmp_path / "cache").rglob("results.jsonl"))


def test_a_row_scorer_writes_files_into_a_store(parts: Path) -> None:
    from ad_dinov3.predict.outputs import Outputs

    (row,) = RowScorer(folder="s3://parts/rows", outputs=Outputs(maps="none")).rows([parts / "a" / "0.png"])
    assert {row.overlay, row.mask} == {*stored(UriStore("s3://parts/rows"))}


def test_a_store_that_takes_nothing_stops_the_run_and_tells_no_secret(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01,))
    with pytest.raises(DataError, match=r"s3://nowhere/out: cannot be written to \(no such bucket") as refused:
        score(parts, run_into(tmp_path / "work", UriStore("s3://nowhere/out")))
    assert s3_server.SECRET not in str(refused.getrepr(style="long"))
    with pytest.raises(ConfigError, match="results go to a folder or to s3://"):
        open_place("https://host/out")


def test_parts_of_a_journal_are_deleted_oldest_first(parts: Path, tmp_path: Path, store: Store) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=store.endpoint)
    for number in (2, 10, 1):
        client.put_object(Bucket="parts", Key=f"out/.journal/results.jsonl/{number:09d}.jsonl", Body=b"")
    gone: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stores, "remove_file", gone.append)
        stores._remove_parts(OUT)
    assert [uri[-7:] for uri in gone] == ["1.jsonl", "2.jsonl", "0.jsonl"]


class Overtaken(ToyDetector):
    """While it scores, another run begins and ends at the same place, as one of another machine may."""

    def __init__(self, parts: Path, work: Path) -> None:
        super().__init__()
        self._parts, self._work = parts, work

    def score(self, batch: NDArray[np.uint8], class_names: list[str]) -> RawScores:
        if len(self.batches) == 1:
            score(self._parts, run_into(self._work, OUT, threshold=0.9))
        return super().score(batch, class_names)


def test_a_run_whose_place_another_one_has_taken_stops_and_stores_nothing_more(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s3://parts/out: another run has begun to write there, so this one stops"):
        score(parts, run_into(tmp_path / "one", OUT), Overtaken(parts, tmp_path / "two"))
    kept = stored()
    assert not any(name.startswith(".journal") for name in kept)
    assert {row["threshold"] for row in rows(kept["results.jsonl"])} == {None, 0.9}
    assert score(parts, run_into(tmp_path / "one", OUT, threshold=0.9)).skipped == 12


def test_the_message_to_an_overtaken_run_names_the_other_machine(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = Tenure(OUT, tmp_path / "one", forget=False)
    first.check()
    monkeypatch.setattr("socket.gethostname", lambda: "line-7")
    Tenure(OUT, tmp_path / "two", forget=False)
    with pytest.raises(DataError, match="another run on line-7 has begun"):
        first.check()
