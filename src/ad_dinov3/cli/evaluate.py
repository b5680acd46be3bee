"""ad-dinov3 evaluate: measure a method on labelled data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import (
    DATA,
    MODEL,
    OUTPUT,
    AnyDevice,
    AnyModel,
    BatchSize,
    DataSets,
    Limit,
    Method,
    Offline,
    ProtocolText,
    ShardText,
    Weights,
    command_app,
    path_here,
)
from ad_dinov3.files import held

if TYPE_CHECKING:
    from ad_dinov3.bench.measure import GroupResult
    from ad_dinov3.bench.protocol import Protocol
    from ad_dinov3.bench.run import Evaluation, Subject, Tolerance
    from ad_dinov3.bench.scoring import TestSet
    from ad_dinov3.predict.shards import Shard

app = command_app()


@app.command()
def evaluate(
    data: DataSets,
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    normals: Annotated[
        str | None,
        typer.Option(
            help="Normal images that the model compares with: a folder, with a sub-folder for each class, or a number "
            "of images of each class, drawn from the set's own train/good.",
            metavar="DIR|N",
            rich_help_panel=MODEL,
        ),
    ] = None,
    compare: Annotated[
        Literal["folder"] | None,
        typer.Option(
            help="The images of a class are compared with each other, and with the normal images if there are some, as "
            "predict --compare folder does it. No label is looked at.",
            metavar="folder",
            rich_help_panel=MODEL,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="The seed of the draw of normal images.", metavar="N", rich_help_panel=MODEL)
    ] = 0,
    protocol: ProtocolText = "paper",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder of rows.jsonl and the stored scores.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("results"),
    limit: Limit = None,
    device: AnyDevice = "cpu",
    batch_size: BatchSize = 8,
    save_maps: Annotated[
        bool,
        typer.Option(
            "--save-maps",
            help="Every map is also written as 16-bit PNG, to OUT/maps.",
            metavar="",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves",
            help="ROC, precision-recall and PRO curves are also drawn, to OUT/curves.",
            metavar="",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Images that cannot be used are omitted and listed. Without the option they are an error.",
            metavar="",
            rich_help_panel=DATA,
        ),
    ] = False,
    seen_too: Annotated[
        bool,
        typer.Option(
            "--seen-too",
            help="Data that the model was trained on are measured too. Every figure is marked as not zero-shot.",
            metavar="",
            rich_help_panel=DATA,
        ),
    ] = False,
    shard: ShardText = "0/1",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Measure a method on labelled data sets, one row per class and metric.

    Scores of every image are kept in OUT/store: a run that was killed goes on where it stopped. Several processes share
    a set with --shard 0/4 ... --shard 3/4. Data that the model was trained on are refused, unless --seen-too is given.
    """
    from ad_dinov3.bench.checks import check_comparison, check_method, check_model, refuse_seen_sets
    from ad_dinov3.bench.protocol import read_protocol
    from ad_dinov3.bench.run import Tolerance
    from ad_dinov3.bench.scoring import as_test_set
    from ad_dinov3.bench.seen import seen_on_disk
    from ad_dinov3.data.catalog import open_data
    from ad_dinov3.predict.shards import read_shard

    check_method(method, weights, bool(normals or compare))
    check_model(method, model)
    rules, part = read_protocol(protocol), read_shard(shard, os.environ)
    if compare:
        check_comparison(part)
    sets = [as_test_set(open_data(spec), limit) for spec in data]
    output = Output(as_json)
    given = _Given({}) if normals is None else _normals(output.console, normals, seed, sets)
    if not seen_too:
        refuse_seen_sets(seen_on_disk(method, model, weights), sets, chain.from_iterable(given.images.values()))

    from ad_dinov3.bench.subjects import open_subject  # loads torch: after all that can be refused

    subject = open_subject(method, model, weights, device=device, offline=offline)
    base = _Run(output.console, subject, rules, out, batch_size, Tolerance(skip_bad, seen_too))
    if given.images and not compare:
        base = _remembering(base, given, sets)
    rows: list[dict[str, object]] = []
    with held(out, shared=part.count > 1):
        for test_set in sets:
            run = _comparing(base, given, test_set) if compare else base
            if part.count > 1:
                _score_shard(run, test_set, part)
                continue
            result = _evaluate(run, test_set)
            rows += result.to_dicts()
            if save_maps:
                _save_maps(run, test_set.name, result)
            if curves:
                _draw_curves(run, test_set.name, result)
    output.result({"out": out, "rows": rows})


@dataclass(frozen=True)
class _Given:
    """Normal images by class, and the seed that drew them if they were drawn."""

    images: dict[str, list[Path]]
    seed: int | None = None


@dataclass(frozen=True)
class _Run:
    console: Console
    subject: Subject
    protocol: Protocol
    out: Path
    batch_size: int
    tolerance: Tolerance

    @property
    def store(self) -> Path:
        return self.out / "store"


def _evaluate(run: _Run, test_set: TestSet) -> Evaluation:
    from ad_dinov3.bench.rows import write_metric_rows
    from ad_dinov3.bench.run import evaluate
    from ad_dinov3.bench.scoring import ScoringOptions

    with _bar(run.console, test_set.name) as report:
        options = ScoringOptions(run.batch_size, report=report)
        result = evaluate(run.subject, test_set, run.protocol, run.store, options, run.tolerance)
    run.console.print(_table(run, test_set.name, result))
    for line in result.left_out:
        run.console.print(f"omitted: {line}", style="yellow", markup=False, soft_wrap=True)
    file = write_metric_rows(run.out, result.rows)
    words = f"{len(result.rows)} rows in {file}; put runs side by side: ad-dinov3 compare {run.out}"
    run.console.print(words, soft_wrap=True)
    return result


def _score_shard(run: _Run, test_set: TestSet, part: Shard) -> None:
    from ad_dinov3.bench.run import score
    from ad_dinov3.bench.scoring import ScoringOptions

    with _bar(run.console, test_set.name) as report:
        options = ScoringOptions(run.batch_size, part, report)
        _, broken = score(run.subject, test_set, run.protocol, run.store, options, run.tolerance)
    run.console.print(f"{test_set.name}: shard {part} is scored, {len(broken)} images cannot be decoded")


def _save_maps(run: _Run, name: str, result: Evaluation) -> None:
    from ad_dinov3.bench.run import save_maps

    folder = run.out / "maps" / f"{run.subject.method}-{run.subject.weights_hash}" / name
    save_maps(result, run.protocol, folder)
    run.console.print(f"maps: {folder}")


def _draw_curves(run: _Run, name: str, result: Evaluation) -> None:
    from ad_dinov3.bench.figures import write_curves

    folder = run.out / "curves" / f"{run.subject.method}-{run.subject.weights_hash}-{name}"
    for path in write_curves(result.pooled, f"{run.subject.method} on {name}", folder):
        run.console.print(f"curve: {path}")


def _normals(console: Console, wanted: str, seed: int, sets: list[TestSet]) -> _Given:
    """The normal images of every class of the sets; test images that are nearly one of them are warned of."""
    from ad_dinov3.bench.checks import check_images, near_copies
    from ad_dinov3.data.near_copies import near_copy_words
    from ad_dinov3.data.normals import draw_normals, find_normals

    samples = [sample for test_set in sets for sample in test_set.samples]
    if wanted.isdigit():
        given = _Given(draw_normals(samples, int(wanted), seed), seed)
    else:
        given = _Given(find_normals(wanted, tuple({sample.class_name: None for sample in samples})))
    for paths in given.images.values():
        check_images(paths)
    if copies := near_copies(sets, given.images):
        console.print(near_copy_words(copies), style="yellow", markup=False, soft_wrap=True)
    return given


def _remembering(run: _Run, given: _Given, sets: list[TestSet]) -> _Run:
    """The run with a model that remembers normal images, under the words that prompts use for their classes."""
    from ad_dinov3.bench.subjects import with_normals

    by_words: dict[str, list[Path]] = {}
    words = {s.class_name: one.words_of(s.class_name, run.protocol) for one in sets for s in one.samples}
    for name, paths in given.images.items():
        by_words.setdefault(words[name], []).extend(paths)
    return replace(run, subject=with_normals(run.subject, by_words, given.seed))


def _comparing(run: _Run, given: _Given, test_set: TestSet) -> _Run:
    """The run with a model that has looked at all images of a set."""
    from ad_dinov3.bench.subjects import compared_with_itself

    with run.console.status(f"comparing the images of {test_set.name} with each other"):
        found = compared_with_itself(run.subject, test_set, run.protocol, given.images, run.out, given.seed)
    for remark in found.remarks:
        run.console.print(remark, markup=False)
    return replace(run, subject=found.subject)


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"scoring {name}", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            if done == total:
                progress.update(task, description=f"measuring {name}")

        yield report


def _table(run: _Run, name: str, result: Evaluation) -> Table:
    from ad_dinov3.bench.measure import mean_of
    from ad_dinov3.bench.metric_table import METRICS

    subject = run.subject
    mark = f"SEEN DATA, not zero-shot: {result.overlap}\n" if result.overlap else ""
    size = "x".join(map(str, reversed(subject.input_size)))
    table = Table(
        title=f"{mark}{subject.method} ({subject.model}, input {size}) on {name}, protocol {run.protocol.name}; in %",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("class")
    for heading in ("images", *(f"{METRICS[name].level}\n{METRICS[name].short}" for name in result.pooled.estimates)):
        table.add_column(heading, justify="right")
    for class_name, group in result.classes.items():
        table.add_row(class_name, *_cells(group, with_interval=len(result.classes) == 1))
    if len(result.classes) > 1:
        table.add_section()
        table.add_row("mean", *_cells(mean_of(list(result.classes.values()), run.protocol), with_interval=True))
        table.add_row("pooled", *_cells(result.pooled, with_interval=True))
    table.caption = f"±: half of the {run.protocol.level:.0%} interval over images; n/a: undefined, or no masks"
    return table


def _cells(group: GroupResult, with_interval: bool) -> list[str]:
    from ad_dinov3.bench.metric_table import METRICS

    cells = [f"{group.images}"]
    for name, estimate in group.estimates.items():
        text = METRICS[name].shown(estimate.value)
        if with_interval and estimate.interval:
            half = 50 * (estimate.interval.high - estimate.interval.low)
            text += f"\n[dim]±{half:.1f}[/dim]"
        cells.append(text)
    return cells
