from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace

import numpy as np
import pytest
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import held, replacing
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.predict import cluster
from ad_dinov3.predict.cluster import Cluster, score_on_cluster
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.near_copy_sink import NearCopySink
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.report import WorstRows
from ad_dinov3.predict.results import Row, read_rows

pa = pytest.importorskip("pyarrow")
REPOSITORY = Path(__file__).parents[2]
TABLES = ("csv", "coco", "parquet")
Blocks = Iterator["pa.Table"]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for index in range(40):
        draw_part(tmp_path / "parts" / f"{index % 3}" / f"{index:02d}.png", blemish=index % 4 == 0)
    (tmp_path / "parts" / "bad.png").write_bytes(b"no")
    return tmp_path / "parts"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Blocks], Blocks]], None]:
    """A cluster of one actor in this process, whose blocks of rows pass through a function on their way back."""
    detector = ToyDetector()
    detector.config = SimpleNamespace(threshold=0.3)  # type: ignore[attr-defined]
    detector.fingerprint = "f1"  # type: ignore[attr-defined]
    monkeypatch.setattr("ad_dinov3.infer.opening.load", lambda *names, **choices: detector)

    @contextmanager
    def connected(_: Cluster) -> Iterator[None]:
        yield

    def install(way_back: Callable[[Blocks], Blocks]) -> None:
        def blocks(tables: list[pa.Table], scorer: object, *_: object) -> Blocks:
            yield from way_back(map(cluster._Actor(scorer), tables))  # type: ignore[arg-type]

        monkeypatch.setattr(cluster, "_connected", connected)
        monkeypatch.setattr(cluster, "_room", lambda _: 1)
        monkeypatch.setattr(cluster, "_blocks", blocks)

    return install


def folder_run(out: Path, threshold: float = 0.3) -> FolderRun:
    return FolderRun(out, "toy", "f1", DriveOptions(rule=DecisionRule(threshold)), Outputs(), TABLES)


def on_cluster(parts: Path, out: Path, threshold: float = 0.3) -> FolderSummary:
    return score_on_cluster(find_images([str(parts)]), ModelSpec(), folder_run(out, threshold), Cluster())


def plain(out: Path) -> list[dict[str, object]]:
    return [{**asdict(row), "seconds": 0} for row in read_rows(out)]


def same(blocks: Blocks) -> Blocks:
    yield from blocks


def lose_one(blocks: Blocks) -> Blocks:
    next(blocks)
    yield from blocks


def give_twice(blocks: Blocks) -> Blocks:
    for block in blocks:
        yield block
        yield block


def break_off(blocks: Blocks) -> Blocks:
    yield next(blocks)
    raise RuntimeError("the cluster is gone")


@pytest.mark.parametrize("way_back", [same, give_twice, lose_one, break_off])
def test_a_cluster_that_loses_or_doubles_blocks_ends_with_the_rows_of_one_process_and_says_what_it_lost(
    parts: Path, tmp_path: Path, fake: Callable[..., None], way_back: Callable[[Blocks], Blocks]
) -> None:
    score_into_folder(find_images([str(parts)]), ToyDetector(), folder_run(tmp_path / "one"))
    fake(way_back)
    first = on_cluster(parts, tmp_path / "out")
    done = {row.image for row in read_rows(tmp_path / "out")}
    listed = {item.name for item in find_images([str(parts)])}
    if way_back in (lose_one, break_off):
        assert (first.exit_code, set(first.missing)) == (4, listed - done)
        assert (tmp_path / "out" / "missing.txt").read_text().split() == sorted(listed - done)
        assert not (tmp_path / "out" / "run.json").exists()
        assert ("RuntimeError: the cluster is gone" in first.trouble) == (way_back is break_off)
        fake(same)
        on_cluster(parts, tmp_path / "out")
    else:
        assert (first.exit_code, first.missing) == (3, ())
    assert plain(tmp_path / "out") == plain(tmp_path / "one")
    assert not (tmp_path / "out" / "missing.txt").exists()
    assert (tmp_path / "out" / "coco.json").read_bytes() == (tmp_path / "one" / "coco.json").read_bytes()
    import pyarrow.parquet as pq

    tables = [pq.read_table(tmp_path / name / "results.parquet") for name in ("one", "out")]
    assert tables[0].schema == tables[1].schema
    assert tables[0].drop_columns("seconds") == tables[1].drop_columns("seconds")
    pages = [(tmp_path / name / "report.html").read_text() for name in ("one", "out")]
    assert pages[0].count("data:image/jpeg") == pages[1].count("data:image/jpeg") > 0


def test_one_process_and_a_cluster_go_on_with_each_others_folder(
    parts: Path, tmp_path: Path, fake: Callable[..., None]
) -> None:
    fake(same)
    on_cluster(parts, tmp_path / "out")
    idle = ToyDetector()
    assert score_into_folder(find_images([str(parts)]), idle, folder_run(tmp_path / "out")).skipped == 40
    again = on_cluster(parts, tmp_path / "out", threshold=0.9)
    assert (again.redecided, again.skipped, idle.batches) == (40, 0, [])
    assert all(row.decision != "anomalous" for row in read_rows(tmp_path / "out"))


def test_near_copies_of_normal_images_are_told_of_as_by_one_process(
    parts: Path, tmp_path: Path, fake: Callable[..., None]
) -> None:
    fake(same)
    here, away = list[str](), list[str]()
    normals = {"object": [parts / "1" / "01.png"]}
    run = replace(folder_run(tmp_path / "here"), near_copies=NearCopySink(normals, here.append))
    score_into_folder(find_images([str(parts)]), ToyDetector(), run)
    run = replace(folder_run(tmp_path / "away"), near_copies=NearCopySink(normals, away.append))
    score_on_cluster(find_images([str(parts)]), ModelSpec(), run, Cluster())
    assert away == here
    assert here[0].startswith("30 images are nearly normal ones (0/03.png is like ")


def test_what_killed_workers_left_unfinished_is_deleted_at_the_next_start(
    parts: Path, tmp_path: Path, fake: Callable[..., None]
) -> None:
    with replacing(tmp_path / "out" / "maps" / "0" / "00.png.tiff") as mine:
        left = mine.with_name(mine.name.replace(f"-{os.getpid()}.", "-4194305."))  # no process has such a number
        for half in (mine, left):
            half.write_bytes(b"half a map")
    fake(same)
    assert on_cluster(parts, tmp_path / "out").exit_code == 3
    assert not left.exists()


def test_a_folder_that_another_run_writes_into_is_refused(
    parts: Path, tmp_path: Path, fake: Callable[..., None]
) -> None:
    fake(same)
    with held(tmp_path / "out"), pytest.raises(ConfigError, match="another run is writing there"):
        on_cluster(parts, tmp_path / "out")


def test_blocks_are_small_for_few_images_and_bounded_for_many() -> None:
    def sizes(images: int, room: int) -> list[int]:
        items = (ImageFile(Path(f"{index}"), f"{index}") for index in range(images))
        waiting: set[str] = set()
        found = [table.num_rows for table in cluster._tables(items, waiting, room)]
        assert sum(found) == len(waiting) == images
        return found

    assert sizes(5, 2) == [1] * 5
    assert set(sizes(100, 2)[:-1]) == {7}
    assert set(sizes(3000, 2)[:-1]) == {64}


def test_a_video_is_refused_with_a_way_out(tmp_path: Path, fake: Callable[..., None]) -> None:
    fake(same)
    frame = ImageFile(tmp_path / "clip.mp4", "clip.mp4/0.png", frame=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match="omit --engine ray"):
        score_on_cluster([frame], ModelSpec(), folder_run(tmp_path / "out"), Cluster())


def test_pictures_are_kept_of_the_worst_rows_whatever_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ad_dinov3.predict.report.MAX_PICTURES", 5)
    scores = np.random.default_rng(0).permutation(200) / 200
    worst = WorstRows()
    rows = [Row(image=f"{score}", path="", decision="normal", score=float(score)) for score in scores]
    kept = [row.score for row in rows if worst.see(row)]
    assert set(sorted(scores)[-5:]) <= set(kept)
    assert len(kept) < 50
    assert not worst.see(Row(image="bad", path="", decision="failed"))


def test_a_cluster_whose_head_has_died_is_given_up_and_a_slow_one_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_LOOK_S", 0.05)
    monkeypatch.setattr(cluster, "_PATIENCE_S", 0.2)
    block, late, never = pa.table({"row": [b"1"]}), Event(), Event()

    def blocks() -> Blocks:
        yield block
        late.wait()
        yield block
        never.wait()

    with socket.create_server(("127.0.0.1", 0)) as head:
        coming = cluster._while_there(blocks(), f"127.0.0.1:{head.getsockname()[1]}")
        assert next(coming) is block
        Timer(0.6, late.set).start()  # three times as long as the patience with a head that does not answer
        assert next(coming) is block
    with pytest.raises(ConnectionError, match="does not answer any more"):
        next(coming)
    never.set()


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    pytest.importorskip("ray", reason='pip install "ad-dinov3[ray]"')
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:"):
        with pytest.raises(ConfigError, match="nothing answers there"), cluster._connected(Cluster(address)):
            raise AssertionError


def test_all_blocks_come_and_so_does_what_went_wrong() -> None:
    tables = [pa.table({"row": [b"1"]})] * 5
    assert list(cluster._while_there(iter(tables), "127.0.0.1:1")) == tables

    def broken() -> Blocks:
        yield tables[0]
        raise RuntimeError("no memory")

    coming = cluster._while_there(broken(), "127.0.0.1:1")
    assert next(coming) is tables[0]
    with pytest.raises(RuntimeError, match="no memory"):
        next(coming)


def in_a_network_of_its_own(script: str) -> str:
    """What a script prints that starts a Ray cluster, which would listen beyond this machine otherwise."""
    for package in ("ray", "moto", "s3fs", "psutil"):
        pytest.importorskip(package, reason='pip install "ad-dinov3[ray,cloud]" "moto[s3,server]" psutil')
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-nm", "true"], check=False).returncode:
        pytest.skip("no right to make a network namespace")
    shown = subprocess.run(
        ["unshare", "-nm", "sh", "-c", f"ip link set lo up && exec {sys.executable} {script}"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr[-3000:]
    return shown.stdout


def test_faults_of_a_real_cluster_change_no_row_and_no_file(tmp_path: Path) -> None:
    script = f"benchmarks/faults.py {tmp_path} --images 48 --broken 3 --times 1 --faults actor store disk"
    assert in_a_network_of_its_own(script).count(" equal ") == 3


def test_normal_images_travel_to_a_real_cluster_and_its_files_into_a_store(tmp_path: Path) -> None:
    in_a_network_of_its_own(f"tests/fleet/real_cluster.py {tmp_path}")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["codes"] == [3, 3]
    assert told["rows"]
    assert told["files"]
    assert told["copies"][1] == told["copies"][0] != []
    assert (told["anomalous"] > 0, told["p_values"], told["count"]) == (True, 24, 73)
