"""Method x data set x protocol -> rows, resumable at any image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path

from ad_dinov3.bench.measure import GroupResult, StoredMaps, StoredMasks, mean_of, measure, read_pairs
from ad_dinov3.bench.metric_table import METRICS, Estimate
from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.bench.rows import MetricRow, Scope, installed_versions, peak_memory_mb, source_commit
from ad_dinov3.bench.scoring import Item, ScoringOptions, TestSet, items_of, score_items
from ad_dinov3.bench.seen import Seen, refuse_seen
from ad_dinov3.data.listing import first_few
from ad_dinov3.errors import DataError
from ad_dinov3.files import file_hash
from ad_dinov3.infer.image_files import write_map_png16
from ad_dinov3.infer.scorer import Scorer


@dataclass(frozen=True)
class Subject:
    """A method with weights, ready to be measured, and what its rows must say of it.

    Attributes:
        detector: prepares and scores images.
        method: the method's name in tables.
        model: the name or folder that was asked for.
        weights_hash: equal hashes give equal maps.
        input_size: (H, W) in px of the model's input.
        interpolation: filter of the resize to it.
        trained_on: names of the training data.
        encoder_trained_on: names of the data sets that the encoder has seen, as far as it says.
        seen_images: sha256 of all these images' files.
        training_seed: of the training; None for untrained methods.
        device: where it runs.
    """

    detector: Scorer
    method: str
    model: str
    weights_hash: str
    input_size: tuple[int, int]
    interpolation: str
    trained_on: tuple[str, ...] = ()
    encoder_trained_on: tuple[str, ...] = ()
    seen_images: frozenset[str] = field(default=frozenset(), repr=False)
    training_seed: int | None = None
    device: str = "cpu"

    @property
    def seen(self) -> Seen:
        """What it has seen."""
        return Seen(self.model, self.trained_on, self.encoder_trained_on, self.seen_images)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What came of one method on one data set.

    Attributes:
        rows: one per class and metric, then the mean over classes, then all images pooled.
        classes: the results behind them, by class.
        pooled: the result over all images.
        items: the measured images; their maps are in the store.
        left_out: one line for each image that could not be used: no mask, a mask that does not fit, not decodable.
        overlap: what the model has seen of the data, in words; None: nothing, the figures are zero-shot.
    """

    rows: tuple[MetricRow, ...]
    classes: dict[str, GroupResult]
    pooled: GroupResult
    items: tuple[Item, ...]
    left_out: tuple[str, ...]
    overlap: str | None = None

    @property
    def values(self) -> dict[str, float | None]:
        """The pooled figures in [0, 1] by metric; None where undefined."""
        return {name: estimate.value for name, estimate in self.pooled.estimates.items()}

    def to_dicts(self) -> list[dict[str, object]]:
        """The rows as dicts, ready for JSON or a data frame."""
        return [asdict(row) for row in self.rows]

    def __repr__(self) -> str:
        figures = ", ".join(
            f"{METRICS[name].title} {METRICS[name].shown(value)}" for name, value in self.values.items()
        )
        return f"<Evaluation of {self.rows[0].method} on {self.rows[0].data}, {self.pooled.images} images: {figures}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a table of the classes and of all images pooled, in percent."""
        groups = {**self.classes, **({} if len(self.classes) == 1 else {"pooled": self.pooled})}
        heads = ["class", "images", *(METRICS[name].title for name in self.values)]
        lines = [
            [name, str(group.images), *(METRICS[key].shown(one.value) for key, one in group.estimates.items())]
            for name, group in groups.items()
        ]
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        mark = f"<p>Seen data, not zero-shot: {escape(self.overlap)}</p>" if self.overlap else ""
        return f"{mark}<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{body}</table>"


@dataclass(frozen=True)
class Tolerance:
    """What is measured although it is an error by default.

    Attributes:
        skip_bad: images that cannot be used are left out and listed; else they are an error, before anything is scored
            if possible.
        seen_too: data that the model has seen are measured, and every row says so; else they are refused.
    """

    skip_bad: bool = False
    seen_too: bool = False


STRICT = Tolerance()


def evaluate(
    subject: Subject,
    data: TestSet,
    protocol: Protocol,
    store: Path,
    options: ScoringOptions | None = None,
    tolerance: Tolerance = STRICT,
) -> Evaluation:
    """Score every image once, then measure each class, their mean and the pooled set.

    Args:
        subject: the method.
        data: what it is measured on.
        protocol: how.
        store: folder of scored images; what is in it is not scored again.
        options: how scoring is carried out.
        tolerance: what is let through.

    Raises:
        DataError: no image; training and test data overlap; an image or mask cannot be used; another process's shard
            of the images is not scored yet.
    """
    pairs = read_pairs(data.samples, protocol)
    unfit = [*data.problems, *pairs.problems]
    if not tolerance.skip_bad:
        _refuse(unfit)
    items, broken = score(subject, replace(data, samples=pairs.samples), protocol, store, options, tolerance)
    undecodable = [_named(broken[item.stored], item) for item in items if item.stored in broken]
    if not tolerance.skip_bad:
        _refuse(undecodable)
    kept = [index for index, item in enumerate(items) if item.stored not in broken]
    items, masks = [items[index] for index in kept], pairs.masks.pick(kept)
    waiting = sum(not item.stored.is_file() for item in items)
    if waiting:
        raise DataError(f"{waiting} of {len(items)} images are not scored yet; run the other shards first")
    names = list(dict.fromkeys(item.sample.class_name for item in items))
    classes = {name: _measure_class(items, masks, name, protocol) for name in names}
    pooled = next(iter(classes.values())) if len(classes) == 1 else measure(items, masks, protocol)
    overlap = _overlap(subject, data.name, items)
    versions, commit = installed_versions(), source_commit()
    origin = _Origin(subject, data.name, protocol, data_hash(items), overlap is not None, versions, commit)
    rows = tuple(origin.rows(classes, pooled))
    return Evaluation(rows, classes, pooled, tuple(items), (*unfit, *undecodable), overlap)


def score(
    subject: Subject,
    data: TestSet,
    protocol: Protocol,
    store: Path,
    options: ScoringOptions | None = None,
    tolerance: Tolerance = STRICT,
) -> tuple[list[Item], dict[Path, str]]:
    """The first half of `evaluate`: score this process's shard of the images into the store.

    Returns:
        all images of the set, and place in the store -> reason for those of the shard that could not be decoded.

    Raises:
        DataError: no image; training and test data overlap; an image cannot be read.
    """
    if not data.samples:
        raise DataError(f"{data.name}: no images to measure on")
    items = items_of(data, protocol, store / subject.weights_hash)
    overlap = _overlap(subject, data.name, items)
    if overlap and not tolerance.seen_too:
        refuse_seen(overlap)
    return items, score_items(subject.detector, items, options or ScoringOptions())


def _overlap(subject: Subject, data_name: str, items: Iterable[Item]) -> str | None:
    return subject.seen.overlap(data_name, ((item.sample.image_path, item.image_hash) for item in items))


def data_hash(items: Sequence[Item]) -> str:
    """Hex digest over the images, masks and classes that were measured, whatever their order and place."""
    lines = []
    for item in items:
        sample = item.sample
        truth = file_hash(sample.mask_path) if sample.mask_path else "anomalous" if sample.is_anomalous else "normal"
        lines.append(f"{sample.class_name} {item.image_hash} {truth}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Origin:
    """What all rows of an evaluation share."""

    subject: Subject
    data_name: str
    protocol: Protocol
    digest: str
    seen: bool
    versions: str
    commit: str | None

    def rows(self, classes: Mapping[str, GroupResult], pooled: GroupResult) -> list[MetricRow]:
        """Rows of every class, of their mean and of the pooled set."""
        mean = mean_of(list(classes.values()), self.protocol)
        every = [row for name, group in classes.items() for row in self._group("class", name, group, 1)]
        return [
            *every,
            *self._group("mean", "", mean, len(classes)),
            *self._group("pooled", "", pooled, len(classes)),
        ]

    def _group(self, scope: Scope, name: str, group: GroupResult, classes: int) -> list[MetricRow]:
        known = [(metric, group.estimates[metric]) for metric in METRICS if metric in group.estimates]
        return [self._row(metric, estimate, scope, name, group, classes) for metric, estimate in known]

    def _row(
        self,
        metric: str,
        estimate: Estimate,
        scope: Scope,
        name: str,
        group: GroupResult,
        classes: int,
    ) -> MetricRow:
        subject, protocol, interval = self.subject, self.protocol, estimate.interval
        return MetricRow(
            method=subject.method,
            model=subject.model,
            weights_hash=subject.weights_hash,
            trained_on=subject.trained_on,
            training_seed=subject.training_seed,
            input_size=subject.input_size,
            interpolation=subject.interpolation,
            data=self.data_name,
            data_hash=self.digest,
            scope=scope,
            class_name=name,
            metric=metric,
            value=estimate.value,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            level=protocol.level,
            threshold=estimate.threshold,
            images=group.images,
            anomalous_images=group.anomalous_images,
            pixels=group.pixels,
            regions=group.regions,
            classes=classes,
            estimator=group.estimator,
            protocol=protocol.name,
            protocol_hash=protocol.digest,
            seconds=round(group.seconds, 3),
            peak_memory_mb=round(peak_memory_mb(), 1),
            device=subject.device,
            versions=self.versions,
            commit=self.commit,
            seen=self.seen,
        )


def save_maps(evaluation: Evaluation, protocol: Protocol, folder: Path) -> None:
    """Write the maps at the size of evaluation as 16-bit PNG, ``<class>/<defect>/<image>.png`` below a folder."""
    masks = read_pairs([item.sample for item in evaluation.items], protocol).masks
    for item, anomaly_map in zip(evaluation.items, StoredMaps(evaluation.items, masks), strict=True):
        sample = item.sample
        write_map_png16(folder / sample.class_name / sample.defect / f"{sample.image_path.stem}.png", anomaly_map)


def _named(error: str, item: Item) -> str:
    """What is wrong with an image, with its mask's path too."""
    return f"{error} (mask {item.sample.mask_path})" if item.sample.mask_path else error


def _refuse(problems: Sequence[str]) -> None:
    """DataError if there are any, with the first few."""
    if problems:
        raise DataError(f"{len(problems)} images cannot be used (--skip-bad omits them): {first_few(problems)}")


def _measure_class(items: Sequence[Item], masks: StoredMasks, name: str, protocol: Protocol) -> GroupResult:
    chosen = [i for i, item in enumerate(items) if item.sample.class_name == name]
    return measure([items[i] for i in chosen], masks.pick(chosen), protocol)
