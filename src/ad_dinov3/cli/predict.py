"""ad-dinov3 predict: score images; maps, masks, regions, overlays and a report."""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ad_dinov3.cli.options import AnyDevice, AnyModel, KeepAspect, Method, Normals, Offline, Overlap, Tile, Weights
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.data.streams import ImageFile
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.scorer import Scorer
    from ad_dinov3.infer.session import Session
    from ad_dinov3.predict.drive import Failure, RunSummary
    from ad_dinov3.predict.folder import FolderRun, FolderSummary, Outcome

app = typer.Typer(add_completion=False)

_FAILURES_SHOWN = 20
_WORST_SHOWN = 5


class MapChoice(StrEnum):
    """How anomaly maps are written."""

    tiff = "tiff"
    png16 = "png16"
    none = "none"


@app.command()
def predict(
    sources: Annotated[
        list[str], typer.Argument(help="files, folders (searched recursively), patterns, videos, - for a list on stdin")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for all results")],
    model: AnyModel = "embedded",
    method: Method = None,
    weights: Weights = None,
    normals: Normals = None,
    class_name: Annotated[str, typer.Option(help="what the images show; used by models with text prompts")] = "object",
    class_from_folder: Annotated[
        bool, typer.Option("--class-from-folder", help="the outermost folder below a source names the class")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="from here on anomalous; default: the model's own")
    ] = None,
    min_area: Annotated[int, typer.Option(min=1, help="drop regions with fewer px")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="images per call of the model")] = 8,
    device: AnyDevice = "cpu",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    keep_aspect: KeepAspect = False,
    maps: Annotated[MapChoice, typer.Option(help="anomaly maps as float32 TIFF, 16-bit PNG, or not")] = MapChoice.tiff,
    masks: Annotated[bool, typer.Option(help="masks at the threshold as PNG")] = True,
    overlays: Annotated[bool, typer.Option(help="maps drawn on the images as JPEG")] = True,
    coco: Annotated[bool, typer.Option("--coco", help="also coco.json: regions as COCO annotations")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="also results.parquet (extra: parquet)")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="do again what an earlier run has done")] = False,
    offline: Offline = False,
    profile: Annotated[bool, typer.Option("--profile", help="show where the time went")] = False,
) -> None:
    """Score images, and write what was found where.

    The output folder gets overlays, maps, masks, results.jsonl, results.csv and report.html.

    A second run over the same images goes on where the first one stopped.

    Exit codes: 0 all done, 2 wrong usage, 3 some images failed (listed), 130 interrupted.
    """
    console = Console()
    items, total = _list_images(sources)
    with console.status("loading the model"):
        from ad_dinov3.predict.drive import DriveOptions
        from ad_dinov3.predict.folder import FolderRun
        from ad_dinov3.predict.ledger import Outputs

        detector = open_detector(model, method, weights, device=device, offline=offline)
        if normals is not None:
            remember_normals(detector, normals, None if class_from_folder else class_name)
        view = look_through(detector, tile, overlap, keep_aspect)
    level = detector.config.threshold if threshold is None else threshold
    run = FolderRun(
        folder=out,
        model_name=model,
        model_fingerprint=view.fingerprint,
        options=DriveOptions(class_name, level, min_area, batch_size, class_from_folder=class_from_folder),
        outputs=Outputs(overlays, masks, maps.value),
        coco=coco,
        parquet=parquet,
        overwrite=overwrite,
        method=method_title(detector),
    )
    from ad_dinov3.predict.folder import score_into_folder

    with score_progress(console, total) as on_outcome, stop_on_interrupt(console) as should_stop:
        summary = score_into_folder(items, view.scorer, run, on_outcome, should_stop)
    print_summary(console, summary, run, sources)
    if profile:
        print_profile(console, summary.run)
    raise typer.Exit(summary.run.exit_code)


@dataclass(frozen=True)
class View:
    """What scores the images: a model, as it is or through tiles; equal fingerprints give equal maps."""

    scorer: Scorer
    fingerprint: str


def open_detector(
    model: str, method: str | None, weights: str | None, *, device: str, offline: bool
) -> Detector | Session:
    """The model that the user named; an exported folder is opened without importing torch.

    Raises:
        ConfigError: a method is named for an exported folder, which holds its own.
        WeightsError: files are missing or do not fit.
    """
    from ad_dinov3.infer.session import Session, is_exported

    if is_exported(model):
        if method is not None or weights is not None:
            raise ConfigError(f"{model} is an exported model and holds its method; leave out --method and --weights")
        return Session(model, device=device)
    from ad_dinov3.infer import detector as detectors

    if method is None and weights is None:
        return detectors.load(model, device=device, offline=offline)
    from ad_dinov3.model import open_method

    return detectors.Detector(open_method(method, model, weights, offline=offline), device=device, offline=offline)


def remember_normals(detector: Detector | Session, folder: Path, class_name: str | None) -> None:
    """Let a few-shot method compare with the normal images of one class, or of each sub-folder's class.

    Raises:
        ConfigError: the method has no memory, or the folder has no images.
        ImageError: an image cannot be decoded.
    """
    from ad_dinov3.data.normals import find_normals
    from ad_dinov3.infer.session import Session

    if isinstance(detector, Session):
        raise ConfigError(f"{detector.folder} is an exported model and cannot take normal images; use its model")
    for name, paths in find_normals(folder, None if class_name is None else [class_name]).items():
        detector.remember(paths, name)


def method_title(detector: Detector | Session) -> str:
    """What people call the detector's method, and whether it compares with normal images."""
    from ad_dinov3.config import METHOD_TITLES
    from ad_dinov3.infer.session import Session

    title = METHOD_TITLES.get(detector.method, detector.method)
    known = () if isinstance(detector, Session) else detector.normal_classes
    return f"{title}, few-shot ({', '.join(known)})" if known else title


def look_through(detector: Detector | Session, tile: int | None, overlap: float, keep_aspect: bool) -> View:
    """The model seen through tiles, or with the image's aspect kept, as the user wants it; tiles keep it anyway."""
    from ad_dinov3.infer.tiles import Fitted, Tiled

    if tile is not None:
        scorer = Tiled(detector, detector.config.input.size, tile, overlap)
        return View(scorer, f"{detector.fingerprint} in tiles of {tile} px, overlap {overlap}")
    if keep_aspect:
        size, interpolation = detector.config.input.size, detector.config.input.interpolation
        return View(Fitted(detector, size, interpolation), f"{detector.fingerprint} with its aspect kept")
    return View(detector, detector.fingerprint)


def _list_images(sources: Sequence[str]) -> tuple[Iterable[ImageFile], int | None]:
    """The images to come, and their number if it can be told without opening a video or waiting for stdin."""
    from ad_dinov3.data.decode import IMAGE_SUFFIXES
    from ad_dinov3.data.streams import find_images

    def countable(source: str) -> bool:
        path = Path(source)
        return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES

    found = find_images(sources)
    if not all(map(countable, sources)):
        return found, None
    listed = list(found)
    return listed, len(listed)


@contextmanager
def score_progress(console: Console, total: int | None) -> Iterator[Callable[[Outcome], None]]:
    """A bar with counts, speed and time left."""
    from ad_dinov3.predict.drive import Failure, Success

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]}"), TimeRemainingColumn())
    counts = {"anomalous": 0, "failed": 0}
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, found="")

        def advance(outcome: Outcome) -> None:
            counts["anomalous"] += isinstance(outcome, Success) and outcome.is_anomalous
            counts["failed"] += isinstance(outcome, Failure)
            failed = f", [red]{counts['failed']} failed[/]" if counts["failed"] else ""
            bar.update(task, advance=1, found=f"{counts['anomalous']} anomalous{failed}")

        yield advance


@contextmanager
def stop_on_interrupt(console: Console) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C makes the yielded function true; the second one interrupts at once."""
    stopped = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before)
        console.print("stopping when the images in hand are written; Ctrl-C again to stop now")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)


def print_summary(console: Console, summary: FolderSummary, run: FolderRun, sources: Sequence[str]) -> None:
    """Counts, speed, failures and where to look."""
    done = summary.run
    if not (done.scored or done.failures or summary.skipped):
        raise ConfigError(f"no images in {', '.join(sources)}; expected files such as .jpg, .png, .bmp, .tiff, .webp")
    speed = f", {done.scored / done.seconds:.1f} images/s" if done.scored else ""
    console.print(f"{done.scored:,} images in {done.seconds:.1f} s{speed}, threshold {run.options.threshold:.3f}")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    rows = [("bold red", done.anomalous, "anomalous"), ("green", done.normal, "normal")]
    rows += [("bold yellow", len(done.failures), "failed"), ("dim", summary.skipped, "skipped, done before")]
    for style, count, words in rows:
        if count or words in {"anomalous", "normal"}:
            table.add_row(f"[{style}]{count:,}[/]", words)
    console.print(table)
    print_worst(console, run.folder)
    print_failures(console, done.failures)
    console.print(f"report: {run.folder / 'report.html'}", highlight=False, soft_wrap=True)


def print_worst(console: Console, folder: Path) -> None:
    """The anomalous images with the highest scores, and what was found in them."""
    from ad_dinov3.predict.ledger import describe_findings, read_rows

    anomalous = (row for row in read_rows(folder) if row.decision == "anomalous")
    worst = heapq.nlargest(_WORST_SHOWN, anomalous, key=lambda row: row.score or 0.0)
    if worst:
        table = Table(box=None, show_header=False, pad_edge=False, title="worst", title_justify="left")
        for row in worst:
            table.add_row(Text(f"{row.score:.2f}", "bold red"), Text(row.image), describe_findings(row))
        console.print(table)


def print_failures(console: Console, failures: Sequence[Failure]) -> None:
    """The first failures with their reasons, and how many more there are."""
    if not failures:
        return
    table = Table(box=None, show_header=False, pad_edge=False, title="failed", title_justify="left")
    for failure in failures[:_FAILURES_SHOWN]:
        table.add_row(Text(failure.item.name, style="yellow"), Text(failure.reason))
    console.print(table)
    if len(failures) > _FAILURES_SHOWN:
        console.print(f"and {len(failures) - _FAILURES_SHOWN:,} more failed, see results.csv")


def print_profile(console: Console, run: RunSummary) -> None:
    """Seconds by step; the scoring thread's steps as shares of the wall-clock time."""
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "seconds", "of the run", "ms per image"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step, seconds in sorted(run.step_seconds.items(), key=lambda item: -item[1]):
        each = f"{1000 * seconds / run.scored:.1f}" if run.scored else ""
        table.add_row(step, f"{seconds:.2f}", f"{seconds / run.seconds:.0%}", each)
    console.print(table)
    console.print("score and wait for images share one thread; the other steps run beside it, in several threads each")
