"""ad-dinov3 train: adapters on labelled images of other products."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import (
    MODEL,
    OUTPUT,
    PRESET,
    TRAINING,
    AnyDevice,
    Cache,
    Changes,
    DataSets,
    Limit,
    Offline,
    Overwrite,
    SettingsFile,
    Weights,
    command_app,
    path_here,
    read_changes,
    training_progress,
)
from ad_dinov3.data.listing import spread
from ad_dinov3.methods.table import method_row, names_of
from ad_dinov3.training.output import CHART, LOG, check_output

if TYPE_CHECKING:
    from ad_dinov3.config import ModelConfig
    from ad_dinov3.data.catalog import LabelledData
    from ad_dinov3.model import Model
    from ad_dinov3.types import Sample

EpochMeans = dict[int, dict[str, float]]  # epoch from 0 -> term of the loss -> its mean

app = command_app()


@app.command()
def train(
    data: DataSets,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder of the model that comes out.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help=f"The method that is trained: {names_of(lambda row: row.is_trained)}.",
            metavar="NAME",
            rich_help_panel=MODEL,
        ),
    ] = "ad_dinov3",
    preset: Annotated[str | None, PRESET] = None,
    weights: Weights = None,
    settings: SettingsFile = None,
    changes: Changes = None,
    device: AnyDevice = "cpu",
    cache: Cache = True,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="The run in --out goes on from its last complete epoch.",
            metavar="",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="TensorBoard events are also written, to --out (extra: tensorboard).",
            metavar="",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Train the adapters of AD-DINOv3, or a baseline's head, on labelled images; the encoders stay frozen.

    The folder that comes out is what predict and evaluate take as --model. It also holds a log (train.jsonl) and a
    picture of the losses (loss.svg). Ctrl-C or a kill loses at most one epoch: the same command with --resume goes on.
    Without --preset, the settings are those that fit the method and the weights.

    With torchrun --nproc-per-node N -m ad_dinov3 train ... several processes share every batch.
    """
    from ad_dinov3.data.catalog import open_data

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    output = Output(as_json, quiet=not first)
    console = output.console
    preset = preset or _usual_preset(method, weights)
    sets = [open_data(spec) for spec in data]
    names = tuple(item.name for item in sets)
    config = _config(preset, weights, read_changes(settings, changes or []), names)
    _check_method(config, method)
    if first:
        check_output(out, resume=resume, overwrite=overwrite)
    if tensorboard:
        _check_tensorboard()
    samples, words = _samples(console, sets, limit)

    from ad_dinov3.model import new_model  # loads torch: all that can be refused without it was refused above
    from ad_dinov3.training.loop import RunOptions
    from ad_dinov3.training.loop import train as run

    model = new_model(config, words, offline=offline)

    def announce(needed: int, present: int) -> None:
        console.print(f"feature cache: {needed / 1e6:,.0f} MB to write, {present / 1e6:,.0f} MB there")

    with _told_how_to_go_on(console), training_progress(console) as report:
        trained = run(model, samples, out, RunOptions(device, cache, resume, overwrite, announce, report))
    if not first:
        return
    epochs = _epoch_means(out)
    if epochs:
        _draw_losses(epochs, out)
    if tensorboard:
        _write_events(epochs, out)
    console.print("\n".join(_outcome(trained, epochs, out)), highlight=False, soft_wrap=True)
    output.result({"model": out, "images": len(samples), "losses": epochs[max(epochs)] if epochs else {}})


@contextmanager
def _told_how_to_go_on(console: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped: the same command with --resume goes on after the last whole epoch")
        raise


def _samples(console: Console, sets: Sequence[LabelledData], limit: int | None) -> tuple[list[Sample], dict[str, str]]:
    """The images that are trained on, and what their classes are called in prompts."""
    samples: list[Sample] = []
    words: dict[str, str] = {}
    for item in sets:
        chosen = spread(item.listing.complete(), limit)
        console.print(f"{item.name}: {len(chosen)} images, {sum(s.is_anomalous for s in chosen)} anomalous")
        samples += chosen
        words |= item.words
    return samples, words


def _usual_preset(method: str, weights: str | None) -> str:
    from ad_dinov3.errors import ConfigError

    row = method_row(method)
    if not row.is_trained:
        raise ConfigError(f"{method} is not trained; it is ready: ad-dinov3 predict --method {method} ...")
    return "embedded" if method == "ad_dinov3" and weights == "lite0" else row.preset


def _config(preset: str, weights: str | None, changes: dict[str, object], sets: tuple[str, ...]) -> ModelConfig:
    from ad_dinov3.config import PRESETS
    from ad_dinov3.errors import ConfigError

    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    chosen = {"encoder": weights} if weights else {}
    return PRESETS[preset].with_settings(chosen | changes | {"trained_on": sets})


def _check_method(config: ModelConfig, method: str) -> None:
    from ad_dinov3.errors import ConfigError

    found = config.method.kind
    if found != method:
        raise ConfigError(f"preset {config.preset} is one of {found}: add --method {found}, or choose another preset")


def _outcome(model: Model, epochs: EpochMeans, out: Path) -> list[str]:
    """What the run came to, and what can be done with it next."""
    from ad_dinov3.data.catalog import names_here

    lines = []
    if epochs:
        first, last = epochs[min(epochs)], epochs[max(epochs)]
        terms = ", ".join(f"{name} {value:.4g}" for name, value in last.items() if name != "total")
        loss = f"loss {last['total']:.4g} in epoch {max(epochs) + 1} ({first['total']:.4g} in epoch {min(epochs) + 1})"
        lines.append(f"{loss}{f': {terms}' if terms else ''}")
    threshold = model.config.threshold
    lines.append(f"threshold {threshold:g}: the setting's value, fitted to no image; predict --threshold changes it")
    seen = {*model.config.trained_on, *model.encoder.spec.trained_on}
    unseen = [name for name in names_here() if name not in seen]
    lines.append(
        f"{out} holds the model, {LOG} and {CHART}; measure it on data that no part of it has seen "
        f"({'found here: ' + ', '.join(unseen) if unseen else 'none of the known sets is found here'}):"
    )
    return [*lines, f"  ad-dinov3 evaluate --model {out} --data {unseen[0] if unseen else 'DIR'}"]


def _draw_losses(epochs: EpochMeans, out: Path) -> None:
    """Write loss.svg: the mean of each term over every epoch."""
    from ad_dinov3.files import write_text
    from ad_dinov3.report.chart import line_chart

    series = {
        name: [(epoch + 1.0, terms[name]) for epoch, terms in epochs.items()] for name in next(iter(epochs.values()))
    }
    write_text(out / CHART, line_chart(series, "Training loss", "epoch", "mean over the epoch", whole_x=True))


def _epoch_means(out: Path) -> EpochMeans:
    """The mean of each loss over every epoch that the log holds."""
    import numpy as np

    from ad_dinov3.training.loop import read_log

    by_epoch: dict[int, list[dict[str, float]]] = {}
    for row in read_log(out):
        by_epoch.setdefault(int(row["epoch"]), []).append(row)
    terms = [name for name in next(iter(by_epoch.values()), [{}])[0] if name not in {"epoch", "step", "lr", "seconds"}]
    return {
        epoch: {term: float(np.mean([row[term] for row in steps])) for term in terms}
        for epoch, steps in by_epoch.items()
    }


def _check_tensorboard() -> None:
    from ad_dinov3.errors import MissingExtraError

    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard")


def _write_events(epochs: EpochMeans, out: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out)) as writer:
        for epoch, terms in epochs.items():
            for name, value in terms.items():
                writer.add_scalar(f"loss/{name}", value, epoch + 1)
