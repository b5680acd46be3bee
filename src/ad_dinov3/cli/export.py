"""ad-dinov3 export: a model as a file for ONNX Runtime, OpenVINO or torch alone, proven equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import OUTPUT, BakedClasses, Method, Offline, Weights, command_app
from ad_dinov3.cli.promises import print_use
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.export.parity import Parity

app = command_app()


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: embedded, a model's folder, a URI of one, a Hugging Face id, or with --method its "
            "authors' .pth file.",
            metavar="MODEL",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="The folder of the exported model, here or an empty place in an object store (s3://, gs://, az://).",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    method: Method = None,
    weights: Weights = None,
    class_name: BakedClasses = None,
    file_format: Annotated[
        Literal["onnx", "openvino", "pt2"],
        typer.Option(
            "--format",
            help="The runtime that the file is for: onnx, openvino, or pt2 (torch alone).",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = "openvino",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(
            help="What weights are stored in: fp32, and with openvino also fp16, bf16 or int8.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = "fp32",
    size: Annotated[
        str | None,
        typer.Option(
            help="The input in px: 512, HxW, or dynamic for a graph that takes many. By default it is the model's own.",
            metavar="PX",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="A folder of images like those to come, by which int8 sets its ranges, here or in an object store.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    with_tokens: Annotated[
        bool,
        typer.Option(
            "--with-tokens",
            help="The graph also tells the tokens that images are compared by, so that it can remember normal images.",
            metavar="",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write a model as a folder that predict and evaluate take in a model's place, without torch (but for pt2).

    Normalisation, backbone, adapters and prompts are inside; thresholds stay outside. Both models are run on the same
    images, and nothing is written if their maps differ by more than the precision's tolerance.
    """
    from ad_dinov3.data.copies import here
    from ad_dinov3.predict.store import written_into

    output = Output(as_json)
    console = output.console
    with written_into(out) as folder:
        with console.status("loading the model"):
            from ad_dinov3.export.build import ExportOptions, export_model
            from ad_dinov3.infer.detector import Detector
            from ad_dinov3.infer.opening import load
            from ad_dinov3.model import with_prompts

            resizable = size == "dynamic"
            fixed = read_size(size) if size and not resizable else None
            images = here(calibration) if calibration else None
            options = ExportOptions(file_format, precision, fixed, resizable, images, with_tokens)
            detector = load(model, method=method, weights=weights, offline=offline)
            if not isinstance(detector, Detector):
                raise ConfigError(f"{model} is an export already")
            detector.model = with_prompts(detector.model, class_name or (), offline=offline)
        with console.status("exporting and comparing"):
            parity = export_model(detector, model, folder, options)
        size_mb = _megabytes(folder)
    console.print(parity_table(parity))
    if parity.speed_over_fp32 is not None and parity.speed_over_fp32 < 1:
        console.print("fp32 is faster than int8 on this processor; export with --precision fp32 to run here")
    print_use(console, f"exported: {out} ({size_mb:.1f} MB)", out)
    output.result({"model": out, "megabytes": round(size_mb, 3), "parity": parity.summary()})


def read_size(text: str) -> tuple[int, int]:
    """(H, W) in px of ``512`` or ``512x768``.

    Raises:
        ConfigError: it is neither.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) for side in sides):
        raise ConfigError(f"--size {text}: expected a number of px, such as 512, HxW, or dynamic")
    return int(sides[0]), int(sides[-1])


def parity_table(parity: Parity) -> Table:
    """The differences beside what is allowed."""
    limits = parity.tolerance
    table = Table(title=f"exported against original, {parity.images} images", title_justify="left", box=None)
    for heading in ("", "found", "allowed"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("largest map difference", f"{parity.largest_map_difference:.2g}", f"{limits.largest_map:.2g}")
    table.add_row("mean map difference", f"{parity.mean_map_difference:.2g}", f"{limits.mean_map:.2g}")
    table.add_row("largest score difference", f"{parity.largest_score_difference:.2g}", f"{limits.largest_score:.2g}")
    if parity.largest_token_distance is not None:
        table.add_row("largest token distance", f"{parity.largest_token_distance:.2g}", f"{limits.largest_token:.2g}")
    table.add_row(f"decisions flipped at {parity.threshold:.3g}", str(parity.decision_flips), "")
    table.add_row("map values flipped", f"{parity.pixel_flips:.3%}", "")
    table.add_row("map correlation", f"{parity.map_correlation:.6f}", "")
    if parity.speed_over_fp32 is not None:
        table.add_row("speed over fp32 on this processor", f"{parity.speed_over_fp32:.2f}", "")
    return table


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
