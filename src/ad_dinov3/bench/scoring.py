"""Score a data set's images once each, and keep what came out on disk, so that a killed run goes on where it was.

One small file per image holds the map on the method's own grid, the image score and the seconds that it took; the
file's name is a digest of the image's bytes and the words of its class, and its folder is named by the model. Maps are
enlarged when they are measured, so the store is small (a 32 x 32 map is 4 kB) and memory does not grow with the set.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError, DataError, ImageError
from ad_dinov3.files import file_hash, replacing
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.types import Sample

_THREADS = 2


@dataclass(frozen=True)
class TestSet:
    """A labelled data set that is measured on.

    Attributes:
        name: what tables and the zero-shot rule call it.
        samples: its images, of one class or several.
        words: (class, words) where prompts need other words than the class's name.
        problems: one line for each image of it that has no usable mask and is not among the samples.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    samples: tuple[Sample, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What a method said of one image.

    Attributes:
        patch_map: (h, w) float32 in [0, 1] at the method's own resolution.
        score: image score in [0, 1].
        seconds: decoding and scoring, as this image's share of its batch.
    """

    patch_map: NDArray[np.float32]
    score: float
    seconds: float


@dataclass(frozen=True)
class Item:
    """One image to score: the sample, the words of its class in prompts, and its file in the store."""

    sample: Sample
    words: str
    image_hash: str
    stored: Path


@dataclass(frozen=True)
class ScoringOptions:
    """How scoring is carried out; nothing here changes a number.

    Attributes:
        batch_size: images per call of the detector.
        share: (index, count): this process scores every count-th image, beginning with the index-th; processes that
            share a folder divide the work, and whoever measures afterwards finds all of it done.
        report: told (images done, images in all).
    """

    batch_size: int = 8
    share: tuple[int, int] = (0, 1)
    report: Callable[[int, int], None] = lambda done, total: None

    def __post_init__(self) -> None:
        index, count = self.share
        if self.batch_size < 1 or not 0 <= index < count:
            raise ConfigError(
                f"expected a batch size of at least 1 and a share (index < count), got {self.batch_size}, {self.share}"
            )


def items_of(data: TestSet, protocol: Protocol, store: Path) -> list[Item]:
    """The images of a data set with their hashes and places in the store.

    Raises:
        DataError: an image cannot be read.
    """
    items = []
    for sample in data.samples:
        words = protocol.words(sample.class_name)
        words = data.words.get(words, words)
        image_hash = file_hash(sample.image_path)
        key = hashlib.sha256(f"{image_hash} {words}".encode()).hexdigest()[:32]
        items.append(Item(sample, words, image_hash, store / key[:2] / f"{key}.npz"))
    return items


def score_items(detector: Scorer, items: Sequence[Item], options: ScoringOptions) -> list[ImageError]:
    """Score the images that are not in the store yet.

    Returns:
        the images that could not be decoded.

    Raises:
        DataError: the model answered with NaN or outside [0, 1].
    """
    index, count = options.share
    missing = [item for item in items[index::count] if not item.stored.is_file()]
    broken: list[ImageError] = []
    done = len(items) - len(missing)
    options.report(done, len(items))
    started = time.perf_counter()
    with ThreadPoolExecutor(_THREADS, "decode") as pool:
        decoded = _ahead(pool, lambda item: _prepared(detector, item), missing, 2 * options.batch_size)
        for batch in _batches(zip(missing, decoded, strict=True), options.batch_size):
            good = [(item, tensor) for item, tensor in batch if isinstance(tensor, np.ndarray)]
            broken += [tensor for _, tensor in batch if isinstance(tensor, ImageError)]
            if good:
                raw = detector.score(np.stack([tensor for _, tensor in good]), [item.words for item, _ in good])
                each = (time.perf_counter() - started) / len(good)
                for (item, _), patch_map, score in zip(good, raw.maps, raw.scores, strict=True):
                    _write(item, Scored(patch_map, float(score), each))
            started = time.perf_counter()
            done += len(batch)
            options.report(done, len(items))
    return broken


def read_scored(item: Item) -> Scored:
    """What the store holds of an image.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with np.load(item.stored) as file:
            return Scored(file["patch_map"], float(file["score"]), float(file["seconds"]))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{item.stored}: no scores of {item.sample.image_path} ({error}); run the evaluation again to make them"
        ) from None


def _write(item: Item, scored: Scored) -> None:
    low, high = float(scored.patch_map.min()), float(scored.patch_map.max())
    if not (low >= 0.0 and high <= 1.0 and 0.0 <= scored.score <= 1.0):
        raise DataError(
            f"{item.sample.image_path}: expected a map and a score in [0, 1], "
            f"got [{low}, {high}] and {scored.score}; check the model's weights and precision"
        )
    with replacing(item.stored) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            patch_map=scored.patch_map.astype(np.float32),
            score=np.float64(scored.score),
            seconds=np.float64(scored.seconds),
        )


def _prepared(detector: Scorer, item: Item) -> NDArray[np.uint8] | ImageError:
    try:
        return detector.prepare(decode_image(item.sample.image_path))
    except ImageError as error:
        return error


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], NDArray[np.uint8] | ImageError],
    items: Iterable[Item],
    limit: int,
) -> Iterator[NDArray[np.uint8] | ImageError]:
    """``work`` of each item, in order, at most ``limit`` of them under way or waiting."""
    window: deque[Future[NDArray[np.uint8] | ImageError]] = deque()
    for item in items:
        window.append(pool.submit(work, item))
        if len(window) >= limit:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def _batches(
    pairs: Iterable[tuple[Item, NDArray[np.uint8] | ImageError]], size: int
) -> Iterator[list[tuple[Item, NDArray[np.uint8] | ImageError]]]:
    batch: list[tuple[Item, NDArray[np.uint8] | ImageError]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
