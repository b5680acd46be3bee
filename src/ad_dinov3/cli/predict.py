"""ad-dinov3 predict: score images; maps, masks, regions, overlays and a report."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.opened import Asked, away_from_here, near_copy_sink, open_scorer
from ad_dinov3.cli.options import (
    DECISION,
    IMAGES,
    MODEL,
    OUTPUT,
    RUNNING,
    Actors,
    Address,
    AnyDevice,
    AnyModel,
    BatchSize,
    ClassName,
    Coco,
    Drift,
    Engine,
    GpusPerActor,
    KeepAspect,
    Method,
    Normals,
    Offline,
    Overlap,
    Overwrite,
    Parquet,
    ShardText,
    Threshold,
    Tile,
    Weights,
    command_app,
)
from ad_dinov3.cli.run_summary import print_profile, print_summary
from ad_dinov3.cli.sources import ImagesToCome, list_images
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.infer.opening import CarriedModel, ModelSpec
    from ad_dinov3.infer.scorer import Scorer
    from ad_dinov3.predict.cluster import Cluster
    from ad_dinov3.predict.folder import FolderRun, FolderSummary
    from ad_dinov3.predict.shards import Shard
    from ad_dinov3.predict.store import Place
    from ad_dinov3.predict.types import Outcome

app = command_app()


@app.command()
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (which are searched recursively), patterns, videos, URIs of an object store, lists "
            "of images (.csv, .jsonl, .parquet), - for a list on stdin, or a camera (its number, /dev/video0 or "
            "rtsp://HOST).",
            metavar="SOURCES",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="The folder that all results are written to, here or in an object store (s3://, gs://, az://).",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    normals: Normals = None,
    compare: Annotated[
        Literal["folder", "stream"] | None,
        typer.Option(
            help="The images of a class are compared with each other, and with its normal images if there are some: "
            "what few others show is strange. Three images are needed, twenty are better. In a stream each is compared "
            "with those before it, once ten have been seen.",
            metavar="folder|stream",
            rich_help_panel=MODEL,
        ),
    ] = None,
    class_name: ClassName = "object",
    class_from_folder: Annotated[
        bool,
        typer.Option(
            "--class-from-folder",
            help="The outermost folder below a source says what its images show.",
            metavar="",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    threshold: Threshold = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Regions with fewer pixels do not count. By default it is a quarter of what one cell of the model's "
            "map covers, and at least 9.",
            metavar="PX",
            rich_help_panel=DECISION,
        ),
    ] = None,
    all_regions: Annotated[
        bool,
        typer.Option(
            "--all-regions",
            help="Regions are outlined and listed on images that are called normal, too.",
            metavar="",
            rich_help_panel=DECISION,
        ),
    ] = False,
    drift: Drift = False,
    batch_size: BatchSize = 8,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    maps: Annotated[
        Literal["tiff", "png16", "none"],
        typer.Option(
            help="How anomaly maps are written: as float32 TIFF, as 16-bit PNG, or not at all.",
            metavar="KIND",
            rich_help_panel=OUTPUT,
        ),
    ] = "tiff",
    masks: Annotated[
        bool,
        typer.Option(help="Masks at the threshold are written as PNG, or not.", metavar="", rich_help_panel=OUTPUT),
    ] = True,
    overlays: Annotated[
        bool,
        typer.Option(
            help="Maps are drawn on the images and written as JPEG, or not.", metavar="", rich_help_panel=OUTPUT
        ),
    ] = True,
    coco: Coco = False,
    parquet: Parquet = False,
    video: Annotated[
        bool,
        typer.Option(
            "--video",
            help="The overlays of a video's frames are also written as a video, to videos/ (extra: video).",
            metavar="",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Overwrite = False,
    shard: ShardText = "0/1",
    engine: Engine = "here",
    address: Address = None,
    actors: Actors = None,
    gpus: GpusPerActor = 0,
    offline: Offline = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="The time that each step took is shown.", metavar="", rich_help_panel=RUNNING),
    ] = False,
    as_json: Json = False,
) -> None:
    """Score images, and write what was found where.

    The output folder gets overlays, maps, masks, results.jsonl, results.csv and report.html. A second run over the same
    images goes on where the first one stopped; with another threshold it decides on the maps that are there.

    Exit codes: 0 all done, 2 wrong usage, 3 some images failed (they are listed), 4 a cluster lost
    images (they are listed), 130 interrupted.
    """
    from ad_dinov3.data.normals import find_normals
    from ad_dinov3.infer.opening import ModelSpec, check_method, method_title
    from ad_dinov3.infer.views import View
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.folder import FolderRun
    from ad_dinov3.predict.outputs import Outputs
    from ad_dinov3.predict.run_facts import MadeBy
    from ad_dinov3.predict.shards import read_shard

    output = Output(as_json)
    check_method(method)
    part = read_shard(shard, os.environ)
    place = _place(out, part)
    images = list_images(sources, part, output.console.print)
    found = find_normals(normals, None if class_from_folder else [class_name]) if normals else {}
    spec = ModelSpec(model, method, weights, device, offline, View(tile, overlap, keep_aspect))
    options = DriveOptions(class_name, batch_size=batch_size, class_from_folder=class_from_folder)
    asked = Asked(compare, drift, engine, part, images.total)
    opened = open_scorer(output.console, spec, asked, images.items, found, options, place.folder)
    rule = opened.rule(place.folder, threshold, min_area, all_regions)
    run = FolderRun(
        folder=place.folder,
        model_name=model,
        model_fingerprint=opened.viewed.fingerprint,
        options=replace(options, rule=rule),
        outputs=Outputs(overlays, masks, maps),
        tables=("csv", *["coco"] * coco, *["parquet"] * (parquet or engine == "ray"), *["video"] * video),
        overwrite=overwrite,
        method=method_title(opened.detector),
        shard=part,
        promises=opened.promises,
        near_copies=near_copy_sink(output.console, found),
        remarks=opened.remarks,
        remote=place.remote,
        made_by=MadeBy(spec, normals, compare),
    )
    gc.freeze()  # what is loaded stays: collecting garbage need not walk through all of it
    away = None if engine == "here" else away_from_here(opened.detector if found else None, spec, address, actors, gpus)
    summary = _score(output.console, images, run, opened.viewed.scorer, away)
    raise typer.Exit(_tell(output, summary, run, sources, profile))


def _score(
    console: Console,
    images: ImagesToCome,
    run: FolderRun,
    scorer: Scorer,
    away: tuple[CarriedModel | ModelSpec, Cluster] | None,
) -> FolderSummary:
    from ad_dinov3.predict.cluster import score_on_cluster
    from ad_dinov3.predict.folder import score_into_folder

    if images.total and all(map(run.is_output, images.items)):
        raise ConfigError(f"all images lie in --out ({run.place}), where results are; name another folder")
    should_stop = images.stopped.is_set
    with score_progress(console, images.total) as on_outcome, stop_on_interrupt(console, images.stopped):
        if away is None:
            return score_into_folder(images.items, scorer, run, on_outcome, should_stop)
        return score_on_cluster(images.items, away[0], run, away[1], on_outcome, should_stop)


def _place(out: str, part: Shard) -> Place:
    """Where a shard's results go."""
    from ad_dinov3.predict.store import open_place

    return open_place(out if part.count == 1 else f"{out.rstrip('/')}/{part.folder_name}")


def _tell(output: Output, summary: FolderSummary, run: FolderRun, sources: Sequence[str], profile: bool) -> int:
    """Say what came out, and return the exit code; the folder that a run into an object store worked in goes."""
    from ad_dinov3.predict.store import Place

    print_summary(output.console, summary, run, sources)
    if profile:
        print_profile(output.console, summary.run)
    output.result(_tree(summary, run))
    Place(run.folder, run.remote).leave()
    return summary.exit_code


def _tree(summary: FolderSummary, run: FolderRun) -> dict[str, object]:
    done = summary.run
    return {
        "out": run.place,
        "anomalous": done.anomalous + summary.earlier_anomalous,
        "normal": done.normal + summary.earlier_normal,
        "failed": [{"image": one.item.name, "error": one.reason} for one in done.failures],
        "missing": list(summary.missing),
        "skipped": summary.skipped,
        "threshold": run.options.rule.threshold,
        "seconds": round(done.seconds, 3),
        "interrupted": done.interrupted,
        "promises": dict(run.promises),
    }


@contextmanager
def score_progress(console: Console, total: int | None) -> Iterator[Callable[[Outcome], None]]:
    """A bar with counts and time left."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]}"), TimeRemainingColumn())
    counts = {"anomalous": 0, "normal": 0, "failed": 0}
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, found="")

        def advance(outcome: Outcome) -> None:
            counts[outcome.decision] += 1
            failed = f", [red]{counts['failed']} failed[/]" if counts["failed"] else ""
            bar.update(task, advance=1, found=f"{counts['anomalous']} anomalous{failed}")

        yield advance


@contextmanager
def stop_on_interrupt(console: Console, stopped: Event) -> Iterator[None]:
    """Inside, the first Ctrl-C sets the event; the second one interrupts at once."""

    def note(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)
        console.print("stopping when the images in hand are written; Ctrl-C again to stop now")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
