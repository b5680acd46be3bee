"""Mutual scoring of a folder, held against a loop over all pairs; invariants; few images; bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from ad_dinov3.references.mutual import compare_folder, content_digest, partners, ring_pairs
from ad_dinov3.references.tokens import unit


def folder(count: int, cells: int = 20) -> tuple[list[np.ndarray], list[str]]:
    draw = np.random.default_rng(count)
    base = draw.normal(size=(cells, 6))
    tokens = [unit(base + 0.3 * draw.normal(size=(cells, 6))) for _ in range(count)]
    return tokens, [content_digest(one.tobytes()) for one in tokens]


def maps(tokens: list[np.ndarray], digests: list[str], most: int = 48) -> dict[int, np.ndarray]:
    return {one.index: one.distances for one in compare_folder(tokens.__getitem__, digests, most)}


@pytest.mark.parametrize(("count", "most"), [(2, 48), (3, 48), (4, 48), (9, 48), (12, 4), (13, 6)])
def test_scores_equal_a_loop_over_the_neighbours_in_the_ring(count: int, most: int) -> None:
    tokens, digests = folder(count)
    ring = sorted(range(count), key=lambda index: digests[index])
    found = maps(tokens, digests, most)
    assert sorted(found) == list(range(count))
    for place, index in enumerate(ring):
        near = {(place + step) % count for step in range(-(most // 2), most // 2 + 1)} - {place}
        apart = np.stack(
            [np.linalg.norm(tokens[index][:, None] - tokens[ring[other]][None], axis=2).min(axis=1) for other in near]
        )
        nearest = int(max(1, np.ceil(0.3 * len(near) - 1e-9)))
        np.testing.assert_allclose(found[index], np.sort(apart, axis=0)[:nearest].mean(axis=0), atol=1e-3)


def test_every_pair_within_reach_meets_once_whatever_the_size_of_the_ring() -> None:
    for count in range(2, 60):
        for most in (2, 4, 48):
            pairs = list(ring_pairs(count, most))
            assert len({tuple(sorted(pair)) for pair in pairs}) == len(pairs)
            assert (np.bincount(np.ravel(pairs), minlength=count) == partners(count, most)).all()


def test_the_order_of_the_images_changes_nothing() -> None:
    tokens, digests = folder(11)
    order = np.random.default_rng(0).permutation(11)
    straight = maps(tokens, digests, 4)
    mixed = maps([tokens[i] for i in order], [digests[i] for i in order], 4)
    for place, index in enumerate(order):
        np.testing.assert_array_equal(mixed[place], straight[index])


def test_a_copy_does_not_vouch_for_its_original() -> None:
    tokens, digests = folder(6)
    tokens[0][:3] = unit(np.random.default_rng(1).normal(size=(3, 6)))
    alone = maps(tokens, digests)
    doubled = maps([*tokens, tokens[0]], [*digests, digests[0]])
    assert doubled[0].max() == pytest.approx(alone[0].max(), rel=0.1)
    assert (maps([tokens[0]] * 3, [digests[0]] * 3)[1] == 0).all()


def test_a_cell_that_others_lack_is_strange_and_images_without_likeness_have_a_high_ratio() -> None:
    tokens, digests = folder(10)
    tokens[4][7] = -tokens[4][7]
    found = list(compare_folder(tokens.__getitem__, digests))
    assert max(found, key=lambda one: one.distances.max()).index == 4
    draw = np.random.default_rng(3)
    unlike = [unit(draw.normal(size=(20, 64))) for _ in range(10)]
    ratios = [one.ratio for one in compare_folder(unlike.__getitem__, [content_digest(x.tobytes()) for x in unlike])]
    assert np.median([one.ratio for one in found]) < 0.4 < 0.7 < np.median(ratios)


def test_no_more_images_than_a_neighbourhood_are_held_and_each_is_read_once() -> None:
    tokens, digests = folder(60, cells=2)
    reads: list[int] = []
    most_open = done = 0

    def read(index: int) -> np.ndarray:
        nonlocal most_open
        reads.append(index)
        most_open = max(most_open, len(reads) - done)
        return tokens[index]

    for _ in compare_folder(read, digests, 8):
        done += 1
    assert sorted(reads) == list(range(60))
    assert most_open <= 10


def test_a_single_image_has_nobody_to_be_compared_with() -> None:
    assert maps(*folder(1)) == {}
