"""ad-dinov3 convert: between a model folder and a checkpoint of the authors' code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.options import OFFLINE_HELP

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="a .pth file of the authors' code, or a model folder")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the model folder, or the .pth file, to write")],
    weights: Annotated[str, typer.Option(help="image encoder that the .pth file was trained on")] = "dinov3-vitl16",
    class_name: Annotated[list[str] | None, typer.Option(help="class whose prompts to bake in; repeatable")] = None,
    offline: Annotated[bool, typer.Option(help=OFFLINE_HELP)] = False,
) -> None:
    """Convert a checkpoint of the authors' code into a model folder, or a model folder into such a checkpoint.

    A converted checkpoint gets the preset `released`, which repeats what that code does at test time.
    """
    import torch

    from ad_dinov3.config import PRESETS
    from ad_dinov3.errors import ConfigError
    from ad_dinov3.files import replacing
    from ad_dinov3.methods.ad_dinov3 import AdDinoV3
    from ad_dinov3.methods.released_format import load_released, to_released
    from ad_dinov3.model import load_model, new_model, save_model
    from ad_dinov3.weights.files import read_tensors

    if source.is_dir():
        model = load_model(source, offline=offline)
        if not isinstance(model.head, AdDinoV3):
            raise ConfigError(f"{source}: only AD-DINOv3 heads have this format")
        with replacing(out) as unfinished:
            torch.save(to_released(model.head), unfinished)
    else:
        tensors = read_tensors(source)
        config = PRESETS["released"].with_settings({"encoder": weights})
        model = new_model(config, {name: name for name in class_name or []}, offline=offline)
        if isinstance(model.head, AdDinoV3):
            load_released(model.head, tensors, str(source))
        save_model(model, out)
    Console().print(f"wrote {out}")
