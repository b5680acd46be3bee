"""Patches compared in the workbench, held against the tokens themselves."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from bench_service import TeachableToy, workbench
from http_client import ask
from numpy.typing import NDArray

from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.compared import Answer
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.serve.judge import BusyError
from ad_dinov3.serve.workbench import patches
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.patches import Patches


class Counting(TeachableToy):
    """Counts what it is asked for tokens."""

    asked = 0

    def answer(self, batch: NDArray[np.uint8], class_names: object) -> Answer:
        self.asked += 1
        return super().answer(batch, ["part"])


@pytest.fixture
def rows(scored: Path) -> dict[str, Row]:
    return {row.image: row for row in read_rows(scored)}


def tokens_of(row: Row) -> NDArray[np.float32]:
    toy = TeachableToy()
    return toy.answer(toy.prepare(decode_image(Path(row.path)))[None], ["part"]).tokens[0]


def test_similarity_is_the_cosine_of_tokens(rows: dict[str, Row]) -> None:
    found = Patches(BenchModel("toy", TeachableToy)).similar(rows["crack/0.png"], 0.75, 0.7, [])
    tokens = tokens_of(rows["crack/0.png"])
    assert found.cell.place == (11, 12)
    expected = [[float(tokens[row, column] @ tokens[11, 12]) for column in range(16)] for row in range(16)]
    np.testing.assert_allclose(found.map, expected, atol=1e-3)
    assert found.nearest is None


def test_the_nearest_patch_of_all_good_images_but_its_own_is_found(rows: dict[str, Row]) -> None:
    good = [rows[name] for name in ("crack/0.png", "crack/1.png", "good/0.png")]
    found = Patches(BenchModel("toy", TeachableToy)).similar(rows["crack/0.png"], 0.99, 0.01, good)
    wanted = tokens_of(rows["crack/0.png"])[found.cell.place]
    each = {row.image: (tokens_of(row) @ wanted) for row in good[1:]}
    assert found.cosine == pytest.approx(max(float(one.max()) for one in each.values()), abs=1e-3)
    assert found.nearest is not None
    assert each[found.nearest.image][found.nearest.place] == pytest.approx(found.cosine, abs=1e-3)


def test_tokens_are_computed_once_and_no_more_than_some_are_kept(
    rows: dict[str, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Counting()
    compared = Patches(BenchModel("toy", lambda: toy))
    for _ in range(3):
        compared.similar(rows["crack/0.png"], 0.5, 0.5, [rows["good/0.png"]])
    assert toy.asked == 2
    monkeypatch.setattr(patches, "_KEPT", 2)
    compared.similar(rows["good/1.png"], 0.5, 0.5, [])
    compared.similar(rows["crack/0.png"], 0.5, 0.5, [])
    assert toy.asked == 4


def test_many_at_once_are_told_to_come_again(rows: dict[str, Row]) -> None:
    going, held = threading.Event(), threading.Event()

    class Slow(TeachableToy):
        def answer(self, batch: NDArray[np.uint8], class_names: object) -> Answer:
            going.set()
            assert held.wait(60)
            return super().answer(batch, ["part"])

    compared = Patches(BenchModel("toy", Slow))
    threads = [
        threading.Thread(target=compared.similar, args=(rows["crack/0.png"], 0.5, 0.5, []), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert going.wait(60)
    deadline = time.monotonic() + 30
    while compared.waiting < 4:
        assert time.monotonic() < deadline, "they have not come"
        time.sleep(0.01)
    with pytest.raises(BusyError):
        compared.similar(rows["crack/1.png"], 0.5, 0.5, [])
    held.set()
    for thread in threads:
        thread.join(60)


def test_a_model_without_tokens_says_so(rows: dict[str, Row]) -> None:
    class Silent(TeachableToy):
        def answer(self, batch: NDArray[np.uint8], class_names: object) -> Answer:
            raise ConfigError("toy has no tokens by which images can be compared")

    with pytest.raises(ConfigError, match="no tokens"):
        Patches(BenchModel("toy", Silent)).similar(rows["crack/0.png"], 0.5, 0.5, [])


def test_over_http_only_points_within_the_image_are_taken(scored: Path) -> None:
    with workbench(Bench(scored, "parts", BenchModel("toy", TeachableToy))) as address:
        path = f"{address}/bench/patch?image={quote('crack/0.png')}"
        answer = ask(urllib.request.Request(f"{path}&x=1&y=1"))
        found = json.loads(answer.body)
        assert (answer.status, found["place"], found["grid"]) == (200, [15, 15], [16, 16])
        assert found["cosines"][-1] == pytest.approx(1, abs=1e-3)
        assert ask(urllib.request.Request(f"{path}&x=1.01&y=0")).status == 422
        assert ask(urllib.request.Request(f"{address}/bench/patch?image=no.png&x=0&y=0")).status == 404
    with workbench(Bench(scored, "parts")) as address:
        answer = ask(urllib.request.Request(f"{address}/bench/patch?image={quote('crack/0.png')}&x=0&y=0"))
        assert answer.status == 422
        assert b"without a model" in answer.body
