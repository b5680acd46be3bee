"""Score a data set's images once each, and keep what came out on disk, so that a killed run goes on where it was.

One small file per image holds the map on the method's own grid, the image score and the seconds that it took; the
file's name is a digest of the image's bytes and the words of its class, and its folder is named by the model. Maps are
enlarged when they are measured, so the store is small (a 32 x 32 map is 4 kB) and memory does not grow with the set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.data.catalog import LabelledData
from ad_dinov3.data.listing import spread
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.files import file_hash, replacing
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.predict.drive import DriveOptions, stream
from ad_dinov3.predict.shards import ALL, Shard
from ad_dinov3.predict.types import Scored
from ad_dinov3.types import Sample, class_words


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

    def words_of(self, class_name: str, protocol: Protocol) -> str:
        """What prompts call a class under a protocol."""
        said = protocol.words(class_name)
        return self.words.get(said, said)


def as_test_set(labelled: LabelledData, limit: int | None) -> TestSet:
    """A data set that was opened, or at most ``limit`` of its images, evenly spread, as one that is measured on."""
    # Ordinary words are what the prompts make of the name itself, under which a model may hold them ready.
    words = {name: said for name, said in labelled.words.items() if said != class_words(name)}
    listing = labelled.listing
    return TestSet(labelled.name, tuple(spread(listing.samples, limit)), words, listing.problems)


@dataclass(frozen=True)
class StoredScores:
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
        shard: the part of the images that this process scores; processes that write to one folder divide the work, and
            whoever measures afterwards finds all of it done.
        report: told (images done, images in all).
    """

    batch_size: int = 8
    shard: Shard = ALL
    report: Callable[[int, int], None] = lambda done, total: None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"expected a batch size of at least 1, got {self.batch_size}")


def image_hash(path: Path) -> str:
    """Hex sha256 of an image's file, computed once per version of the file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    return file_hash(path)


def items_of(data: TestSet, protocol: Protocol, store: Path) -> list[Item]:
    """The images of a data set with their hashes and places in the store.

    Raises:
        DataError: an image cannot be read.
    """
    items = []
    for sample in data.samples:
        words = data.words_of(sample.class_name, protocol)
        digest = image_hash(sample.image_path)
        key = hashlib.sha256(f"{digest} {words}".encode()).hexdigest()[:32]
        items.append(Item(sample, words, digest, store / key[:2] / f"{key}.npz"))
    return items


def score_items(detector: Scorer, items: Sequence[Item], options: ScoringOptions) -> dict[Path, str]:
    """Score the images that are not in the store yet; damaged files in it are made anew.

    Returns:
        place in the store -> reason, for the images that could not be decoded.

    Raises:
        DataError: the model answered with NaN or outside [0, 1], or the store cannot be written.
    """
    mine = (item for item in items if options.shard.holds(item.stored.stem))
    missing = {item.stored: item for item in mine if not _is_stored(item)}
    broken: dict[Path, str] = {}
    files = (ImageFile(item.sample.image_path, str(item.stored), class_name=item.words) for item in missing.values())
    done = len(items) - len(missing)
    options.report(done, len(items))
    for outcome in stream(files, detector, DriveOptions(batch_size=options.batch_size), _write):
        if outcome is not None:
            if outcome.step != "decode":
                raise DataError(f"{outcome.item.path}: {outcome.reason}")
            broken[Path(outcome.item.name)] = f"{outcome.item.path}: {outcome.reason}"
        done += 1
        options.report(done, len(items))
    return broken


def read_scored(item: Item) -> StoredScores:
    """What the store holds of an image.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(item.stored) as file:
            return StoredScores(file["patch_map"], float(file["score"]), float(file["seconds"]))
    except (OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, BadZipFile) as error:
        raise DataError(
            f"{item.stored}: no scores of {item.sample.image_path} ({error}); run the evaluation again to make them"
        ) from None


def _is_stored(item: Item) -> bool:
    try:
        read_scored(item)
    except DataError:
        return False
    return True


def _write(scored: Scored) -> None:
    with replacing(Path(scored.item.name)) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            patch_map=scored.raw.patch_map.astype(np.float32).clip(0.0, 1.0),
            score=np.float64(min(max(scored.raw.score, 0.0), 1.0)),
            seconds=np.float64(scored.seconds),
        )
