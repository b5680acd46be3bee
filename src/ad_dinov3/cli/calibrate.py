"""ad-dinov3 calibrate: thresholds with a promise, from good images alone."""

from __future__ import annotations

from typing import Annotated

import typer

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import DECISION, AnyDevice, KeepAspect, Method, Offline, Overlap, Tile, Weights, command_app
from ad_dinov3.cli.promises import print_promises, print_use
from ad_dinov3.cli.remember import GoodImages, NewModel, OnlyClass
from ad_dinov3.errors import ConfigError

app = command_app()


@app.command()
def calibrate(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: embedded, a model's folder, an exported folder, a URI of one, or a Hugging Face id.",
            metavar="MODEL",
        ),
    ],
    good: GoodImages,
    out: NewModel,
    false_alarms: Annotated[
        str,
        typer.Option(
            help="The share of good images that may be flagged, such as 5%.",
            metavar="SHARE",
            rich_help_panel=DECISION,
        ),
    ] = "5%",
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
    """Set a model's threshold by good images, with a promise of how many good ones will be flagged.

    The saved model's scores and maps lie on a scale where the threshold is 0.5, and each image gets a p-value: the
    share of good images that look at least as strange. A share that so few images cannot promise is refused, with the
    number that could. The images must be none that the model was trained on or remembers.
    """
    from ad_dinov3.data.normals import find_class_normals
    from ad_dinov3.infer.opening import check_method, load
    from ad_dinov3.infer.views import View
    from ad_dinov3.predict.store import written_into
    from ad_dinov3.references.conformal import promise_for

    output = Output(as_json)
    console = output.console
    check_method(method)
    rate, found = share(false_alarms), find_class_normals(good, class_name)
    for paths in found.values():
        promise_for(rate, len(paths))  # refuse before anything is loaded
    with written_into(out) as folder, console.status("looking at the good images"):
        detector = load(model, method=method, weights=weights, device=device, offline=offline)
        for name, paths in found.items():
            detector.calibrate(paths, rate, name, View(tile, overlap, keep_aspect))
        detector.save_pretrained(folder)
    print_promises(console, detector.promises)
    print_use(console, f"model: {out}", out)
    output.result({"model": out, "promises": detector.promises, "threshold": detector.threshold})


def share(text: str) -> float:
    """A share between 0 and 1 from words such as ``5%`` or ``0.05``.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ConfigError(f"--false-alarms {text}: expected a share such as 5% or 0.05")
    return value
