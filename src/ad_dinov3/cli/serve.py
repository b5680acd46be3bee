"""ad-dinov3 serve: answer requests over HTTP."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from logging.handlers import WatchedFileHandler
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.listening import answer_requests, listen, names_of
from ad_dinov3.cli.options import (
    IMAGES,
    MODEL,
    SERVICE,
    AllowedHosts,
    AnyDevice,
    BatchSize,
    Drift,
    Host,
    KeepAspect,
    Keys,
    Method,
    NoAuth,
    Normals,
    Offline,
    Overlap,
    Port,
    Threshold,
    Tile,
    UploadMb,
    Weights,
    command_app,
    path_here,
)
from ad_dinov3.cli.promises import print_promises
from ad_dinov3.errors import AdDinoError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from ad_dinov3.infer.opening import ModelSpec
    from ad_dinov3.infer.views import View
    from ad_dinov3.serve.models import Models, OpenedModel
    from ad_dinov3.serve.workbench.bench import Bench

app = command_app()


@app.command()
def serve(
    model: Annotated[
        list[str],
        typer.Option(
            help="The model: embedded, a model's folder, an exported folder, or a Hugging Face id. The option may be "
            "repeated, and NAME=MODEL says what requests call a model; the first one answers those that name none.",
            metavar="[NAME=]MODEL",
            rich_help_panel=MODEL,
        ),
    ] = ["embedded"],  # noqa: B006
    method: Method = None,
    weights: Weights = None,
    normals: Normals = None,
    class_name: Annotated[
        str,
        typer.Option(help="What images show where a request does not say.", metavar="NAME", rich_help_panel=IMAGES),
    ] = "object",
    threshold: Threshold = None,
    drift: Drift = False,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    batch_size: BatchSize = 8,
    at_once: Annotated[
        int,
        typer.Option(
            min=1,
            help="The most images in hand, which bounds the memory. More are refused with 503.",
            metavar="N",
            rich_help_panel=SERVICE,
        ),
    ] = 16,
    upload_mb: UploadMb = 64,
    keys: Keys = None,
    no_auth: NoAuth = False,
    access_log: Annotated[
        Path | None,
        typer.Option(
            parser=path_here,
            help="A file that gets a line of JSON for each request; - is standard output.",
            metavar="FILE",
            rich_help_panel=SERVICE,
        ),
    ] = None,
    memory_mb: Annotated[
        int,
        typer.Option(
            min=64,
            help="What the images in hand may take together in MiB, and their uploads as much again, beside the model. "
            "More are refused with 503.",
            metavar="N",
            rich_help_panel=SERVICE,
        ),
    ] = 1000,
    allowed_host: AllowedHosts = [],  # noqa: B006
    workbench: Annotated[
        Path | None,
        typer.Option(
            parser=path_here,
            help="A folder for people to look through at /workbench/, as the command workbench shows it: of images, or "
            "one that predict has written its results to.",
            metavar="FOLDER",
            rich_help_panel=SERVICE,
        ),
    ] = None,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    offline: Offline = False,
) -> None:
    """Answer requests over HTTP: an image comes in, the decision, the overlay, the map or the mask goes out.

    curl -F image=@part.jpg http://127.0.0.1:8000/predict

    The address itself shows a page to drop images on, and /docs what programs can ask. SIGHUP opens the models anew.
    """
    from ad_dinov3.infer.opening import ModelSpec, check_method
    from ad_dinov3.infer.views import View

    console = Console()
    check_method(method)
    try:
        import uvicorn  # noqa: F401  is needed below

        from ad_dinov3.serve.app import ServeOptions, create_app
        from ad_dinov3.serve.keys import VARIABLE, check_address, read_keys
        from ad_dinov3.serve.metrics import Metrics
        from ad_dinov3.serve.models import Models, name_models
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from None
    named, folder = name_models(model), _on_disk(normals)
    view = View(tile, overlap, keep_aspect)
    opening = _Opening(method, weights, folder, class_name, threshold, device, view, offline, drift)
    allowed = read_keys(keys, os.environ.get(VARIABLE, ""))
    log_line = _access_log(access_log) if access_log else None
    listening = listen(host, port)
    check_address(listening.getsockname()[0], allowed, no_auth)
    metrics = Metrics()
    with console.status("loading the model" if len(named) == 1 else "loading the models"):
        models = Models(
            {name: partial(opening.open, source) for name, source in named.items()}, batch_size, metrics.batch
        )
    address, port = listening.getsockname()[:2]
    levels = ", ".join(f"{models.model(name).threshold:.3f}" for name in models.names)
    words = f"serving {', '.join(models.names)} at http://{address}:{port}, threshold {levels}; Ctrl-C stops"
    console.print(words, highlight=False)
    signal.signal(signal.SIGHUP, lambda *_: Thread(target=_reload, args=(models, console)).start())
    print_promises(console, _promises(models))
    hosts = names_of(host, allowed_host)
    options = ServeOptions(class_name, at_once, upload_mb, allowed, log_line, folder, memory_mb, hosts)
    if workbench is not None:
        spec = ModelSpec(next(iter(named.values())), method, weights, device, offline, view)
        options = replace(options, workbench=_bench(console, workbench, class_name, spec))
        console.print(f"workbench at http://{address}:{port}/workbench/", highlight=False)
    answer_requests(create_app(models, options, metrics), listening)


def _promises(models: Models) -> dict[str, str]:
    """What is promised by class, and by model where there are several."""
    told = {name: models.model(name).promises for name in models.names}
    if len(told) == 1:
        return dict(next(iter(told.values())))
    return {f"{name}, {kind}": words for name, one in told.items() for kind, words in one.items()}


def _bench(console: Console, folder: Path, class_name: str, spec: ModelSpec) -> Bench:
    """The workbench on a folder; its images are scored first where they are not."""
    from ad_dinov3.cli.workbench import results_of
    from ad_dinov3.serve.workbench.bench import Bench

    results, model = results_of(console, folder, None, class_name, spec)
    return Bench(results, folder.absolute().name, model)


def _on_disk(normals: str | None) -> Path | None:
    """The folder of normal images, which the service's users may add to."""
    from ad_dinov3.data.remote import is_uri

    if normals is not None and is_uri(normals):
        raise ConfigError("--normals: the service keeps its normal images up to date in a folder of this machine")
    return None if normals is None else Path(normals)


@dataclass(frozen=True)
class _Opening:
    """How the service opens each of its models, again whenever it is reloaded."""

    method: str | None
    weights: str | None
    normals: Path | None
    class_name: str
    threshold: float | None
    device: str
    view: View
    offline: bool
    drift: bool

    def open(self, source: str) -> OpenedModel:
        """The model of a folder or name, with its normal images, seen through the view."""
        from ad_dinov3.data.normals import find_normals
        from ad_dinov3.infer.drift_watch import DriftWatch, WatchedScorer
        from ad_dinov3.infer.opening import load, look_through, method_title, remember_all
        from ad_dinov3.serve.models import OpenedModel

        found = find_normals(self.normals, [self.class_name]) if self.normals else {}
        detector = load(source, method=self.method, weights=self.weights, device=self.device, offline=self.offline)
        remember_all(detector, found, self.view)
        viewed = look_through(detector, self.view)
        threshold = detector.threshold if self.threshold is None else self.threshold
        watch = DriftWatch(detector.references.calibrations) if self.drift else None
        return OpenedModel(
            scorer=viewed.scorer if watch is None else WatchedScorer(viewed.scorer, watch),
            threshold=threshold,
            source=source,
            method=method_title(detector),
            fingerprint=viewed.fingerprint,
            normal_classes=detector.normal_classes,
            promises=detector.promises,
            drift=watch,
            areas=detector.areas,
            calls=1 if watch else detector.calls_at_once,  # a watch takes scores in the images' order
        )


def _reload(models: Models, console: Console) -> None:
    """Open every model anew, and say of each how it went."""
    for name in models.names:
        try:
            console.print(f"reloaded {name}, fingerprint {models.reload(name).fingerprint}", highlight=False)
        except AdDinoError as error:
            console.print(f"{name} goes on as it was: {error}", highlight=False)


def _access_log(file: Path) -> Callable[[str], None]:
    """What writes lines to a file, which may be moved away meanwhile, or to standard output."""
    try:
        handler = logging.StreamHandler(sys.stdout) if str(file) == "-" else WatchedFileHandler(file)
    except OSError as error:
        raise ConfigError(f"--access-log {file}: cannot be written ({error.strerror})") from None
    logger = logging.Logger("access")  # of its own: no other setting of logging changes what it writes
    logger.addHandler(handler)
    return logger.info
