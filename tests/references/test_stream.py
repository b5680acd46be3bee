"""The stream's ring: it learns, compares with the past alone, keeps defects out and follows a new product."""

from __future__ import annotations

import numpy as np
import pytest

from ad_dinov3.references.stream import Beginning, Stream
from ad_dinov3.references.tokens import unit

BASE = np.random.default_rng(9).normal(size=(3, 30, 8))


def image(seed: int, product: int = 0, defect: bool = False) -> np.ndarray:
    tokens = BASE[product] + 0.2 * np.random.default_rng(seed).normal(size=(30, 8))
    if defect:
        tokens[3:6] = BASE[2, :3]
    return unit(tokens)


def run(stream: Stream, images: list[np.ndarray]) -> list[float | None]:
    scores: list[float | None] = []
    for tokens in images:
        distances = stream.distances(tokens)
        scores.append(None if distances is None else float(distances.max()))
        stream.take(tokens, scores[-1])
    return scores


def test_a_stream_learns_first_and_then_equals_a_loop_over_the_past() -> None:
    images = [image(seed) for seed in range(14)]
    scores = run(Stream(warm_up=10), images)
    assert scores[:10] == [None] * 10
    past = np.stack([np.linalg.norm(images[10][:, None] - old[None], axis=2).min(axis=1) for old in images[:10]])
    assert scores[10] is not None
    np.testing.assert_allclose(scores[10], np.sort(past, axis=0)[:3].mean(axis=0).max(), rtol=1e-4)


def test_defects_do_not_enter_and_the_window_is_bounded() -> None:
    stream = Stream(window=12, warm_up=5)
    run(stream, [image(seed) for seed in range(30)])
    before = [kept.copy() for kept in stream._ring]
    defect = image(99, defect=True)
    distances = stream.distances(defect)
    assert distances is not None
    assert not stream.take(defect, float(distances.max()))
    assert all(np.array_equal(kept, old) for kept, old in zip(stream._ring, before, strict=True))
    assert len(stream._ring) == 12


def test_a_new_product_is_strange_at_first_and_learned_after_a_while() -> None:
    scores = run(Stream(window=12), [image(seed) for seed in range(30)] + [image(seed, 1) for seed in range(30, 90)])
    quiet = max(score for score in scores[10:30] if score is not None)
    first, last = scores[30], scores[-10:]
    assert first is not None
    assert first > 1.3 * quiet
    assert all(score is not None and score < 1.2 * quiet for score in last)


def test_the_beginning_measures_all_later_images_alike() -> None:
    draw = np.random.default_rng(0)
    first = [unit(draw.normal(size=(6, 4)) + 3) for _ in range(3)]
    beginning = Beginning(images=3)
    assert [beginning.apart(one) for one in first] == [None] * 3
    later = unit(draw.normal(size=(6, 4)) - 3)
    means = [unit(one.mean(axis=0)) for one in first]
    expected = min(1 - float(unit(later.mean(axis=0)) @ mean) for mean in means)
    assert beginning.apart(later) == pytest.approx(expected, abs=1e-6)
    for _ in range(20):
        beginning.apart(unit(draw.normal(size=(6, 4))))
    assert beginning.apart(later) == pytest.approx(expected, abs=1e-6)
    assert beginning.apart(first[1]) == pytest.approx(0, abs=1e-6)
