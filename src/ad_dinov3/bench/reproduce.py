"""Train what a study's lines need, measure them, and write the rows; a second call goes on where the first stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad_dinov3.bench.plan import Plan, StudyOptions
from ad_dinov3.bench.rows import MetricRow, write_metric_rows
from ad_dinov3.bench.run import Evaluation, Subject, evaluate
from ad_dinov3.bench.scoring import ScoringOptions, as_test_set
from ad_dinov3.bench.studies import Route, Variant
from ad_dinov3.bench.subjects import detector_subject
from ad_dinov3.config import ModelConfig
from ad_dinov3.data.listing import spread
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.model import load_model, new_model
from ad_dinov3.training.loop import Progress, RunOptions, train
from ad_dinov3.types import Sample
from ad_dinov3.weights.saved import read_config


@dataclass(frozen=True)
class Reports:
    """Whom to tell: of a new step in words, of a training's progress, of images scored, of a finished evaluation."""

    step: Callable[[str], None] = lambda text: None
    training: Callable[[Progress], None] = lambda progress: None
    scoring: Callable[[int, int], None] = lambda done, total: None
    evaluated: Callable[[Evaluation], None] = lambda evaluation: None


def run_study(plan: Plan, options: StudyOptions, reports: Reports | None = None) -> list[MetricRow]:
    """Train every variant with every seed on every route, measure it, and write the rows to ``options.out``.

    Finished models are not trained again and scored images not scored again.

    Returns:
        the rows of this study.

    Raises:
        DataError: data that cannot be used.
        ConfigError: a model of other settings is in the way.
    """
    reports = reports or Reports()
    # What is not trained comes up on every route, and counts once.
    rows: dict[tuple[str, ...], tuple[MetricRow, ...]] = {}
    for route in plan.routes:
        for variant, seed in _runs(plan.variants, options.seeds):
            subject = subject_of(variant, seed, route, options, reports)
            for name in route.test:
                test_set = as_test_set(options.open(name), options.limit)
                reports.step(f"{variant.label}, seed {seed}: measuring on {test_set.name}")
                scoring = ScoringOptions(options.batch_size, report=reports.scoring)
                result = evaluate(subject, test_set, options.protocol, options.out / "store", scoring)
                rows[result.rows[0].run] = result.rows
                write_metric_rows(options.out, result.rows)
                reports.evaluated(result)
    return [row for evaluated in rows.values() for row in evaluated]


def trained_model(variant: Variant, seed: int, route: Route, options: StudyOptions, reports: Reports) -> Path:
    """The folder of a variant's model, trained if it is not there yet.

    Raises:
        ConfigError: a model of other settings is in the way.
        DataError: training data that cannot be used.
    """
    names = tuple(options.open(name).name for name in route.train)
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
        data = options.open(name)
        samples += spread(data.listing.complete(), options.limit)
        words |= data.words
    run = RunOptions(options.device, options.cache, resume=True, report=reports.training)
    train(new_model(config, words), samples, folder, run)
    return folder


def subject_of(variant: Variant, seed: int, route: Route, options: StudyOptions, reports: Reports) -> Subject:
    """A line of a study, ready to be measured, trained if need be."""
    if variant.is_trained:
        model = load_model(trained_model(variant, seed, route, options, reports), device=options.device)
    else:
        model = new_model(variant.config(options.preset, options.changes))
    name = f"seed {seed}" if variant.is_trained else model.encoder.spec.name
    subject = detector_subject(Detector(model, device=options.device), name, options.device)
    return replace(subject, method=variant.label)


def _runs(variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[tuple[Variant, int]]:
    """Each variant with each seed; what is not trained needs one only."""
    for variant in variants:
        for seed in seeds if variant.is_trained else seeds[:1]:
            yield variant, seed


def _check_same(folder: Path, config: ModelConfig) -> None:
    """Refuse a model that was made with other settings; the words baked into it may differ."""
    found = read_config(folder)
    if found.model_copy(update={"class_names": ()}) != config.model_copy(update={"class_names": ()}):
        raise ConfigError(f"{folder} holds a model of other settings; choose another --out, or remove it")
