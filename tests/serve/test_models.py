"""Models by name, replaced while they serve."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from http_client import post_image
from live_service import opened, running
from toy_detector import ToyDetector, draw_part

from ad_dinov3.cli.serve import _promises as told_promises
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models, OpenedModel, UnknownModelError, name_models


def test_models_are_called_what_they_are_told_or_their_last_part() -> None:
    named = name_models(["line=/models/a=b", "embedded", "/models/lid/", "org/cap"])
    assert named == {"line": "/models/a=b", "embedded": "embedded", "lid": "/models/lid/", "cap": "org/cap"}


@pytest.mark.parametrize("words", [["a=x", "a=y"], ["x/a", "y/a"], ["a b=x"], ["=x"], ["a="], [".."]])
def test_names_that_clash_or_do_not_fit_an_address_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="NAME=MODEL"):
        name_models(words)


def test_a_model_in_use_is_closed_by_the_last_who_needs_it() -> None:
    models = Models({"line": lambda: opened(ToyDetector())})
    with models.lease() as first, models.lease("line") as second:
        models.reload("line")
        with models.lease() as fresh:
            assert first.batcher is second.batcher is not fresh.batcher
        assert first.batcher._threads[0].is_alive()
    assert not first.batcher._threads[0].is_alive()
    assert fresh.batcher._threads[0].is_alive()
    models.close()
    assert not fresh.batcher._threads[0].is_alive()


def test_a_model_that_cannot_be_opened_again_goes_on() -> None:
    turns = iter([opened(ToyDetector())])

    def opener() -> OpenedModel:
        for turn in turns:
            return turn
        raise WeightsError("the folder is gone")

    models = Models({"line": opener})
    with pytest.raises(WeightsError, match="gone"):
        models.reload("line")
    with models.lease() as lease:
        assert lease.batcher._threads[0].is_alive()
    with pytest.raises(UnknownModelError, match="there are line"):
        models.reload("other")
    models.close()


def test_reloading_under_load_drops_no_request(tmp_path: Path) -> None:
    part, done = draw_part(tmp_path / "part.png", blemish=True), Event()
    models = Models({"line": lambda: opened(ToyDetector())})

    def reload_all_the_time() -> None:
        while not done.wait(0.01):
            models.reload("line")

    with running(models, ServeOptions(), Metrics()) as address, ThreadPoolExecutor(6) as pool:
        reloading = Thread(target=reload_all_the_time)
        reloading.start()
        before = models.model("line")
        answers = list(pool.map(lambda _: post_image(f"{address}/predict", part), range(120)))
        done.set()
        reloading.join()
    assert [answer.status for answer in answers] == [200] * 120
    assert len({json.loads(answer.body)["score"] for answer in answers}) == 1
    assert models.model("line") is not before


def test_promises_of_several_models_are_told_with_their_models() -> None:
    line = replace(opened(ToyDetector()), promises={"object": "1 in 10"})
    lids = replace(line, promises={"lid": "1 in 20"})
    assert told_promises(Models({"line": lambda: line})) == {"object": "1 in 10"}
    both = Models({"line": lambda: line, "lids": lambda: lids})
    assert told_promises(both) == {"line, object": "1 in 10", "lids, lid": "1 in 20"}
