"""ad-dinov3 convert: between a model folder and a checkpoint of a method's authors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import MODEL, OUTPUT, BakedClasses, Offline, Weights, command_app, path_here
from ad_dinov3.methods.table import names_of

if TYPE_CHECKING:
    from ad_dinov3.model import Model

app = command_app()


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            parser=path_here, help="A .pth file of a method's authors, or a model's folder.", metavar="SOURCE"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The model's folder, or the .pth file, that is written.",
            metavar="PATH",
            rich_help_panel=OUTPUT,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help=f"The method whose authors made the .pth file: {names_of(lambda row: row.authors_preset)}.",
            metavar="NAME",
            rich_help_panel=MODEL,
        ),
    ] = "ad_dinov3",
    weights: Weights = None,
    class_name: BakedClasses = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of a method's authors into a model folder, or a model folder into such a checkpoint.

    A converted checkpoint of AD-DINOv3 gets the preset `released`, one of another method its authors' settings: both
    repeat what the authors' code does at test time.
    """
    import torch

    from ad_dinov3.files import replacing
    from ad_dinov3.model import load_model, open_method, save_model, with_prompts

    if source.is_dir():
        state = _authors_state(load_model(source, offline=offline), source)
        with replacing(out) as unfinished:
            torch.save(state, unfinished)
    else:
        opened = open_method(method, str(source), weights, offline=offline)
        save_model(with_prompts(opened, class_name or [], offline=offline), out)
    output = Output(as_json)
    output.console.print(f"wrote {out}")
    output.result({"out": out})


def _authors_state(model: Model, source: Path) -> dict[str, object]:
    from ad_dinov3.errors import ConfigError
    from ad_dinov3.methods.table import parts_of

    write_authors = parts_of(model.config.method.kind).write_authors
    if write_authors is None:
        raise ConfigError(f"{source}: {model.config.method.kind} has no checkpoints of its authors")
    return write_authors(model.head)
