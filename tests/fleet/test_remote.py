from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import s3_server
from s3_server import Store
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data import remote
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.remote import is_uri, list_images, read_bytes, redacted
from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import DataError, ImageError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.results import read_rows


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    for index in range(12):
        draw_part(root / ("ab"[index % 2]) / f"{index}.png", blemish=index % 3 == 0)
    (root / "a" / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    draw_part(root / "set" / "test" / "good" / "0.png")
    draw_part(root / "set" / "set" / "0.png")
    draw_part(root / "set" / "ground_truth" / "bad" / "0_mask.png")
    return root


@pytest.fixture
def web(parts: Path) -> Iterator[str]:
    handler = partial(_Quiet, directory=str(parts))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def score(sources: list[str], out: Path) -> FolderSummary:
    run = FolderRun(out, "toy", "f1", DriveOptions(rule=DecisionRule(0.3), batch_size=4, threads=3))
    return score_into_folder(find_images(sources), ToyDetector(), run)


def plain(out: Path) -> list[dict[str, object]]:
    return [{**asdict(row), "seconds": 0, "path": "", "key": ""} for row in read_rows(out)]


def test_a_bucket_is_listed_in_the_order_of_a_folder_and_gives_its_pixels(parts: Path, store: Store) -> None:
    s3_server.upload(parts, store.endpoint)
    local, remote_items = list(find_images([str(parts)])), list(find_images([f"s3://{s3_server.BUCKET}"]))
    assert [item.name for item in remote_items] == [item.name for item in local]
    assert [item.name for item in find_images(["s3://parts/a/"])] == [
        "0.png",
        "2.png",
        "4.png",
        "6.png",
        "8.png",
        "10.png",
    ]
    for one, other in zip(local, remote_items, strict=True):
        np.testing.assert_array_equal(one.load_within(10**9).pixels, other.load_within(10**9).pixels)
        assert other.version() == ImageFile(other.path, other.name, uri=other.uri).version()


@pytest.mark.parametrize("every", [0, 10, 3])
def test_predict_on_a_bucket_equals_predict_on_its_folder_though_the_store_refuses_requests(
    parts: Path, store: Store, tmp_path: Path, every: int
) -> None:
    s3_server.upload(parts, store.endpoint)
    score([str(parts)], tmp_path / "local")
    store.front.every = every
    assert score(["s3://parts/"], tmp_path / "remote").run.scored == 14
    assert bool(store.front.refused) == bool(every)
    assert plain(tmp_path / "remote") == plain(tmp_path / "local")
    assert next(read_rows(tmp_path / "remote")).path == "s3://parts/a/0.png"
    assert score(["s3://parts/"], tmp_path / "remote").skipped == 14


def test_an_object_that_changes_is_scored_again(parts: Path, store: Store, tmp_path: Path) -> None:
    s3_server.upload(parts / "b", store.endpoint)
    score(["s3://parts/"], tmp_path / "out")
    draw_part(parts / "b" / "1.png", blemish=True)
    import boto3

    boto3.client("s3", endpoint_url=store.endpoint).put_object(
        Bucket="parts", Key="1.png", Body=(parts / "b" / "1.png").read_bytes()
    )
    again = score(["s3://parts/"], tmp_path / "out")
    assert (again.run.scored, again.skipped) == (1, 5)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("there", [False, True])
def test_a_list_names_images_here_and_there(
    parts: Path, store: Store, tmp_path: Path, suffix: str, there: bool
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [
        {"image": "a/0.png", "class": "nut", "other": 1},
        {"image": "s3://parts/b/1.png", "class": None, "other": 2},
        {"image": "s3://parts/b/gone.png", "class": "nut", "other": 3},
    ]
    file = parts / f"list{suffix}"
    if suffix == ".csv":
        file.write_text(
            "image,class,other\n" + "".join(f"{r['image']},{r['class'] or ''},{r['other']}\n" for r in rows)
        )
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    s3_server.upload(parts, store.endpoint)
    items = list(find_images([f"s3://parts/list{suffix}" if there else str(file)]))
    assert [item.class_name for item in items] == ["nut", None, "nut"]
    assert [item.name.rpartition("parts/")[2] for item in items] == ["a/0.png", "b/1.png", "b/gone.png"]
    np.testing.assert_array_equal(items[0].load_within(10**9).pixels, decode_image(parts / "a" / "0.png"))
    with pytest.raises(ImageError, match="no such file"):
        items[2].load_within(10**9)
    assert score([str(file)], tmp_path / "out").run.exit_code == 3


def test_what_cannot_be_had_is_said_in_words_without_secrets(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.01))
    with pytest.raises(DataError, match="s3://nowhere: cannot list nowhere"):
        list(find_images(["s3://nowhere"]))
    with pytest.raises(ImageError, match="no such file"):
        read_bytes("s3://parts/none.png")
    signed = f"http://user:{s3_server.SECRET}@127.0.0.1:9/part.png?X-Amz-Signature={s3_server.SECRET}"
    (item,) = find_images([signed])
    with pytest.raises(ImageError) as refused:
        item.load_within(10**9)
    assert s3_server.SECRET not in f"{refused.value}{item!r}{item.where}{refused.getrepr(style='long')}".replace(
        signed, ""
    )
    assert (item.name, item.where) == ("part.png", "http://127.0.0.1:9/part.png")


def test_an_image_on_a_web_server_is_read_and_a_missing_one_named(web: str, parts: Path) -> None:
    here, gone = find_images([f"{web}/a/0.png?token=x", f"{web}/a/none.png"])
    np.testing.assert_array_equal(here.load_within(10**9).pixels, decode_image(parts / "a" / "0.png"))
    assert here.version() == here.version() != (None, "")
    with pytest.raises(ImageError, match="no such file"):
        gone.load_within(10**9)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("s3://b/x", True),
        ("HTTPS://h/x", True),
        ("az://c", True),
        ("file:///x", False),
        ("s3:/x", False),
        ("s3://", False),
    ],
)
def test_uris_are_told_from_paths(text: str, answer: bool) -> None:
    assert is_uri(text) == answer


def test_redaction_keeps_the_place_and_drops_the_secret() -> None:
    said = "ClientError: https://me:pw@h.example/a.png?X-Amz-Signature=abc (try 'https://h/b?sig=1')"
    assert redacted(said) == "ClientError: https://h.example/a.png (try 'https://h/b')"
    assert redacted("a question? s3://b/x.png") == "a question? s3://b/x.png"


def test_a_large_object_is_refused_before_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, parts: Path
) -> None:
    s3_server.upload(parts, store.endpoint)
    monkeypatch.setattr(remote, "MAX_MEMORY", 10)
    (file,) = (one for one in list_images("s3://parts") if one.name == "a/0.png")
    before = store.front.requests
    with pytest.raises(ImageError, match="more than the limit"):
        read_bytes(file.uri, file.version)
    assert store.front.requests == before
