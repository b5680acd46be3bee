"""From stored maps and masks to the metrics of a group of images, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.metric_table import Estimate, Evidence, Level, estimate_all
from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.bench.scoring import Item, read_scored
from ad_dinov3.data.decode import image_size
from ad_dinov3.errors import DataError, ImageError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.metrics.intervals import bootstrap_images, bootstrap_pixels, image_histograms, interval, mean_replicates
from ad_dinov3.metrics.ranking import RankingCounts, count_ranking
from ad_dinov3.metrics.regions import RegionCounts, count_regions
from ad_dinov3.metrics.streaming import BINS, StreamingPixels
from ad_dinov3.types import Sample


@dataclass(frozen=True)
class GroupResult:
    """The metrics of a group of images by name, and what they rest on.

    Attributes:
        estimates: metric -> value.
        images: measured.
        anomalous_images: of which anomalous.
        pixels: measured.
        seconds: scoring of the images.
        estimator: ``exact`` or ``65536 bins``.
        pixel_counts: for curves; None for a mean over classes.
        image_counts: the same of image scores.
    """

    estimates: dict[str, Estimate]
    images: int
    anomalous_images: int
    pixels: int
    seconds: float
    estimator: str
    regions: int
    pixel_counts: RegionCounts | None
    image_counts: RankingCounts | None


class StoredMaps(Sequence[NDArray[np.float32]]):
    """The stored maps of some images, each enlarged to its mask's size when it is asked for.

    Args:
        items: images that are in the store.
        masks: for their sizes.
    """

    def __init__(self, items: Sequence[Item], masks: StoredMasks) -> None:
        self._items = items
        self._masks = masks

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: slice) -> StoredMaps: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | StoredMaps:
        if isinstance(index, slice):
            return StoredMaps(self._items[index], self._masks[index])
        return upsample(read_scored(self._items[index]).patch_map, self._masks.size(index))


class StoredMasks(Sequence[NDArray[np.bool_]]):
    """Masks held as one bit per pixel: decoded once, an eighth of their memory.

    Args:
        packed: (bits, (H, W)) of each mask; the bits are None where only the image's label is known.
    """

    def __init__(self, packed: Sequence[tuple[bytes | None, tuple[int, int]]]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, index: slice) -> StoredMasks: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.bool_] | StoredMasks:
        if isinstance(index, slice):
            return StoredMasks(self._packed[index])
        bits, (height, width) = self._packed[index]
        if bits is None:
            raise DataError("an image without a mask has no pixels to measure")
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width).reshape(height, width).astype(bool)

    def pick(self, indices: Sequence[int]) -> StoredMasks:
        """Some of the masks, in the order of the indices."""
        return StoredMasks([self._packed[i] for i in indices])

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a mask in px."""
        return self._packed[index][1]


@dataclass(frozen=True)
class Pairs:
    """Samples whose mask fits or is not known, the masks at the size of evaluation, a line for each other sample."""

    samples: tuple[Sample, ...]
    masks: StoredMasks
    problems: tuple[str, ...]


def read_pairs(samples: Sequence[Sample], protocol: Protocol) -> Pairs:
    """Read the masks of some samples; images are opened as far as their size."""
    fitting: list[Sample] = []
    packed: list[tuple[bytes | None, tuple[int, int]]] = []
    problems = []
    for sample in samples:
        try:
            own_size = None if sample.mask_path else image_size(sample.image_path)  # nothing else opens the image
            mask = protocol.mask(sample) if sample.has_pixel_labels else None
        except (DataError, ImageError) as error:
            problems.append(str(error))
            continue
        fitting.append(sample)
        if mask is not None:
            packed.append((np.packbits(mask).tobytes(), (mask.shape[0], mask.shape[1])))
        elif own_size is not None:
            packed.append((None, protocol.size or own_size))
    return Pairs(tuple(fitting), StoredMasks(packed), tuple(problems))


def measure(items: Sequence[Item], masks: StoredMasks, protocol: Protocol) -> GroupResult:
    """All metrics of a group of images that are in the store.

    Pixels of a class count if every one of its anomalous images has a mask; else its images are ranked alone.

    Args:
        items: the images.
        masks: their ground truth, from `read_pairs`.
        protocol: what counts.

    Raises:
        DataError: an image is not in the store.
    """
    by_label_alone = {item.sample.class_name for item in items if not item.sample.has_pixel_labels}
    chosen = [
        index
        for index, item in enumerate(items)
        if item.sample.class_name not in by_label_alone and (protocol.images == "all" or item.sample.is_anomalous)
    ]
    used_masks = masks.pick(chosen)
    pixels = sum(h * w for h, w in map(used_masks.size, range(len(used_masks))))
    is_exact = pixels <= protocol.exact_up_to_px
    labels = np.array([item.sample.is_anomalous for item in items])
    stored = [read_scored(item) for item in items]
    scores = np.array([one.score for one in stored])
    drawn = bootstrap_images(scores, labels, resamples=protocol.resamples, seed=protocol.seed)
    evidence: dict[Level, Evidence] = {"image": Evidence(count_ranking(scores, labels), drawn, protocol)}
    if chosen:
        maps = StoredMaps([items[index] for index in chosen], used_masks)
        evidence["pixel"] = _pixel_evidence(maps, used_masks, protocol, is_exact)
    counts = evidence["pixel"].regions if chosen else None
    return GroupResult(
        estimate_all(evidence, protocol),
        images=len(items),
        anomalous_images=int(labels.sum()),
        pixels=pixels,
        seconds=sum(one.seconds for one in stored),
        estimator="exact" if is_exact else f"{BINS} bins",
        regions=counts.regions if counts else 0,
        pixel_counts=counts,
        image_counts=evidence["image"].ranking,
    )


def _pixel_evidence(maps: StoredMaps, masks: StoredMasks, protocol: Protocol, is_exact: bool) -> Evidence:
    counts = count_regions(maps, masks) if is_exact else _streamed(maps, masks)
    drawn = bootstrap_pixels(
        image_histograms(maps, masks, counts),
        resamples=protocol.resamples,
        seed=protocol.seed,
        fpr_limit=protocol.fpr_limit,
    )
    return Evidence(counts.ranking, drawn, protocol, counts, *((maps, masks) if is_exact else ()))


def mean_of(classes: Sequence[GroupResult], protocol: Protocol) -> GroupResult:
    """The unweighted mean over classes of each metric, over those classes where it is defined."""
    names = {name for group in classes for name in group.estimates}
    return GroupResult(
        {name: _mean_estimate([g.estimates[name] for g in classes if name in g.estimates], protocol) for name in names},
        images=sum(group.images for group in classes),
        anomalous_images=sum(group.anomalous_images for group in classes),
        pixels=sum(group.pixels for group in classes),
        seconds=sum(group.seconds for group in classes),
        estimator=" and ".join(sorted({group.estimator for group in classes})),
        regions=sum(group.regions for group in classes),
        pixel_counts=None,
        image_counts=None,
    )


def _mean_estimate(estimates: Sequence[Estimate], protocol: Protocol) -> Estimate:
    values = [e.value for e in estimates if e.value is not None]
    if not values:
        return Estimate(None)
    value = float(np.mean(values))
    drawn = [e.replicates for e in estimates if e.value is not None and e.replicates is not None]
    if len(drawn) < len(values):
        return Estimate(value)
    together = mean_replicates(drawn)
    return Estimate(value, interval(together, value, protocol.level), None, together)


def _streamed(maps: StoredMaps, masks: StoredMasks) -> RegionCounts:
    state = StreamingPixels.empty()
    for start in range(0, len(maps), 8):
        part = slice(start, start + 8)
        state = state.update(list(maps[part]), list(masks[part]))
    return state.counts()
