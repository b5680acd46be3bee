"""ad-dinov3 cache: list and prune the cache of frozen features."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import command_app

app = command_app("List and prune the cache of frozen features.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what is cached: one group for each encoder and input size."""
    from datetime import datetime

    from ad_dinov3.encoders.cache import FeatureStore, cache_root, group_folders, read_group
    from ad_dinov3.errors import DataError

    table = Table(title=f"Feature cache in {cache_root()}")
    for name, side in (("group", "left"), ("encoder", "left"), ("input", "left"), ("images", "right"), ("MB", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("last written")
    damaged: list[str] = []
    groups: list[dict[str, object]] = []
    for folder in group_folders():
        try:
            group = read_group(folder)
        except DataError as error:
            damaged.append(str(error))
            continue
        size = f"{group.size[0]}x{group.size[1]} {group.interpolation}"
        written = datetime.fromtimestamp(group.folder.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        images, megabytes = len(FeatureStore(group)), group.bytes_on_disk / 1e6
        groups.append({"group": group.folder.name, "encoder": group.encoder, "images": images, "megabytes": megabytes})
        table.add_row(group.folder.name, group.encoder, size, f"{images:,}", f"{megabytes:,.0f}", written)
    output = Output(as_json)
    output.console.print(table)
    output.result({"folder": cache_root(), "groups": groups, "damaged": damaged})
    for message in damaged:
        Console(stderr=True).print(message, highlight=False, soft_wrap=True)


@app.command()
def prune(
    group: Annotated[
        list[str] | None, typer.Argument(help="The groups to delete, as `list` names them.", metavar="GROUPS")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All groups are deleted.", metavar="")] = False,
    as_json: Json = False,
) -> None:
    """Delete cached features; they are computed again when they are needed."""
    from ad_dinov3.encoders.cache import group_folders
    from ad_dinov3.encoders.cache import prune as delete
    from ad_dinov3.errors import ConfigError

    groups = {folder.name: folder for folder in group_folders()}
    chosen = list(groups) if everything else group or []
    unknown = sorted(set(chosen) - set(groups))
    if unknown or not (chosen or everything):
        raise ConfigError(f"no such group: {', '.join(unknown) or 'none named'}; `ad-dinov3 cache list` names them")
    freed = sum(delete(groups[name]) for name in chosen)
    output = Output(as_json)
    output.console.print(f"deleted {len(chosen)} groups, {freed / 1e6:,.0f} MB are free again")
    output.result({"deleted": chosen, "megabytes": freed / 1e6})
