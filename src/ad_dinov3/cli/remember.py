"""ad-dinov3 remember: a model out of another and normal images."""

from __future__ import annotations

from typing import Annotated

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import (
    IMAGES,
    OUTPUT,
    AnyDevice,
    AnyModel,
    KeepAspect,
    Method,
    Offline,
    Overlap,
    Tile,
    Weights,
    command_app,
)
from ad_dinov3.cli.promises import print_promises, print_use

app = command_app()
GoodImages = Annotated[
    str,
    typer.Argument(
        help="A folder of good images, or of a sub-folder of them for each class, here or in an object store.",
        metavar="GOOD",
    ),
]
OnlyClass = Annotated[
    str | None,
    typer.Option(
        help="The only class, whose images lie in the folder itself or in its sub-folder.",
        metavar="NAME",
        rich_help_panel=IMAGES,
    ),
]
NewModel = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        help="The folder of the model that comes out, here or an empty place in an object store (s3://, gs://, az://).",
        metavar="DIR",
        rich_help_panel=OUTPUT,
    ),
]


@app.command()
def remember(
    normals: GoodImages,
    out: NewModel,
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    class_name: OnlyClass = None,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Let a model remember normal images, and save it with them.

    The saved folder compares what it is shown with them, and does not need them any more. One image is enough, ten are
    better: each is scored by a memory of the others, which sets the threshold. WinCLIP and APRIL-GAN remember as their
    papers say, and are not calibrated.
    """
    from ad_dinov3.data.normals import find_class_normals
    from ad_dinov3.infer.opening import check_method, load, remember_all
    from ad_dinov3.infer.views import View
    from ad_dinov3.predict.store import written_into

    output = Output(as_json)
    console = output.console
    check_method(method)
    found = find_class_normals(normals, class_name)
    with written_into(out) as folder, console.status("looking at the normal images"):
        detector = load(model, method=method, weights=weights, device=device, offline=offline)
        remember_all(detector, found, View(tile, overlap, keep_aspect))
        detector.save_pretrained(folder)
    for name, paths in found.items():
        console.print(f"{name}: {len(paths)} normal image{'' if len(paths) == 1 else 's'}", highlight=False)
    print_promises(console, detector.promises, found)
    print_use(console, f"model: {out}", out)
    images = {name: len(paths) for name, paths in found.items()}
    output.result({"model": out, "normal_images": images, "promises": detector.promises})
