"""ad-dinov3 reproduce: the paper's tables and figures from what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import (
    DATA,
    OUTPUT,
    PRESET,
    RUNNING,
    TRAINING,
    AnyDevice,
    BatchSize,
    Cache,
    Changes,
    DataRoots,
    Limit,
    ProtocolText,
    SettingsFile,
    Weights,
    command_app,
    path_here,
    read_changes,
)
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.bench.plan import Plan, StudyOptions
    from ad_dinov3.bench.reproduce import Reports
    from ad_dinov3.bench.rows import MetricRow
    from ad_dinov3.training.loop import Progress as TrainingProgress

app = command_app()

_TARGETS = ("table1", "table2", "table3", "figure1", "figure3")


@app.command()
def reproduce(
    target: Annotated[
        str,
        typer.Argument(help=f"What of the paper is made: {', '.join(_TARGETS)}.", metavar="TARGET"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder of models, rows, tables and figures.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    weights: Weights = "dinov3-vitl16",
    data_root: DataRoots = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set to train on instead of the paper's. The option may be repeated.",
            metavar="DATA",
            rich_help_panel=DATA,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set to measure on instead of the paper's. The option may be repeated.",
            metavar="DATA",
            rich_help_panel=DATA,
        ),
    ] = None,
    preset: Annotated[str, PRESET] = "paper",
    changes: Changes = None,
    settings: SettingsFile = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="The number of trainings of each line of the table. More than one gives a mean and a spread.",
            metavar="N",
            rich_help_panel=TRAINING,
        ),
    ] = 1,
    protocol: ProtocolText = "paper",
    limit: Limit = None,
    batch_size: BatchSize = 8,
    device: AnyDevice = "cpu",
    cache: Cache = True,
    plan_only: Annotated[
        bool,
        typer.Option(
            "--plan-only",
            help="The command only says what is there and what is missing.",
            metavar="",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train, measure and draw what a table or figure of the paper needs, as far as data and weights are there.

    The command says first what is missing and where to get it. Nothing is downloaded. A second call goes on where the
    first stopped. With --train and --test the same lines are made on other data; they are then
    not the paper's numbers.
    """
    from ad_dinov3.bench.plan import StudyOptions, plan_study
    from ad_dinov3.bench.protocol import read_protocol
    from ad_dinov3.bench.studies import STUDIES

    if target not in _TARGETS:
        raise ConfigError(f"{target}: expected one of {', '.join(_TARGETS)}")
    output = Output(as_json)
    console = output.console
    options = StudyOptions(
        out,
        preset,
        {**read_changes(settings, changes or []), "encoder": weights},
        tuple(range(seeds)),
        read_protocol(protocol),
        tuple(data_root) if data_root else None,
        limit,
        batch_size,
        device,
        cache,
    )
    study = STUDIES.get(target, STUDIES["table1"]).on(tuple(train or ()), tuple(test or ()))
    plan = plan_study(study, options)
    _show_plan(console, plan)
    if plan_only:
        output.result(_tree(plan))
        return
    plan.check()
    if target in STUDIES:
        from ad_dinov3.bench.reproduce import run_study

        with _reports(console) as reports:
            rows = run_study(plan, options, reports)
        _write_tables(console, plan, rows, options)
    else:
        _write_figure(console, target, plan, options)
    output.result({**_tree(plan), "out": out})


def _show_plan(console: Console, plan: Plan) -> None:
    from ad_dinov3.bench.summary import short_names

    console.print(plan.study.title, style="bold")
    for need in plan.needs:
        mark = "[green]found  [/green]" if need.is_there else "[yellow]missing[/yellow]"
        how = need.how.removeprefix(f"{need.name}: ")
        console.print(f"  {mark} {need.kind} ", end="")
        console.print(f"{need.name}: {how}", markup=False, highlight=False, soft_wrap=True)
    for route in plan.routes:
        trained, measured = short_names(route.train), short_names(route.test)
        console.print(f"  to do: train on {trained}, measure on {measured}", markup=False)
    console.print(f"  lines: {', '.join(v.label for v in plan.variants) or 'none'}", markup=False)


def _tree(plan: Plan) -> dict[str, object]:
    return {
        "study": plan.study.name,
        "needs": [asdict(need) for need in plan.needs],
        "routes": [asdict(route) for route in plan.routes],
        "lines": [variant.label for variant in plan.variants],
    }


def _write_tables(console: Console, plan: Plan, rows: list[MetricRow], options: StudyOptions) -> None:
    from ad_dinov3.bench.board import make_board
    from ad_dinov3.bench.published import published_results
    from ad_dinov3.bench.summary import seed_summary, study_page
    from ad_dinov3.bench.tables import to_csv, to_html, to_latex
    from ad_dinov3.files import write_text

    name = plan.study.name
    board = make_board(rows, [result for result in published_results() if result.source == plan.study.source])
    summary = seed_summary(rows)
    texts = {
        "md": study_page(plan, board, summary, options.limit),
        "csv": to_csv(board),
        "tex": to_latex(board),
        "html": to_html(board, plan.study.title),
    }
    for suffix, text in texts.items():
        write_text(options.out / f"{name}.{suffix}", text)
    console.print(summary, markup=False, highlight=False)
    console.print(f"written: {options.out / name}.md, .csv, .tex, .html", markup=False)


def _write_figure(console: Console, target: str, plan: Plan, options: StudyOptions) -> None:
    from ad_dinov3.bench.paper_figures import figure1, figure3
    from ad_dinov3.errors import WeightsError
    from ad_dinov3.files import replacing

    if not any(variant.label == "AD-DINOv3" for variant in plan.variants):
        raise WeightsError("figures need AD-DINOv3, whose weights are missing; see the list above")
    draw = figure1 if target == "figure1" else figure3
    with _reports(console) as reports:
        for name, picture in draw(plan, options, reports):
            path = options.out / f"{target}-{name}.png"
            with replacing(path) as unfinished:
                picture.save(unfinished, "PNG")
            reports.step(f"drawn: {path}")


@contextmanager
def _reports(console: Console) -> Iterator[Reports]:
    from ad_dinov3.bench.reproduce import Reports

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def step(text: str) -> None:
            console.print(text, markup=False, highlight=False)
            bars.reset(task, description="working", total=None)

        def training(progress: TrainingProgress) -> None:
            names = {"features": "encoding images", "train": "training"}
            description = names.get(progress.phase, progress.phase)
            bars.update(task, description=description, completed=progress.done, total=progress.total)

        def scoring(done: int, total: int) -> None:
            bars.update(task, description="scoring", completed=done, total=total)

        yield Reports(step, training, scoring)
