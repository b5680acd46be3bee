"""The images of a folder as each other's reference: what few others show is strange (MuSc, ICLR 2024).

A cell's score is the mean of its distances to the 30 % of images that have the most similar cell. One search on joined
tokens stands in for MuSc's twelve. Images are put into a ring in the order of their digests, which is as good as a
random order and the same whatever the files are called, and each is compared with its neighbours in it: comparison is
mutual, so that a known normal image is treated exactly as an unknown one, each product serves two images, and memory
holds no more than half a neighbourhood.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ad_dinov3.references.tokens import Floats

MOST_COMPARED = 48
"""Images that each one is compared with."""
LEAST_IMAGES = 3
"""Fewer cannot outvote one another."""
NEAREST_SHARE = 0.3
"""Of the images compared with, that count."""
LARGEST_RATIO = 0.7
"""Of the nearest images' distance to that of any two cells; above it the images do not resemble each other."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One image of a folder as the others see it.

    Attributes:
        index: its place among the images given.
        distances: (T,), mean Euclidean distance of each unit token to the nearest images', in [0, 2].
        ratio: their mean over that of two cells picked at random; near 1 where images have nothing in common.
    """

    index: int
    distances: Floats
    ratio: float


def content_digest(content: bytes) -> str:
    """What an image is recognised by: equal files have equal digests."""
    return hashlib.sha256(content).hexdigest()


def ring_order(digests: Sequence[str]) -> list[int]:
    """The images in the order of their digests, equal ones by their place."""
    return sorted(range(len(digests)), key=lambda index: (digests[index], index))


def ring_pairs(count: int, most: int = MOST_COMPARED) -> Iterator[tuple[int, int]]:
    """Each pair of places of a ring of ``count`` that lie within ``most`` / 2 steps of each other, once.

    Places are passed in turn, and pairs over the ring's seam come last: few places wait for a partner at any time.
    """
    reach = min(most // 2, count // 2)
    for later in range(count):
        yield from ((later - step, later) for step in range(1, min(reach, later) + 1))
    for later in range(reach):
        # opposite places of an even ring have met from one side already
        yield from ((later - step + count, later) for step in range(later + 1, reach + 1) if 2 * step != count)


def partners(count: int, most: int = MOST_COMPARED) -> int:
    """How many others each image of a folder of ``count`` is compared with."""
    return min(2 * (most // 2), count - 1)


def compare_folder(
    read: Callable[[int], Floats], digests: Sequence[str], most: int = MOST_COMPARED
) -> Iterator[Compared]:
    """Compare each image with its neighbours in the ring; memory holds the tokens of ``most`` + 1 images.

    Args:
        read: unit comparison tokens (T, D) of the image at a place; asked for each image once.
        digests: one for each image, of its content; images of equal digests are copies and do not count for each other.
        most: images that each one is compared with, even.

    Yields:
        Each image once, when its last partner was met; nothing for fewer than two images.
    """
    ring = ring_order(digests)
    expected = partners(len(ring), most)
    open_: dict[int, _Open] = {}
    for pair in ring_pairs(len(ring), most):
        for place in pair:
            if place not in open_:
                tokens = read(ring[place])
                open_[place] = _Open(tokens, tokens.mean(0))
        first, second = pair
        _meet(open_[first], open_[second], digests[ring[first]] == digests[ring[second]])
        for place in pair:
            if len(open_[place].found) == expected:
                yield open_.pop(place).close(ring[place])


@dataclass(frozen=True, eq=False)
class _Open:
    """An image of the ring that has partners to meet: its tokens, their mean, and what it has found so far."""

    tokens: Floats
    mean: Floats
    found: list[Floats | None] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)

    def close(self, index: int) -> Compared:
        found = [one for one in self.found if one is not None]
        if not found:
            return Compared(index, np.zeros(len(self.tokens), np.float32), 0.0)
        distances = nearest_mean(np.stack(found))
        return Compared(index, distances, float(distances.mean()) / max(float(np.mean(self.apart)), 1e-6))


def _meet(one: _Open, other: _Open, copies: bool) -> None:
    if copies:
        one.found.append(None)
        other.found.append(None)
        return
    cosines = one.tokens @ other.tokens.T
    one.found.append(_distance(cosines.max(axis=1)))
    other.found.append(_distance(cosines.max(axis=0)))
    apart = float(_distance(one.mean @ other.mean))  # of two cells picked at random, by their mean cosine
    one.apart.append(apart)
    other.apart.append(apart)


def nearest_mean(distances: Floats) -> Floats:
    """Mean over the 30 % (one at least) smallest of each cell's distances (J, T) to J images: (T,)."""
    count = max(1, math.ceil(NEAREST_SHARE * len(distances) - 1e-9))
    smallest: Floats = np.partition(distances, count - 1, axis=0)[:count].mean(axis=0)
    return smallest


def _distance(cosine: Floats | np.floating) -> Floats:
    """Euclidean distance of unit vectors."""
    return np.sqrt(np.maximum(2 - 2 * np.asarray(cosine, np.float32), 0), dtype=np.float32)
