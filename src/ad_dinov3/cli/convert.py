"""ad-dinov3 convert: between a model folder and a checkpoint of a method's authors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.options import Offline, command_app

if TYPE_CHECKING:
    from ad_dinov3.model import Model

app = command_app()


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="a .pth file of a method's authors, or a model folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the model folder, or the .pth file, to write")],
    method: Annotated[
        str, typer.Option(help="whose .pth file it is: ad_dinov3, april_gan, anomalyclip, adaclip")
    ] = "ad_dinov3",
    weights: Annotated[
        str | None,
        typer.Option(help="image encoder, or CLIP, that the .pth file was trained on; default: the authors'"),
    ] = None,
    class_name: Annotated[list[str] | None, typer.Option(help="class whose prompts to bake in; repeatable")] = None,
    offline: Offline = False,
) -> None:
    """Convert a checkpoint of a method's authors into a model folder, or a model folder into such a checkpoint.

    A converted checkpoint of AD-DINOv3 gets the preset `released`, one of another method its authors' settings: both
    repeat what the authors' code does at test time.
    """
    import torch

    from ad_dinov3.files import replacing
    from ad_dinov3.model import load_model, save_model

    if source.is_dir():
        state = _authors_state(load_model(source, offline=offline), source)
        with replacing(out) as unfinished:
            torch.save(state, unfinished)
    else:
        save_model(_read_authors(source, method, weights, class_name or [], offline), out)
    Console().print(f"wrote {out}")


def _authors_state(model: Model, source: Path) -> dict[str, object]:
    from ad_dinov3.errors import ConfigError
    from ad_dinov3.methods.ad_dinov3 import AdDinoV3
    from ad_dinov3.methods.released_format import to_released
    from ad_dinov3.methods.rivals import RIVAL_HEADS, authors_state

    if isinstance(model.head, AdDinoV3):
        return dict(to_released(model.head))
    if isinstance(model.head, RIVAL_HEADS):
        return authors_state(model.head)
    raise ConfigError(f"{source}: no authors' format for {model.config.preset}")


def _read_authors(source: Path, method: str, weights: str | None, class_names: list[str], offline: bool) -> Model:
    from ad_dinov3.config import PRESETS
    from ad_dinov3.methods.ad_dinov3 import AdDinoV3
    from ad_dinov3.methods.released_format import load_released
    from ad_dinov3.model import new_model, open_method, with_prompts
    from ad_dinov3.weights.tensors import read_tensors

    if method != "ad_dinov3":
        return with_prompts(open_method(method, str(source), weights, offline=offline), class_names, offline=offline)
    tensors = read_tensors(source)
    config = PRESETS["released"].with_settings({"encoder": weights} if weights else {})
    model = new_model(config, {name: name for name in class_names}, offline=offline)
    if isinstance(model.head, AdDinoV3):
        load_released(model.head, tensors, str(source))
    return model
