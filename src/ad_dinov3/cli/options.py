"""What several commands share: how settings are given, how progress is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ad_dinov3.training.loop import Progress as TrainingProgress

METHOD_HELP = (
    "ad_dinov3, dinov3_plain (untrained), winclip, april_gan, anomalyclip or adaclip; default: what --model is of"
)
Method = Annotated[str | None, typer.Option(help=METHOD_HELP)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="with --method: the encoder of a rival's .pth file, of winclip or of dinov3_plain; name, folder or file"
    ),
]
Normals = Annotated[
    Path | None,
    typer.Option(help="folder of normal images to compare with (winclip, april_gan), a sub-folder for each class"),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="never download; the environment variable HF_HUB_OFFLINE=1 does the same")
]
# of the commands that take an exported folder for a model
AnyModel = Annotated[str, typer.Option(help="embedded, a model's or exported folder, or a Hugging Face id")]
AnyDevice = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; for an exported folder what its runtime has")]
Tile = Annotated[
    int | None, typer.Option(min=16, help="look at the image in tiles of this many of its px, at its own resolution")
]
Overlap = Annotated[float, typer.Option(min=0, max=0.9, help="share of a tile in common with the next")]
KeepAspect = Annotated[bool, typer.Option("--keep-aspect", help="do not squash the image to the input")]
_NAMES = {"features": "encoding images", "train": "training"}


def read_changes(settings: Path | None, changes: Sequence[str]) -> dict[str, object]:
    """Dotted keys and values of a settings file and of ``key=value`` words; the words win.

    Raises:
        ConfigError: the file cannot be read, or a word has no equals sign.
    """
    from ad_dinov3.config import read_settings
    from ad_dinov3.errors import ConfigError

    flat = read_settings(settings) if settings else {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: expected KEY=VALUE, such as train.epochs=5")
        flat[key] = _value(value)
    return flat


@contextmanager
def training_progress(console: Console) -> Iterator[Callable[[TrainingProgress], None]]:
    """A progress bar with time left for each phase of a training run."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def report(progress: TrainingProgress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = bars.add_task(_NAMES[progress.phase], total=progress.total, losses="")
            losses = f"loss {progress.losses['total']:.3f}" if progress.losses else ""
            bars.update(tasks[progress.phase], completed=progress.done, losses=losses)

        yield report


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
