"""ad-dinov3 workbench: look through a folder in the browser, decide, and teach."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.cli.listening import answer_requests, listen, names_of
from ad_dinov3.cli.opened import open_model
from ad_dinov3.cli.options import (
    MODEL,
    OUTPUT,
    AllowedHosts,
    AnyDevice,
    ClassName,
    Host,
    Keys,
    NoAuth,
    Offline,
    Port,
    UploadMb,
    command_app,
    path_here,
)
from ad_dinov3.cli.predict import score_progress, stop_on_interrupt
from ad_dinov3.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.opening import ModelSpec
    from ad_dinov3.infer.session import Session
    from ad_dinov3.predict.run_facts import RunFacts
    from ad_dinov3.serve.workbench.model import BenchModel

app = command_app()


@app.command()
def workbench(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=path_here,
            help="A folder of images, or one that predict has written its results to.",
            metavar="FOLDER",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder that the results of a folder of images are written to. By default it is beside that "
            "folder, its name with -workbench behind.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model: embedded, a model's folder, an exported folder, a URI of one, or a Hugging Face id. By "
            "default it is the one that made the results, or the embedded one.",
            metavar="NAME",
            rich_help_panel=MODEL,
        ),
    ] = None,
    class_name: ClassName = "object",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    upload_mb: UploadMb = 64,
    keys: Keys = None,
    no_auth: NoAuth = False,
    allowed_host: AllowedHosts = [],  # noqa: B006
    device: AnyDevice = "cpu",
    offline: Offline = False,
) -> None:
    """Look through a folder in the browser: the strangest images first, with one slider for all decisions.

    A folder of images is scored first; results that predict has written are shown as they are. What is said of the
    images is kept in workbench.sqlite in the folder of the results.
    """
    console = Console(highlight=False)
    try:
        import uvicorn  # noqa: F401  is needed below

        from ad_dinov3.infer.opening import ModelSpec
        from ad_dinov3.serve.keys import VARIABLE, check_address, read_keys
        from ad_dinov3.serve.limits import Limits
        from ad_dinov3.serve.workbench.app import create_workbench
        from ad_dinov3.serve.workbench.bench import Bench
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from None
    allowed = read_keys(keys, os.environ.get(VARIABLE, ""))
    listening = listen(host, port)
    check_address(listening.getsockname()[0], allowed, no_auth)
    spec = ModelSpec(model or "", device=device, offline=offline)
    results, opened = results_of(console, folder, out, class_name, spec)
    bench = Bench(results, folder.absolute().name, opened)
    address, port = listening.getsockname()[:2]
    count = len(bench.results.rows)
    console.print(f"{count:,} image{'' if count == 1 else 's'} of {results} at http://{address}:{port}; Ctrl-C stops")
    answer_requests(create_workbench(bench, Limits(upload_mb, hosts=names_of(host, allowed_host)), allowed), listening)


def results_of(
    console: Console, folder: Path, out: Path | None, class_name: str, spec: ModelSpec
) -> tuple[Path, BenchModel]:
    """The folder with the results: ``folder`` itself, or where its images have been scored now; and the model.

    Raises:
        ConfigError: there is no such folder, or no image in it.
    """
    from ad_dinov3.infer.opening import abilities_of
    from ad_dinov3.predict.run_facts import read_run
    from ad_dinov3.serve.workbench.model import BenchModel

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if (folder / "results.jsonl").is_file():
        if out is not None:
            raise ConfigError(f"{folder} holds results, which are shown where they are; omit --out")
        return folder, _model_of(read_run(folder), spec)
    target = out or folder.absolute().with_name(f"{folder.absolute().name}-workbench")
    spec = replace(spec, model=spec.model or EMBEDDED)
    detector = _score(console, folder, target, spec, class_name)
    return target, BenchModel(spec.model, lambda: detector, spec.view, abilities_of(spec))


def _model_of(run: RunFacts, spec: ModelSpec) -> BenchModel:
    """The model that is asked for, or else the very one that made the results."""
    from ad_dinov3.infer.opening import abilities_of, remember_all
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.serve.workbench.model import BenchModel

    if spec.model:
        return BenchModel(spec.model, spec.open, spec.view, abilities_of(spec))
    maker = run.maker
    again = replace(maker.spec, device=spec.device, offline=spec.offline)

    def open_again() -> Detector | Session:
        detector = again.open()
        remember_all(detector, maker.wanted_normals(run.options or DriveOptions()), again.view)
        return detector

    return BenchModel(again.model, open_again, again.view, abilities_of(again))


def _score(console: Console, folder: Path, out: Path, spec: ModelSpec, class_name: str) -> Detector | Session:
    """Score the images of a folder, as `predict` does; the model that did it."""
    from ad_dinov3.data.streams import find_images
    from ad_dinov3.infer.opening import method_title
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.folder import FolderRun, score_into_folder
    from ad_dinov3.predict.run_facts import MadeBy

    items = list(find_images([str(folder)]))
    if not items:
        raise ConfigError(f"no images in {folder}; expected files such as .jpg, .png, .bmp, .tiff, .webp")
    opened = open_model(console, spec, {})
    run = FolderRun(
        folder=out,
        model_name=spec.model,
        model_fingerprint=opened.viewed.fingerprint,
        options=DriveOptions(class_name, opened.rule(out, None, None, False)),
        method=method_title(opened.detector),
        promises=opened.promises,
        made_by=MadeBy(spec),
    )
    stopped = Event()
    with score_progress(console, len(items)) as on_outcome, stop_on_interrupt(console, stopped):
        summary = score_into_folder(items, opened.viewed.scorer, run, on_outcome, stopped.is_set)
    if summary.run.interrupted:
        raise typer.Exit(summary.exit_code)
    return opened.detector
