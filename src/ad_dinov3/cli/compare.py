"""ad-dinov3 compare: result rows side by side, published numbers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import DATA, OUTPUT, command_app, path_here

if TYPE_CHECKING:
    from ad_dinov3.bench.board import Board, Cell, Section
    from ad_dinov3.bench.metric_table import Metric

app = command_app()


@app.command()
def compare(
    rows: Annotated[
        list[Path],
        typer.Argument(parser=path_here, help="The rows.jsonl files, or folders that hold one.", metavar="ROWS"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder for leaderboard.md, .csv, .tex and .html. By default none is written.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric to show, such as pixel_auroc or pixel_f1_max. The option may be repeated. By default all "
            "are shown.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = None,
    scope: Annotated[
        Literal["mean", "pooled", "class"],
        typer.Option(
            help="What a figure covers: mean (over classes), pooled (all images of a set), or class.",
            metavar="NAME",
            rich_help_panel=DATA,
        ),
    ] = "mean",
    against: Annotated[
        str | None,
        typer.Option(
            help="Differences are taken from the line whose label begins with this.",
            metavar="LABEL",
            rich_help_panel=DATA,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            help="Published figures of the same data sets are shown beside the rows, or not.",
            metavar="",
            rich_help_panel=DATA,
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Put the results of several runs, and published ones, into one table per metric.

    The best figure of a column is bold, the second best underlined. Runs of different protocols, or on different
    images of one data set, are shown with a warning.
    """
    from ad_dinov3.bench.board import make_board
    from ad_dinov3.bench.metric_table import METRICS
    from ad_dinov3.bench.published import published_results
    from ad_dinov3.bench.rows import read_metric_rows
    from ad_dinov3.errors import ConfigError

    output = Output(as_json)
    unknown = sorted(set(metric or ()) - METRICS.keys())
    if unknown:
        raise ConfigError(f"no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
    board = make_board(
        [row for path in rows for row in read_metric_rows(path)],
        published_results() if published else (),
        metrics=tuple(metric or METRICS),
        scope=scope,
        against=against,
    )
    _show(output.console, board)
    if out is not None:
        _write(output.console, board, out)
    output.result(_tree(board))


def _show(console: Console, board: Board) -> None:
    for warning in board.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    for section in board.sections:
        console.print(_table(section))
    console.print(f"in %; differences are from: {board.reference}", markup=False)
    for note in board.notes:
        console.print(f"note: {note}", style="dim", markup=False)


def _tree(board: Board) -> dict[str, object]:
    """The board as it is shown, figures in [0, 1]."""
    sections = [
        {
            "metric": section.metric.name,
            "lines": [
                {
                    "method": line.label,
                    "source": line.source,
                    "values": dict(
                        zip(section.columns, (None if cell is None else cell.value for cell in line.cells), strict=True)
                    ),
                }
                for line in section.lines
            ],
        }
        for section in board.sections
    ]
    return {"sections": sections, "warnings": list(board.warnings), "notes": list(board.notes)}


def _write(console: Console, board: Board, out: Path) -> None:
    from ad_dinov3.bench.tables import to_csv, to_html, to_latex, to_markdown
    from ad_dinov3.files import write_text

    texts = {"md": to_markdown(board), "csv": to_csv(board), "tex": to_latex(board), "html": to_html(board)}
    for suffix, text in texts.items():
        write_text(out / f"leaderboard.{suffix}", text)
    console.print(f"written: {out}/leaderboard.md, .csv, .tex, .html", markup=False)


def _table(section: Section) -> Table:
    table = Table(title=section.metric.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method")
    for column in section.columns:
        table.add_column(column, justify="right")
    table.add_column("source", style="dim")
    for index, line in enumerate(section.lines):
        if index and line.origin != section.lines[index - 1].origin:
            table.add_section()
        table.add_row(Text(line.label), *(_cell(cell, section.metric) for cell in line.cells), Text(line.source))
    return table


def _cell(cell: Cell | None, metric: Metric) -> Text:
    from ad_dinov3.bench.tables import percent, signed

    text = Text(percent(cell, metric), style={1: "bold", 2: "underline"}.get(cell.rank if cell else 0, ""))
    if signed(cell, metric):
        text.append(f" {signed(cell, metric)}", style="not bold not underline dim")
    return text
