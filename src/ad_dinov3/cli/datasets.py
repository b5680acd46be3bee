"""``ad-dinov3 datasets``: list, describe, verify and find data sets; nothing is ever downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import OUTPUT, DataRoots, command_app, path_here

if TYPE_CHECKING:
    from ad_dinov3.data.catalog import LabelledData
    from ad_dinov3.data.verify import ClassCount

app = command_app("List, describe and verify data sets. Nothing is downloaded.")


@app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the data sets of the catalog."""
    from ad_dinov3.data.catalog import CATALOG

    table = Table(
        "name", "domain", "classes", "normal", "anomalous", "licence", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.columns[0].no_wrap = True  # it is what people copy
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    for name, data_set in CATALOG.items():
        rows = data_set.classes.values()
        normal = _total([row.normal for row in rows])
        anomalous = _total([row.anomalous for row in rows])
        table.add_row(name, data_set.domain, str(len(rows)), normal, anomalous, data_set.licence)
    output = Output(as_json)
    console = output.console
    console.print(table)
    console.print("Counts are test images. `ad-dinov3 datasets show NAME` says what a set is and where to get it.")
    kept = ("title", "domain", "homepage", "licence")
    output.result({name: {key: getattr(one, key) for key in kept} for name, one in CATALOG.items()})


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name from `datasets list`.", metavar="NAME")], as_json: Json = False
) -> None:
    """Describe one data set: its tree, classes, mask rule, licence and where to get it."""
    from ad_dinov3.data.catalog import find_data_set

    data_set = find_data_set(name)
    rule = "127 for JPEG masks, else 0" if data_set.mask_above is None else str(data_set.mask_above)
    told = {
        "get it from": data_set.homepage,
        "licence": data_set.licence,
        "cite": data_set.citation,
        "tree": data_set.shape,
        "folder names": ", ".join(data_set.folders),
        "mask rule": f"values above {rule} are anomalous",
        "notes": data_set.notes or "none",
    }
    facts = Table.grid(padding=(0, 2))
    for label, text in told.items():
        facts.add_row(f"[bold]{label}[/bold]", text)
    classes = Table("class", "words in prompts", "normal", "anomalous")
    for class_name, row in data_set.classes.items():
        classes.add_row(class_name, row.words, _number(row.normal), _number(row.anomalous))
    output = Output(as_json)
    console = output.console
    console.print(f"[bold]{data_set.title}[/bold] ({name}, {data_set.domain})")
    console.print(facts)
    console.print(classes)
    counts = {key: {"normal": row.normal, "anomalous": row.anomalous} for key, row in data_set.classes.items()}
    output.result({"name": name, "title": data_set.title, **told, "classes": counts})


@app.command()
def verify(
    name: Annotated[
        str,
        typer.Argument(help="A name from `datasets list`, or a folder or manifest of your own.", metavar="DATA"),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            parser=path_here,
            help="The folder of the named data set. By default it is looked for below --data-root.",
            metavar="DIR",
        ),
    ] = None,
    sheet: Annotated[
        Path,
        typer.Option(
            parser=path_here, help="The picture of examples that is written.", metavar="FILE", rich_help_panel=OUTPUT
        ),
    ] = Path("dataset.jpg"),
    data_root: DataRoots = None,
    as_json: Json = False,
) -> None:
    """Open every image and mask, compare the counts with the catalog, write a picture of examples.

    Exit code 3 if a pair does not fit or the counts differ.
    """
    from PIL import Image
    from rich.progress import Progress

    from ad_dinov3.data.catalog import open_data
    from ad_dinov3.data.verify import contact_sheet, count_classes, find_problems
    from ad_dinov3.files import replacing

    output = Output(as_json)
    console = output.console
    data = open_data(name if folder is None else f"{name}={folder}", _roots(data_root))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("opening every pair", total=len(data.listing.samples))
        problems = [*data.listing.problems, *find_problems(data.listing.samples, lambda: progress.advance(task))]
    counts = count_classes(data)
    output.result({"samples": len(data.listing.samples), "problems": problems, "fits": all(one.fits for one in counts)})
    console.print(_counts_table(data, counts))
    for line in problems:
        console.print(f"[red]bad[/red] {escape(line)}", soft_wrap=True, highlight=False)
    for orphan in data.listing.orphans:
        console.print(f"[yellow]mask without an image[/yellow] {escape(str(orphan))}", soft_wrap=True, highlight=False)
    with replacing(sheet) as unfinished:
        Image.fromarray(contact_sheet(data)).save(unfinished, "JPEG", quality=90)
    console.print(f"examples: {escape(str(sheet))}", soft_wrap=True)
    if problems or not all(count.fits for count in counts):
        wrong = sum(not count.fits for count in counts)
        console.print(f"{len(problems)} images do not fit, the counts of {wrong} classes differ from the catalog's")
        raise typer.Exit(3)
    console.print(f"{len(data.listing.samples)} images, every pair fits")
    if bare := data.listing.without_masks:
        console.print(f"{len(bare)} anomalous images have a label and no mask: `evaluate` measures images, not pixels")


@app.command()
def locate(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names from `datasets list`. By default all are looked for.", metavar="NAMES"),
    ] = None,
    data_root: DataRoots = None,
    as_json: Json = False,
) -> None:
    """Say where each data set is on this machine, and what to do for those that are not found."""
    from ad_dinov3.data.catalog import CATALOG, find_data_set
    from ad_dinov3.data.catalog import locate as find
    from ad_dinov3.errors import DataError

    roots = _roots(data_root)
    table = Table("name", "folder")
    found: dict[str, Path | None] = {}
    for name in names or CATALOG:
        find_data_set(name)  # an unknown name is an error, a set that is not here is an answer
        try:
            found[name] = find(name, roots)
        except DataError:
            found[name] = None
        table.add_row(name, escape(str(found[name])) if found[name] else "[dim]not found[/dim]")
    output = Output(as_json)
    console = output.console
    console.print(table)
    output.result(found)
    console.print(f"looked in {escape(', '.join(map(str, roots)))}; add folders with $AD_DINOV3_DATA or --data-root")


def _counts_table(data: LabelledData, counts: list[ClassCount]) -> Table:
    table = Table("class", "words in prompts", "normal", "anomalous", "", title=escape(f"{data.name} in {data.root}"))
    for count in counts:
        expected = count.expected
        table.add_row(
            escape(count.class_name),
            escape(data.words.get(count.class_name, "")),
            _beside(count.normal, expected.normal if expected else None),
            _beside(count.anomalous, expected.anomalous if expected else None),
            "" if count.fits else "[red]differs[/red]",
        )
    normal, anomalous = sum(count.normal for count in counts), sum(count.anomalous for count in counts)
    table.add_section()
    table.add_row("all", "", str(normal), str(anomalous), "")
    return table


def _beside(found: int, expected: int | None) -> str:
    return str(found) if expected in (None, found) else f"{found} of {expected}"


def _roots(named: list[Path] | None) -> list[Path]:
    from ad_dinov3.data.catalog import search_roots

    return named or search_roots(os.environ, Path.cwd())


def _number(count: int | None) -> str:
    return "?" if count is None else str(count)


def _total(counts: list[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return str(sum(known)) if len(known) == len(counts) else "?"
