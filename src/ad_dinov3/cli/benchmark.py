"""ad-dinov3 benchmark: how fast models and exported folders are beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import (
    DATA,
    MODEL,
    OUTPUT,
    RUNNING,
    AnyDevice,
    Limit,
    Offline,
    command_app,
    path_here,
)

if TYPE_CHECKING:
    from ad_dinov3.bench.scoring import TestSet
    from ad_dinov3.export.speed import Contender, Speed
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.session import Session

app = command_app()


@dataclass(frozen=True)
class _Where:
    """On what, and how, all contenders run."""

    device: str
    threads: int | None
    compiled: bool
    offline: bool


@app.command()
def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            help="The models: embedded, models' folders, exported folders or Hugging Face ids. The others are "
            "compared with the first one.",
            metavar="MODELS",
        ),
    ],
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="The number of images in one call. The option may be repeated. By default it is 1.",
            metavar="N",
            rich_help_panel=MODEL,
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="The input in px, 512 or HxW. The option may be repeated. By default it is each model's own.",
            metavar="PX",
            rich_help_panel=MODEL,
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help="Torch models are also timed under torch.compile.",
            metavar="",
            rich_help_panel=MODEL,
        ),
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="The number of timed calls of each model.", metavar="N", rich_help_panel=RUNNING),
    ] = 20,
    warm_up: Annotated[
        int,
        typer.Option(
            min=0, help="The number of calls before them that do not count.", metavar="N", rich_help_panel=RUNNING
        ),
    ] = 2,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The number of processor threads that a model uses. By default the runtime chooses.",
            metavar="N",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    device: AnyDevice = "cpu",
    data: Annotated[
        str | None,
        typer.Option(
            help="A labelled data set, on which accuracy is measured beside speed. It needs --out.",
            metavar="DATA",
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: Limit = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The JSONL file that the figures are added to.",
            metavar="FILE",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Time models on random inputs in one run: each takes its turn in every round, and medians count.

    A busy machine still measures ratios of processor time well, and wall-clock times badly. On cuda, torch models are
    timed in bfloat16 as well. With --data the pixel AUROC is measured too, and a picture of accuracy against
    milliseconds is written beside OUT.
    """
    from ad_dinov3.bench.checks import check_model
    from ad_dinov3.cli.export import read_size
    from ad_dinov3.errors import ConfigError

    output = Output(as_json)
    console = output.console
    if data is not None and out is None:
        raise ConfigError("--data needs --out: the picture lies beside the figures")
    sizes = [read_size(text) for text in size] if size else [None]
    for model in models:
        check_model(None, model)
    test_set = _test_set(data, limit, models) if data else None
    where = _Where(device, threads, compiled, offline)
    accuracy = _accuracy(console, models, test_set, where) if test_set else {}

    from ad_dinov3.export.speed import race

    found: list[Speed] = []
    for pixels in sizes:
        with console.status("loading the models"):
            contenders = [one for model in models for one in _contenders(model, _label(model, models), pixels, where)]
        if not contenders:
            raise ConfigError(f"no model takes {pixels} px: an exported graph has one size, unless --size was dynamic")
        for count in batch_size or [1]:
            with console.status(f"{rounds} rounds of {count}"):
                speeds = race(contenders, count, rounds, warm_up)
            console.print(_table(speeds, count))
            found += speeds
            if out is not None:
                _append(out, speeds, accuracy, where)
                _draw(out.with_name(f"{out.stem}-{speeds[0].height}x{speeds[0].width}-{count}.svg"), speeds, accuracy)
    output.result({"speeds": [asdict(speed) for speed in found], "pixel_auroc": accuracy})


def _label(model: str, models: Sequence[str]) -> str:
    """What the table calls a model: an exported folder by its name, unless another one has the same."""
    from ad_dinov3.infer.exported import is_exported

    name = Path(model).name
    return name if is_exported(model) and [Path(other).name for other in models].count(name) == 1 else model


def _contenders(model: str, label: str, pixels: tuple[int, int] | None, where: _Where) -> Iterator[Contender]:
    """The ways to run one model; none for an exported one that does not take the size."""
    from ad_dinov3.export.speed import Contender, PeakMemory
    from ad_dinov3.infer.exported import is_exported

    memory = PeakMemory()
    if is_exported(model):
        with memory.watch():
            session = _session(model, pixels, where)
        if session is not None:
            config = session.config
            name = f"{label} ({config.runtime} {config.precision})"
            yield Contender(name, model, session, config.input.size, memory=memory)
        return
    import torch

    if where.threads is not None:
        torch.set_num_threads(where.threads)
    on_gpu = where.device.startswith("cuda")
    for words in ["torch"] + ["torch, bf16"] * on_gpu + ["torch, compiled"] * where.compiled:
        memory = PeakMemory()
        with memory.watch():
            detector = _twin(model, words, where)
        wait = torch.cuda.synchronize if on_gpu else lambda: None
        yield Contender(f"{label} ({words})", model, detector, pixels or detector.config.input.size, wait, memory)


def _session(model: str, pixels: tuple[int, int] | None, where: _Where) -> Session | None:
    """An exported folder at a size; None if it has another one."""
    from ad_dinov3.infer.exported import read_session_config
    from ad_dinov3.infer.session import Session

    config = read_session_config(Path(model))
    if pixels is not None and pixels != config.input.size and config.size_multiple is None:
        return None
    return Session(model, device=where.device, mode="latency", threads=where.threads, size=pixels)


def _twin(model: str, words: str, where: _Where) -> Detector:
    """A torch model of its own for one way of running it."""
    import torch

    from ad_dinov3.encoders.backbone import FrozenBackbone
    from ad_dinov3.infer.detector import Detector

    detector = Detector.from_pretrained(model, device=where.device, offline=where.offline)
    encoder = detector.model.encoder
    if isinstance(encoder, FrozenBackbone):
        if words.endswith("bf16"):
            encoder.autocast = torch.bfloat16
        if words.endswith("compiled"):
            encoder.module.compile()
    return detector


def _test_set(data: str, limit: int | None, models: Sequence[str]) -> TestSet:
    """The labelled set, if every image has its mask and none of the models has seen it."""
    from ad_dinov3.bench.checks import refuse_seen_sets
    from ad_dinov3.bench.scoring import as_test_set
    from ad_dinov3.bench.seen import seen_on_disk
    from ad_dinov3.data.catalog import open_data

    labelled = open_data(data)
    labelled.listing.complete()
    test_set = as_test_set(labelled, limit)
    for model in models:
        refuse_seen_sets(seen_on_disk(None, model, None), [test_set])
    return test_set


def _accuracy(console: Console, models: Sequence[str], test_set: TestSet, where: _Where) -> dict[str, float | None]:
    """Pixel AUROC of each model over all classes pooled, by the model's name, protocol ``native``."""
    import tempfile

    from ad_dinov3.bench.protocol import PROTOCOLS
    from ad_dinov3.bench.run import evaluate
    from ad_dinov3.bench.subjects import open_subject

    found: dict[str, float | None] = {}
    for model in models:
        with console.status(f"{model} on {len(test_set.samples)} images"), tempfile.TemporaryDirectory() as store:
            subject = open_subject(None, model, device=where.device, offline=where.offline)
            result = evaluate(subject, test_set, PROTOCOLS["native"], Path(store))
        found[model] = result.pooled.estimates["pixel_auroc"].value
    return found


def _table(speeds: Sequence[Speed], batch_size: int) -> Table:
    """Narrow enough for 80 columns: sizes go into the title or the names, energy only where it can be read."""
    sizes = {f"{speed.height}x{speed.width}" for speed in speeds}
    one_size = f"{sizes.pop()} px, " if len(sizes) == 1 else ""
    title = f"{one_size}batch {batch_size}, {speeds[0].calls} calls each, in turns"
    caption = "p50 to p99: ms of a call; CPU: processor ms of an image\nwall x, CPU x: times as fast as the first"
    table = Table(title=title, caption=caption, box=None, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.add_column("model", overflow="fold")
    has_energy = any(speed.energy_j is not None for speed in speeds)
    for heading in ("images/s", "p50", "p95", "p99", "CPU", "MB", *["J"] * has_energy, "wall x", "CPU x"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = speeds[0]
    for speed in speeds:
        table.add_row(
            speed.name if one_size else f"{speed.name}, {speed.height}x{speed.width}",
            f"{speed.images_per_second:.1f}",
            *(f"{value:.1f}" for value in (speed.p50_ms, speed.p95_ms, speed.p99_ms, speed.cpu_ms)),
            "n/a" if speed.memory_mb is None else f"{speed.memory_mb:.0f}",
            *(["n/a" if speed.energy_j is None else f"{speed.energy_j:.2f}"] * has_energy),
            f"{first.p50_ms / speed.p50_ms:.2f}",
            f"{first.cpu_ms / speed.cpu_ms:.2f}",
        )
    return table


def _append(file: Path, speeds: Sequence[Speed], accuracy: Mapping[str, float | None], where: _Where) -> None:
    from ad_dinov3.bench.rows import installed_versions

    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"device": where.device, "threads": where.threads, "versions": installed_versions()}
    with file.open("a", encoding="utf-8") as rows:
        for speed in speeds:
            rows.write(json.dumps({**asdict(speed), "pixel_auroc": accuracy.get(speed.model), **facts}) + "\n")


def _draw(file: Path, speeds: Sequence[Speed], accuracy: Mapping[str, float | None]) -> None:
    """Accuracy against the milliseconds of an image; nothing where no accuracy is known."""
    from ad_dinov3.files import write_text
    from ad_dinov3.report.chart import scatter_chart

    known = {speed.name: (1e3 / speed.images_per_second, accuracy.get(speed.model)) for speed in speeds}
    points = {name: (ms, 100 * value) for name, (ms, value) in known.items() if value is not None}
    if points:
        write_text(file, scatter_chart(points, "Accuracy against time", "ms per image", "pixel AUROC, %"))
