"""Normal images over HTTP: kept whole or not at all, used at once, and only with a key."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from http_client import Answer, ask
from live_service import opened, running
from numpy.typing import NDArray
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.normals import find_normals
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models, OpenedModel

KEY = "k" * 16
BLACK = 0


class Comparing(ToyDetector):
    """Scores the share of normal images that are brighter than an image; does not take black ones."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._means = [float(decode_image(path).mean()) for path in paths]
        if BLACK in self._means:
            raise ConfigError("a black image is no normal one")

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        raw = super().score(batch, class_names)
        shares = [np.mean([mean > one.mean() for mean in self._means]) for one in batch]
        return RawScores(raw.maps, np.array(shares, np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_part(tmp_path / "good" / "first.png")
    return tmp_path / "good"


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    def opener() -> OpenedModel:
        paths = find_normals(folder, ["object"])["object"]
        return replace(opened(Comparing(paths)), promises={"object": f"with {len(paths)} good images"})

    options = ServeOptions(keys=(KEY,), normals=folder)
    with running(Models({"line": opener, "other": opener}), options, Metrics()) as started:
        yield started


def asked(method: str, url: str, body: bytes | None = None) -> Answer:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/png"}
    return ask(urllib.request.Request(url, body, headers, method=method))


def drawn(tmp_path: Path, level: int) -> bytes:
    """A PNG that is brighter than a part without blemish, or black."""
    path = tmp_path / f"{level}.png"
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return path.read_bytes()


def test_an_added_image_is_kept_and_used_at_once_and_a_removed_one_no_more(
    address: str, folder: Path, tmp_path: Path
) -> None:
    part = draw_part(tmp_path / "part.png").read_bytes()
    assert json.loads(asked("POST", f"{address}/predict", part).body)["score"] == 0
    added = json.loads(asked("POST", f"{address}/normals", drawn(tmp_path, 200)).body)
    assert added["promises"] == {"line": "with 2 good images", "other": "with 2 good images"}
    (name,) = set(added["images"]) - {"first.png"}
    assert (folder / name).read_bytes() == drawn(tmp_path, 200)
    assert json.loads(asked("POST", f"{address}/predict", part).body)["score"] == 0.5
    again = json.loads(asked("POST", f"{address}/normals", drawn(tmp_path, 200)).body)
    assert again["images"] == added["images"]  # the same image counts once
    left = json.loads(asked("DELETE", f"{address}/normals/{name}").body)
    assert left["images"] == ["first.png"] == [path.name for path in folder.iterdir()]
    assert json.loads(asked("POST", f"{address}/predict", part).body)["score"] == 0


def test_what_a_model_does_not_take_leaves_all_as_it_was(address: str, folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    for method, url, body, status, words in (
        ("POST", "/normals", drawn(tmp_path, BLACK), 422, "black"),
        ("POST", "/normals", b"no image", 422, "not supported"),
        ("DELETE", "/normals/first.png", None, 422, "no normal images"),
        ("DELETE", "/normals/../part.png", None, 404, "there is no"),
        ("DELETE", "/normals/second.png", None, 404, "there is no normal image 'second.png'"),
    ):
        answer = asked(method, address + url, body)
        assert (answer.status, words in json.loads(answer.body)["detail"]) == (status, True), answer.body
    assert sorted(path.name for path in folder.iterdir()) == before
    assert json.loads(asked("GET", f"{address}/normals").body)["images"] == ["first.png"]


def test_without_keys_nobody_may_change_them(folder: Path, tmp_path: Path) -> None:
    models = Models({"line": lambda: opened(ToyDetector())})
    with running(models, ServeOptions(normals=folder), Metrics()) as address:
        assert asked("GET", f"{address}/normals").status == 200
        assert asked("POST", f"{address}/normals", drawn(tmp_path, 200)).status == 403
        assert asked("DELETE", f"{address}/normals/first.png").status == 403
    assert [path.name for path in folder.iterdir()] == ["first.png"]
