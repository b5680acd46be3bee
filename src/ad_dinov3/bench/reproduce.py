"""Make a study from whatever is there: what is missing is said first, then models are trained and measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ad_dinov3.bench.gallery import choose_cases, draw_gallery
from ad_dinov3.bench.metric_table import METRICS
from ad_dinov3.bench.protocol import PROTOCOLS, Protocol
from ad_dinov3.bench.rows import Row, write_rows
from ad_dinov3.bench.run import Evaluation, Subject, evaluate, score
from ad_dinov3.bench.scoring import ScoringOptions, TestSet
from ad_dinov3.bench.similarity import draw_similarity
from ad_dinov3.bench.studies import Route, Study, Variant
from ad_dinov3.bench.subjects import detector_subject, mahalanobis_subject
from ad_dinov3.config import ModelConfig, validated
from ad_dinov3.data.catalog import LabelledData, class_words, open_data
from ad_dinov3.data.listing import spread
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import ConfigError, DataError, WeightsError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.model import load_model, new_model, plain_model
from ad_dinov3.training.loop import Progress, RunOptions, train
from ad_dinov3.types import Sample
from ad_dinov3.weights import find_local, public_row, ways


@dataclass(frozen=True)
class StudyOptions:
    """How a study is carried out.

    Attributes:
        out: folder of models, rows and stored scores; a second call goes on there.
        preset: settings that the variants change.
        changes: dotted settings for all variants; ``encoder`` is the weights' name or path.
        seeds: of the trainings.
        protocol: of the evaluations.
        data_roots: where data sets are looked for; None: the usual places.
        limit: at most this many images of each set, evenly spread.
        batch_size: images per step of scoring.
        device: a torch device.
        cache: keep the frozen features of training images on disk.
    """

    out: Path
    preset: str = "paper"
    changes: dict[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    protocol: Protocol = PROTOCOLS["paper"]
    data_roots: tuple[Path, ...] | None = None
    limit: int | None = None
    batch_size: int = 8
    device: str = "cpu"
    cache: bool = True


@dataclass(frozen=True)
class Need:
    """One thing that a study needs.

    Attributes:
        name: data set or weights.
        kind: ``data`` or ``weights``.
        is_there: found on this machine.
        how: where it was found, or where to get it.
    """

    name: str
    kind: str
    is_there: bool
    how: str


@dataclass(frozen=True)
class Plan:
    """What a study needs, and what of it can be done here.

    Attributes:
        study: the study.
        needs: everything, found or not.
        routes: the routes of which training data and at least one test set are there, without the missing sets.
        variants: the lines whose weights are there.
    """

    study: Study
    needs: tuple[Need, ...]
    routes: tuple[Route, ...]
    variants: tuple[Variant, ...]

    @property
    def is_possible(self) -> bool:
        return bool(self.routes and self.variants)


@dataclass(frozen=True)
class Reports:
    """Whom to tell: of a new step in words, of a training's progress, of images scored, of a finished evaluation."""

    step: Callable[[str], None] = lambda text: None
    training: Callable[[Progress], None] = lambda progress: None
    scoring: Callable[[int, int], None] = lambda done, total: None
    evaluated: Callable[[Evaluation], None] = lambda evaluation: None


def plan_study(study: Study, options: StudyOptions) -> Plan:
    """Look for the study's data and weights; nothing is downloaded or computed.

    Raises:
        ConfigError: no such preset or setting.
    """
    names = list(dict.fromkeys(name for route in study.routes for name in (*route.train, *route.test)))
    data = {name: _find_data(name, options) for name in names}
    per_variant = {v.label: _weights_of(v, options) for v in study.variants}
    weights = {name: _find_weights(name) for wanted in per_variant.values() for name in wanted}
    routes = []
    for route in study.routes:
        tests = tuple(name for name in route.test if data[name].is_there)
        if tests and all(data[name].is_there for name in route.train):
            routes.append(Route(route.train, tests))
    variants = tuple(v for v in study.variants if all(weights[name].is_there for name in per_variant[v.label]))
    return Plan(study, (*data.values(), *weights.values()), tuple(routes), variants)


def run_study(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> list[Row]:
    """Train every variant with every seed on every route, measure it, and write the rows to ``options.out``.

    Finished models are not trained again and scored images not scored again.

    Returns:
        the rows of this study.

    Raises:
        DataError: data that cannot be used.
        ConfigError: a model of other settings is in the way.
    """
    reports = reports or Reports()
    rows: dict[tuple[str, ...], tuple[Row, ...]] = {}  # what is not trained comes up on every route, and counts once
    for route in plan.routes:
        for variant, seed in _runs(plan.variants, options.seeds):
            subject = _subject(variant, seed, route, options, reports)
            for name in route.test:
                test_set = _test_set(_open(name, options), options.limit)
                reports.step(f"{variant.label}, seed {seed}: measuring on {test_set.name}")
                scoring = ScoringOptions(options.batch_size, report=reports.scoring)
                result = evaluate(subject, test_set, options.protocol, options.out / "store", scoring)
                rows[result.rows[0].run] = result.rows
                write_rows(options.out, result.rows)
                reports.evaluated(result)
    return [row for evaluated in rows.values() for row in evaluated]


def seed_summary(rows: Sequence[Row], metrics: Sequence[str] = ("pixel_auroc", "pixel_f1_max")) -> str:
    """A Markdown table of means over seeds with their sample standard deviations, in %; class means only."""
    names = [METRICS[metric].title for metric in metrics]
    lines = [
        "| method | trained on | data | seeds | " + " | ".join(names) + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    chosen = [row for row in rows if row.scope == "mean" and row.metric in metrics]
    for method, lent, data in dict.fromkeys((row.method, row.trained_on, row.data) for row in chosen):
        cells, count = [], 0
        for metric in metrics:
            key = (method, lent, data, metric)
            mine = [r for r in chosen if (r.method, r.trained_on, r.data, r.metric) == key]
            values = [100 * r.value for r in mine if r.value is not None]
            count = max(count, len(values))
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "n/a")
        lines.append(f"| {method} | {', '.join(lent) or 'nothing'} | {data} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def describe_data(plan: Plan, limit: int | None) -> str:
    """What stands above a table, in Markdown: the data it was made on, and what of them was missing."""
    lines = []
    missing = [need.name for need in plan.needs if not need.is_there]
    if missing:
        lines.append(f"Not made, because it was missing here: {short_names(missing)}.")
    for route in plan.routes:
        lines.append(f"Trained on {short_names(route.train)}; measured on {short_names(route.test)}.")
    if limit is not None:
        lines.append(f"At most {limit} images of each set were used, evenly spread.")
    return "\n\n".join(lines) + "\n"


def short_names(specs: Iterable[str]) -> str:
    """Data sets without the folders they lie in."""
    return ", ".join(Path(spec.partition("=")[0]).name for spec in specs)


def trained_model(variant: Variant, seed: int, route: Route, options: StudyOptions, reports: Reports) -> Path:
    """The folder of a variant's model, trained if it is not there yet.

    Raises:
        ConfigError: a model of other settings is in the way.
        DataError: training data that cannot be used.
    """
    names = tuple(_open(name, options).name for name in route.train)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{variant.label} {' '.join(names)}".lower()).strip("-")
    folder = options.out / "models" / f"{slug}-seed{seed}"
    config = variant.config(options.preset, {**options.changes, "train.seed": seed, "trained_on": names})
    if (folder / "config.json").is_file():
        _check_same(folder, config)
        return folder
    reports.step(f"{variant.label}, seed {seed}: training on {', '.join(names)}")
    samples: list[Sample] = []
    words: dict[str, str] = {}
    for name in route.train:
        data = _open(name, options)
        samples += spread(data.listing.complete(), options.limit)
        words |= data.words
    run = RunOptions(options.device, options.cache, resume=True, report=reports.training)
    train(new_model(config, words), samples, folder, run)
    return folder


def _runs(variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[tuple[Variant, int]]:
    """Each variant with each seed; what is not trained needs one only."""
    for variant in variants:
        for seed in seeds if variant.is_trained else seeds[:1]:
            yield variant, seed


def _subject(variant: Variant, seed: int, route: Route, options: StudyOptions, reports: Reports) -> Subject:
    if variant.method == "mahalanobis":
        return replace(mahalanobis_subject(), method=variant.label)
    if variant.is_trained:
        model = load_model(trained_model(variant, seed, route, options, reports), device=options.device)
    else:
        config = variant.config(options.preset, options.changes)
        is_plain = variant.method == "dinov3_plain"
        model = plain_model(config.encoder, config) if is_plain else new_model(config)
    name = f"seed {seed}" if variant.is_trained else model.encoder.spec.name
    subject = detector_subject(Detector(model, device=options.device), name, options.device)
    return replace(subject, method=variant.label)


def _check_same(folder: Path, config: ModelConfig) -> None:
    """Refuse a model that was made with other settings; the words baked into it may differ."""
    found = validated(ModelConfig, json.loads((folder / "config.json").read_text(encoding="utf-8")), str(folder))
    if found.model_copy(update={"class_names": ()}) != config.model_copy(update={"class_names": ()}):
        raise ConfigError(f"{folder} holds a model of other settings; choose another --out, or remove it")


def _weights_of(variant: Variant, options: StudyOptions) -> list[str]:
    """Names of the weights that a variant needs."""
    if variant.method == "mahalanobis":
        return []
    config = variant.config(options.preset, options.changes)
    needs_text = variant.method == "ad_dinov3" and config.prompts.source == "clip"
    return [config.encoder, *([config.prompts.text_encoder] if needs_text else [])]


def _find_weights(name: str) -> Need:
    try:
        found = find_local(name)
    except WeightsError as error:
        return Need(name, "weights", False, str(error))
    if found is None:
        return Need(name, "weights", False, ways(public_row(name)).strip())
    return Need(name, "weights", True, str(found.path))


def _find_data(name: str, options: StudyOptions) -> Need:
    try:
        data = _open(name, options)
    except DataError as error:
        return Need(name, "data", False, str(error))
    return Need(name, "data", True, str(data.root))


def _open(name: str, options: StudyOptions) -> LabelledData:
    return open_data(name, options.data_roots)


def _test_set(data: LabelledData, limit: int | None) -> TestSet:
    words = {name: said for name, said in data.words.items() if said != class_words(name)}
    return TestSet(data.name, tuple(spread(data.listing.complete(), limit)), words)


def figure3(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> Iterator[tuple[str, Image.Image]]:
    """Maps of every line of the plan, of the untrained baseline and of the classical floor, for each test set.

    Yields:
        the data set's name and the picture; cases are chosen by AD-DINOv3's map.
    """
    reports = reports or Reports()
    lines = sorted(plan.variants, key=lambda variant: variant.label != "AD-DINOv3")
    baseline = Variant("untrained baseline", "dinov3_plain")
    for route in plan.routes:
        subjects = [_subject(line, options.seeds[0], route, options, reports) for line in (*lines, baseline)]
        subjects.append(mahalanobis_subject())
        for name in route.test:
            test_set = _test_set(_open(name, options), options.limit)
            stored = []
            for subject in subjects:
                reports.step(f"{subject.method}: scoring {test_set.name}")
                scoring = ScoringOptions(options.batch_size, report=reports.scoring)
                items, broken = score(subject, test_set, options.protocol, options.out / "store", scoring)
                stored.append([item for item in items if item.stored not in broken])
            yield test_set.name, draw_gallery(choose_cases(stored), [subject.method for subject in subjects])


def figure1(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> Iterator[tuple[str, Image.Image]]:
    """Similarity of a normal and of an anomalous patch to all others, for each test set.

    The image is, of the anomalous ones, the one whose share of anomalous pixels is nearest to a tenth.

    Yields:
        the data set's name and the picture.
    """
    reports = reports or Reports()
    adapted = next(variant for variant in plan.variants if variant.label == "AD-DINOv3")
    for route in plan.routes:
        folder = trained_model(adapted, options.seeds[0], route, options, reports)
        detector = Detector(load_model(folder, device=options.device), device=options.device)
        for name in route.test:
            test_set = _test_set(_open(name, options), options.limit)
            reports.step(f"similarities on {test_set.name}")
            anomalous = [sample for sample in test_set.samples if sample.mask_path is not None]
            yield test_set.name, draw_similarity(detector, _typical(anomalous))


def _typical(samples: Sequence[Sample]) -> Sample:
    shares = [float(load_mask(sample).mean()) for sample in samples]
    if not shares:
        raise DataError("figure 1 needs anomalous images, and there are none")
    return samples[int(np.argmin(np.abs(np.array(shares) - 0.1)))]
