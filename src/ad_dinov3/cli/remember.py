"""ad-dinov3 remember: a few-shot model out of a zero-shot one and normal images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.options import Method, Offline, Weights, command_app

app = command_app()


@app.command()
def remember(
    normals: Annotated[Path, typer.Argument(help="folder of normal images: a sub-folder for each class")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the model that comes out")],
    model: Annotated[
        str, typer.Option(help="a model's folder, a Hugging Face id or a .pth file; winclip needs none")
    ] = "embedded",
    method: Method = None,
    weights: Weights = None,
    class_name: Annotated[
        str | None, typer.Option(help="the only class, whose images lie in the folder itself or in its sub-folder")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")] = "cpu",
    offline: Offline = False,
) -> None:
    """Give WinCLIP or APRIL-GAN a few normal images of each class, and save the model with what it remembers.

    The saved folder predicts and is evaluated without the images. One to four images of a class are usual.
    """
    from ad_dinov3.data.normals import find_normals
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.model import open_method, with_prompts

    console = Console()
    found = find_normals(normals, None if class_name is None else [class_name])
    with console.status("looking at the normal images"):
        opened = with_prompts(open_method(method, model, weights, offline=offline), tuple(found), offline=offline)
        detector = Detector(opened, device=device, offline=offline)
        for name, paths in found.items():
            detector.remember(paths, name)
    detector.save_pretrained(out)
    for name, paths in found.items():
        console.print(f"{name}: {len(paths)} normal images", highlight=False)
    console.print(f"few-shot model: {out}; use it: ad-dinov3 predict IMAGES -o OUT --model {out}")
