"""ad-dinov3 watch: score the images of a folder as they arrive."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.opened import Asked, near_copy_sink, open_scorer
from ad_dinov3.cli.options import (
    IMAGES,
    MODEL,
    OUTPUT,
    AnyDevice,
    AnyModel,
    BatchSize,
    ClassName,
    Drift,
    KeepAspect,
    Method,
    Normals,
    Offline,
    Overlap,
    Threshold,
    Tile,
    Weights,
    command_app,
    path_here,
)
from ad_dinov3.cli.sources import camera_is_away
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.data.cameras import Camera
    from ad_dinov3.data.watching import Arrivals
    from ad_dinov3.predict.folder import FolderRun
    from ad_dinov3.predict.publish import Send
    from ad_dinov3.predict.types import Outcome

app = command_app()


@app.command()
def watch(
    source: Annotated[
        str,
        typer.Argument(
            help="The folder that images arrive in, which is searched recursively; or a camera: its number, "
            "/dev/video0, rtsp://HOST or http://HOST (extra: video).",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder that all results are written to.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    normals: Normals = None,
    compare: Annotated[
        Literal["stream"] | None,
        typer.Option(
            help="Each image is compared with those before it, once ten have been seen since the start.",
            metavar="stream",
            rich_help_panel=MODEL,
        ),
    ] = None,
    class_name: ClassName = "object",
    threshold: Threshold = None,
    drift: Drift = False,
    every: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="The folder is looked through after so many seconds, or a camera's newest frame is taken. A file that "
            "has not changed meanwhile is whole.",
            metavar="S",
            rich_help_panel=IMAGES,
        ),
    ] = 1.0,
    publish: Annotated[
        list[str],
        typer.Option(
            help="Each row is also sent there as JSON: http(s)://HOST/PATH, or mqtt(s)://HOST/TOPIC (extra: mqtt). The "
            "option may be repeated. A thousand rows wait for a receiver that is away, and the line does not.",
            metavar="URL",
            rich_help_panel=OUTPUT,
        ),
    ] = [],  # noqa: B006
    batch_size: BatchSize = 8,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Score the images of a folder or a camera as they arrive, until Ctrl-C or SIGTERM.

    The output folder is that of predict, and is kept up to date: what a run has done, the next one does not do again,
    however the first one ended. A file is scored once it has stopped changing, and again when it changes later.
    """
    from ad_dinov3.data.cameras import is_camera
    from ad_dinov3.data.normals import find_normals
    from ad_dinov3.infer.opening import ModelSpec, check_method, method_title
    from ad_dinov3.infer.views import View
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.folder import FolderRun, score_into_folder
    from ad_dinov3.predict.publish import sender, shown
    from ad_dinov3.predict.run_facts import MadeBy
    from ad_dinov3.predict.shards import ALL

    output, decisions = Output(as_json), Counter[str]()
    console = output.console
    check_method(method)
    if not is_camera(source):
        _check_folder(Path(source), out)
    found = find_normals(normals, [class_name]) if normals else {}
    senders = {shown(address): sender(address) for address in publish}
    spec = ModelSpec(model, method, weights, device, offline, View(tile, overlap, keep_aspect))
    options = DriveOptions(class_name, batch_size=batch_size)
    opened = open_scorer(console, spec, Asked(compare, drift, "here", ALL, None), (), found, options, out)
    run = FolderRun(
        out,
        model,
        opened.viewed.fingerprint,
        replace(options, rule=opened.rule(out, threshold, None, False)),
        method=method_title(opened.detector),
        promises=opened.promises,
        near_copies=near_copy_sink(console, found),
        remarks=opened.remarks,
        made_by=MadeBy(spec, normals, compare),
    )

    console.print(f"watching {shown(source) if is_camera(source) else source}; Ctrl-C stops")
    with _arriving(source, every, console) as arrivals, _published(console, senders, run) as run, _until_told() as stop:
        while not stop.wait(every):
            items = arrivals.settled()
            if items:
                score_into_folder(items, opened.viewed.scorer, run, partial(_tell, console, decisions), stop.is_set)
    console.print(_where_to_look(out), soft_wrap=True, highlight=False)
    output.result({"out": out, **decisions})


def _where_to_look(out: Path) -> str:
    report = out / "report.html"
    return f"report: {report}" if report.is_file() else "no image has arrived"


def _check_folder(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder to watch, and no camera")
    if out.absolute() in (folder.absolute(), *folder.absolute().parents):
        raise ConfigError(f"{folder} lies in --out ({out}), where results are; name another folder")


def _tell(console: Console, decisions: Counter[str], outcome: Outcome) -> None:
    """Say what has been decided now, and count it."""
    if outcome.is_new:
        decisions[outcome.decision] += 1
        why = f" {outcome.reason}" if outcome.reason else ""
        words = f"{datetime.now():%H:%M:%S} {outcome.decision:<9} {outcome.item.name}{why}"
        console.print(words, markup=False, highlight=False)


@contextmanager
def _arriving(source: str, every: float, console: Console) -> Iterator[Arrivals | Camera]:
    """What tells of new images, for as long as they are wanted."""
    from ad_dinov3.data.cameras import Camera, is_camera
    from ad_dinov3.data.watching import Arrivals

    if not is_camera(source):
        yield Arrivals(Path(source), quiet_s=every / 2)
        return
    camera = Camera(source, lambda words: console.print(camera_is_away(words)))
    try:
        yield camera
    finally:
        camera.close()


@contextmanager
def _published(console: Console, senders: Mapping[str, Send], run: FolderRun) -> Iterator[FolderRun]:
    """The run with a queue for each receiver; at the end it is said what has not reached one."""
    from ad_dinov3.predict.publish import Publisher, PublishSink

    publishers = {address: Publisher(send) for address, send in senders.items()}
    sinks = [PublishSink(one, run.key, run.outputs) for one in publishers.values()]
    yield replace(run, also=(*run.also, *sinks))
    for address, publisher in publishers.items():
        left = publisher.close()
        if left or publisher.dropped:
            console.print(f"{address}: {left} rows are not sent, {publisher.dropped} had no room; {publisher.error}")


@contextmanager
def _until_told() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set."""
    told, numbers = Event(), (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: told.set()) for number in numbers]
    try:
        yield told
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
