"""Requests scored together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import pytest
from numpy.typing import NDArray

from ad_dinov3.errors import AdDinoError, ConfigError
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.serve.batching import Batcher


class GatedScorer:
    """Brightness as map and score; the first call waits for ``gate``, so that others can arrive meanwhile."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, str]] = []
        self.started, self.gate = Event(), Event()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        self.started.set()
        assert self.gate.wait(60)
        self.batches.append((len(batch), class_names[0]))
        if "zebra" in class_names:
            raise ConfigError("no prompts for zebra")
        maps = batch[:, 0].astype(np.float32) / 255
        maps[batch[:, 0] == 13] = np.nan
        return RawScores(maps, maps.max((1, 2)))


@pytest.fixture
def scorer() -> GatedScorer:
    return GatedScorer()


@pytest.fixture
def batcher(scorer: GatedScorer) -> Iterator[Batcher]:
    made = Batcher(scorer, batch_size=4)
    yield made
    scorer.gate.set()
    made.close()


def plain(level: int, side: int = 2) -> NDArray[np.uint8]:
    return np.full((3, side, side), level, np.uint8)


def arrive(
    batcher: Batcher, scorer: GatedScorer, pool: ThreadPoolExecutor, requests: Sequence[tuple[NDArray[np.uint8], str]]
) -> list[Future[RawScores]]:
    """One request in the scorer's hands, then the others waiting, in order; the gate stays shut."""
    first = pool.submit(batcher.score, plain(1), "first")
    assert scorer.started.wait(60)
    futures = []
    for count, (pixels, name) in enumerate(requests, start=1):
        futures.append(pool.submit(batcher.score, pixels, name))
        while batcher._queue.qsize() < count:  # until it waits
            pass
    return [first, *futures]


def test_what_arrives_while_one_is_scored_is_scored_together_and_each_gets_its_own(
    batcher: Batcher, scorer: GatedScorer
) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = arrive(batcher, scorer, pool, [(plain(level), "nut") for level in (10, 20, 30, 40, 50)])
        scorer.gate.set()
        levels = [round(float(answer.result().score) * 255) for answer in answers]
    assert levels == [1, 10, 20, 30, 40, 50]
    assert scorer.batches == [(1, "first"), (4, "nut"), (1, "nut")]
    assert answers[1].result().patch_map.shape == (2, 2)


def test_other_shapes_and_classes_are_scored_apart_and_a_refusal_hits_its_own_alone(
    batcher: Batcher, scorer: GatedScorer
) -> None:
    requests = [(plain(10), "nut"), (plain(20), "zebra"), (plain(30, side=4), "nut"), (plain(40), "nut")]
    with ThreadPoolExecutor(6) as pool:
        answers = arrive(batcher, scorer, pool, requests)
        scorer.gate.set()
        with pytest.raises(ConfigError, match="zebra"):
            answers[2].result()
        assert [answers[at].result().patch_map.shape for at in (1, 3, 4)] == [(2, 2), (4, 4), (2, 2)]
    assert scorer.batches == [(1, "first"), (2, "nut"), (1, "zebra"), (1, "nut")]


def test_nan_for_one_image_is_no_answer_to_it_and_leaves_the_others_theirs(
    batcher: Batcher, scorer: GatedScorer
) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = arrive(batcher, scorer, pool, [(plain(13), "nut"), (plain(255), "nut")])
        scorer.gate.set()
        with pytest.raises(AdDinoError, match="NaN"):
            answers[1].result(60)
        assert answers[2].result(60).score == 1
    assert scorer.batches == [(1, "first"), (2, "nut")]


def test_nan_is_an_error_and_not_an_answer(batcher: Batcher, scorer: GatedScorer) -> None:
    scorer.gate.set()
    with pytest.raises(AdDinoError, match="NaN"):
        batcher.score(plain(13), "nut")
    assert batcher.score(plain(255), "nut").score == 1


def test_calls_that_may_run_at_once_do_and_each_gets_its_own() -> None:
    together = Barrier(3)

    class MeetingScorer(GatedScorer):
        def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
            together.wait(60)  # returns when three calls run at once
            return super().score(batch, class_names)

    scorer = MeetingScorer()
    scorer.gate.set()
    batcher = Batcher(scorer, batch_size=1, calls=3)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(batcher.score, [plain(level) for level in range(6)], ["nut"] * 6))
    batcher.close()
    assert [round(float(answer.score) * 255) for answer in answers] == list(range(6))


def test_close_answers_those_that_wait(scorer: GatedScorer) -> None:
    batcher = Batcher(scorer, batch_size=2)
    with ThreadPoolExecutor(6) as pool:
        answers = arrive(batcher, scorer, pool, [(plain(level), "nut") for level in (10, 20, 30)])
        closing = pool.submit(batcher.close)
        scorer.gate.set()
        closing.result(60)
        assert [answer.result(60).score > 0 for answer in answers] == [True] * 4
