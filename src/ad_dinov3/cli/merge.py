"""ad-dinov3 merge: the results of shards as one folder's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import IMAGES, OUTPUT, Coco, Parquet, command_app, path_here
from ad_dinov3.errors import ConfigError

app = command_app()


@app.command()
def merge(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="The folder that the shards were written below, here or in an object store, or several folders here.",
            metavar="DIRS",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder for the joint results. By default it is the one that was named.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    coco: Coco = False,
    parquet: Parquet = False,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Shards that are missing or unfinished are omitted.",
            metavar="",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Join the rows, tables and reports of predict --shard 0/N to (N-1)/N.

    The images' files stay in the shards' folders, and the joint rows and report point to them.

    Exit codes: 0 done, 2 a shard is missing, unfinished or of another run, 3 done, and some images had failed.
    """
    from ad_dinov3.cli.run_summary import print_worst
    from ad_dinov3.data.remote import is_uri, redacted
    from ad_dinov3.predict.merge import merge_shards, merge_stored_shards
    from ad_dinov3.predict.store import open_place

    if out is None and len(folders) > 1:
        raise ConfigError("several folders are merged: say with --out where the joint results go")
    if any(map(is_uri, folders)) and (out is not None or len(folders) > 1):
        raise ConfigError("shards in an object store are merged where they are: name that one place, and omit --out")
    place, output = open_place(out or folders[0]), Output(as_json)
    console = output.console
    tables = ("csv", *["coco"] * coco, *["parquet"] * parquet)
    if place.remote:
        summary = merge_stored_shards(place.remote, tables, allow_missing)
    else:
        summary = merge_shards([Path(one) for one in folders], place.folder, tables, allow_missing)
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    console.print(f"{summary.anomalous:,} anomalous, {summary.normal:,} normal{failed}", highlight=False)
    if summary.missing:
        console.print(f"{len(summary.missing)} shards are omitted", style="yellow")
    print_worst(console, place.folder)
    console.print(f"report: {redacted(str(out or folders[0]))}/report.html", highlight=False, soft_wrap=True)
    counts = {"anomalous": summary.anomalous, "normal": summary.normal, "failed": summary.failed}
    output.result({**counts, "missing_shards": len(summary.missing), "out": redacted(str(out or folders[0]))})
    place.leave()
    raise typer.Exit(3 if summary.failed else 0)
