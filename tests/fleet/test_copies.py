"""Data sets, normal images and models in an object store: copied here once, and again what has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import s3_server
from s3_server import Store
from toy_detector import draw_part

from ad_dinov3.assets import EMBEDDED_MODEL
from ad_dinov3.data import remote
from ad_dinov3.data.catalog import open_data
from ad_dinov3.data.copies import here
from ad_dinov3.data.normals import find_normals
from ad_dinov3.errors import DataError
from ad_dinov3.infer.opening import load


@pytest.fixture
def tree(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set in MVTec AD's shape with a manifest beside it, here and in the store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "tree"
    for name in ("train/good/0", "train/good/1", "train/good/2", "test/good/0", "test/dent/0"):
        draw_part(root / "set" / "nut" / f"{name}.png", blemish="dent" in name)
    draw_part(root / "set" / "nut" / "ground_truth" / "dent" / "0_mask.png")
    rows = ["nut/test/good/0.png,,nut,good", "nut/test/dent/0.png,nut/ground_truth/dent/0_mask.png,nut,dent"]
    (root / "set" / "list.csv").write_text("\n".join(["image,mask,class,label", *rows]))
    s3_server.upload(root, store.endpoint)
    return root


def test_a_data_set_in_a_store_is_the_data_set_here(tree: Path) -> None:
    for name in ("set", "set/list.csv"):
        one, other = open_data(str(tree / name)), open_data(f"s3://parts/{name}")
        assert (one.name, one.words) == (other.name, other.words)
        pairs = zip(one.listing.complete(), other.listing.complete(), strict=True)
        for sample, copied in pairs:
            assert sample.image_path.read_bytes() == copied.image_path.read_bytes()
            assert (sample.class_name, sample.defect) == (copied.class_name, copied.defect)


def test_only_what_has_changed_is_fetched_again(tree: Path, store: Store) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=store.endpoint)
    uri = "s3://parts/set/nut/train/good"
    before = [path.read_bytes() for path in find_normals(uri, ["nut"])["nut"]]
    stamps = {path.name: path.stat().st_mtime_ns for path in here(uri).iterdir()}
    changed = draw_part(tree / "0.png", blemish=True).read_bytes()
    client.put_object(Bucket="parts", Key="set/nut/train/good/0.png", Body=changed)
    client.delete_object(Bucket="parts", Key="set/nut/train/good/1.png")
    paths = find_normals(uri, ["nut"])["nut"]
    assert [path.name for path in paths] == ["0.png", "2.png"]
    assert [path.read_bytes() for path in paths] == [changed, before[2]]
    assert stamps["2.png"] == (here(uri) / "2.png").stat().st_mtime_ns


def test_a_copy_is_made_though_the_store_refuses_requests(tree: Path, store: Store) -> None:
    store.front.every = 4
    copied = here("s3://parts/set")
    assert store.front.refused > 0
    assert {path.relative_to(copied): path.read_bytes() for path in copied.rglob("*") if path.is_file()} == {
        path.relative_to(tree / "set"): path.read_bytes() for path in (tree / "set").rglob("*") if path.is_file()
    }


def test_a_model_in_a_store_is_the_model_here(tree: Path, store: Store) -> None:
    s3_server.upload(EMBEDDED_MODEL.parent, store.endpoint)
    assert load(f"s3://parts/{EMBEDDED_MODEL.name}").fingerprint == load().fingerprint


def test_nothing_there_and_web_servers_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01,))
    with pytest.raises(DataError, match="s3://parts/none: there is no such folder or file"):
        open_data("s3://parts/none")
    with pytest.raises(DataError, match="https://host/set: expected a folder here or of an object store"):
        here("https://user:secret@host/set")


def test_two_processes_that_want_one_copy_wait_for_each_other(tree: Path, store: Store) -> None:
    asked, program = (
        store.front.requests,
        "import sys; from ad_dinov3.data.copies import here; print(here(sys.argv[1]))",
    )
    command = [sys.executable, "-c", program, "s3://parts/set"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (copied,) = map(Path, places)
    files = [path for path in (tree / "set").rglob("*") if path.is_file()]
    assert all((copied / path.relative_to(tree / "set")).read_bytes() == path.read_bytes() for path in files)
    fetched = [path for path in store.front.paths[asked:] if path.startswith("GET") and path.endswith((".png", ".csv"))]
    assert len(fetched) == len({*fetched}) == len(files)  # each file by one of them
