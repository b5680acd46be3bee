"""ad-dinov3 benchmark: how fast models and exported folders are beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ad_dinov3.cli.options import OFFLINE_HELP

if TYPE_CHECKING:
    from ad_dinov3.export.speed import Contender, Speed

app = typer.Typer(add_completion=False)


@app.command()
def benchmark(
    models: Annotated[
        list[str], typer.Argument(help="embedded, model folders, exported folders; the first is the yardstick")
    ],
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="images per call; repeatable; default 1")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="timed calls of each model")] = 20,
    warm_up: Annotated[int, typer.Option(min=0, help="calls before them that do not count")] = 2,
    compiled: Annotated[bool, typer.Option("--compiled", help="torch models also by torch.compile")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="of the processor's; default: the runtime's own")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSONL file to add the figures to")] = None,
    offline: Annotated[bool, typer.Option("--offline", help=OFFLINE_HELP)] = False,
) -> None:
    """Time models on random inputs in one run: each takes its turn in every round, and medians count.

    Ratios of processor time are what a busy machine still measures well; wall-clock times there are not.
    """
    console = Console()
    from ad_dinov3.export.speed import race

    with console.status("loading the models"):
        contenders = [one for model in models for one in _contenders(model, device, threads, compiled, offline)]
    for size in batch_size or [1]:
        with console.status(f"{rounds} rounds of {size}"):
            speeds = race(contenders, size, rounds, warm_up)
        console.print(_table(speeds, size))
        if out is not None:
            _append(out, speeds)


def _contenders(model: str, device: str, threads: int | None, compiled: bool, offline: bool) -> list[Contender]:
    from ad_dinov3.export.speed import Contender
    from ad_dinov3.infer.session import Session, is_exported

    if is_exported(model):
        session = Session(model, device=device, mode="latency", threads=threads)
        name = f"{Path(model).name} ({session.config.runtime} {session.config.precision})"
        return [Contender(name, session, session.config.input.size)]
    import torch

    from ad_dinov3.encoders.dinov3 import Dinov3Encoder
    from ad_dinov3.infer.detector import load

    if threads is not None:
        torch.set_num_threads(threads)
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    eager = load(model, device=device, offline=offline)
    found = [Contender(f"{model} (torch)", eager, eager.config.input.size, wait)]
    if compiled:
        twin = load(model, device=device, offline=offline)
        if isinstance(twin.model.encoder, Dinov3Encoder):
            twin.model.encoder.module.compile()
            found.append(Contender(f"{model} (torch, compiled)", twin, twin.config.input.size, wait))
    return found


def _table(speeds: Sequence[Speed], batch_size: int) -> Table:
    table = Table(title=f"batch {batch_size}, {speeds[0].calls} calls each, in turns", title_justify="left", box=None)
    table.add_column("model")
    for heading in ("input", "images/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "wall ratio", "CPU ratio"):
        table.add_column(heading, justify="right")
    first = speeds[0]
    for speed in speeds:
        table.add_row(
            speed.name,
            f"{speed.height}x{speed.width}",
            f"{speed.images_per_second:.1f}",
            *(f"{value:.1f}" for value in (speed.p50_ms, speed.p95_ms, speed.p99_ms, speed.cpu_ms)),
            f"{first.p50_ms / speed.p50_ms:.2f}x",
            f"{first.cpu_ms / speed.cpu_ms:.2f}x",
        )
    return table


def _append(file: Path, speeds: Sequence[Speed]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as rows:
        rows.writelines(json.dumps(asdict(speed)) + "\n" for speed in speeds)
