"""What several commands share: how settings are given, how progress is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ad_dinov3.errors import DataError
from ad_dinov3.methods.table import METHODS

if TYPE_CHECKING:
    from ad_dinov3.training.loop import Progress as TrainingProgress


def command_app(help_text: str | None = None) -> typer.Typer:
    """A module's commands; paragraphs of their help are filled to the terminal's width."""
    return typer.Typer(
        help=help_text, add_completion=False, no_args_is_help=help_text is not None, rich_markup_mode="markdown"
    )


def path_here(text: str | Path) -> Path:
    """A path on this machine, for what takes no URI.

    Raises:
        DataError: it is a URI.
    """
    from ad_dinov3.data.remote import is_uri, redacted

    if is_uri(str(text)):
        raise DataError(
            f"{redacted(str(text))}: expected a path on this machine; copy it from there before, or to there "
            "afterwards, with the object store's own tool"
        )
    return Path(text)


# The panels of every command's help.
IMAGES, MODEL, DECISION, OUTPUT, SERVICE, RUNNING = "Images", "Model", "Decision", "Output", "Service", "Running"
DATA, TRAINING = "Data", "Training"

METHOD_HELP = f"The method: {', '.join(METHODS)}. By default it is that of the model."
Method = Annotated[str | None, typer.Option(help=METHOD_HELP, metavar="NAME", rich_help_panel=MODEL)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="The encoder of a model that does not come from a folder of its own: a name, a folder, a file, or a URI "
        "of one. By default it is the one that the method's settings name.",
        metavar="NAME",
        rich_help_panel=MODEL,
    ),
]
Normals = Annotated[
    str | None,
    typer.Option(
        help="A folder of normal images that the model compares others with and is calibrated by, with a sub-folder "
        "for each class if there are several; here or in an object store.",
        metavar="DIR",
        rich_help_panel=MODEL,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Nothing is downloaded. The environment variable HF_HUB_OFFLINE=1 does the same.",
        metavar="",
        rich_help_panel=RUNNING,
    ),
]
# of the commands that take an exported folder for a model
AnyModel = Annotated[
    str,
    typer.Option(
        help="The model: embedded, a model's folder, an exported folder, a URI of one, or a Hugging Face id.",
        metavar="NAME",
        rich_help_panel=MODEL,
    ),
]
AnyDevice = Annotated[
    str,
    typer.Option(
        help="Where the model runs: cpu, cuda, cuda:1 or mps. An exported folder takes what its runtime has.",
        metavar="NAME",
        rich_help_panel=RUNNING,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=16,
        help="The image is looked at in tiles of this many of its pixels, at its own resolution.",
        metavar="PX",
        rich_help_panel=MODEL,
    ),
]
Overlap = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.9,
        help="The share of a tile that it has in common with the next one.",
        metavar="SHARE",
        rich_help_panel=MODEL,
    ),
]
KeepAspect = Annotated[
    bool,
    typer.Option(
        "--keep-aspect",
        help="The image keeps its aspect instead of being squashed to the input.",
        metavar="",
        rich_help_panel=MODEL,
    ),
]
ClassName = Annotated[
    str,
    typer.Option(help="What the images show. Models with text prompts use it.", metavar="NAME", rich_help_panel=IMAGES),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="An image whose score reaches this value is anomalous, and so are pixels of its map. By default it is the "
        "model's own value.",
        metavar="T",
        rich_help_panel=DECISION,
    ),
]
Host = Annotated[
    str,
    typer.Option(
        help="The address to listen on; 0.0.0.0 is all of this machine's.", metavar="HOST", rich_help_panel=SERVICE
    ),
]
Port = Annotated[
    int,
    typer.Option(
        min=0, max=65535, help="The port to listen on; 0 takes a free one.", metavar="N", rich_help_panel=SERVICE
    ),
]
UploadMb = Annotated[
    int,
    typer.Option(
        min=1,
        help="The largest request in MiB. Larger ones are refused with 413.",
        metavar="N",
        rich_help_panel=SERVICE,
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(
        parser=path_here,
        help="A file with a key on each line. Requests then have one of them: Authorization: Bearer KEY. The "
        "environment variable AD_DINOV3_KEYS does the same.",
        metavar="FILE",
        rich_help_panel=SERVICE,
    ),
]
NoAuth = Annotated[
    bool,
    typer.Option(
        "--no-auth",
        help="The service may listen beyond this machine without keys.",
        metavar="",
        rich_help_panel=SERVICE,
    ),
]
AllowedHosts = Annotated[
    list[str],
    typer.Option(
        "--allowed-host",
        help="A name by which the service may be called, beside localhost and addresses; repeatable. Requests for "
        "other names are refused, so that no web page reaches the service under a name of its own.",
        metavar="NAME",
        rich_help_panel=SERVICE,
    ),
]
Drift = Annotated[
    bool,
    typer.Option(
        "--drift",
        help="It is told when the images have changed, by their scores, or in a stream by their likeness to the first "
        "ten. On a line that does not change that happens once in a hundred lines.",
        metavar="",
        rich_help_panel=DECISION,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(min=1, help="The number of images in one call of the model.", metavar="N", rich_help_panel=RUNNING),
]
ShardText = Annotated[
    str,
    typer.Option(
        "--shard",
        help="I/N does one of N parts of the images, 0/N to (N-1)/N, by the hash of their names. auto, or auto/N, does "
        "the part of this task of a SLURM array, a Kubernetes Indexed Job or an AWS Batch array.",
        metavar="I/N",
        rich_help_panel=RUNNING,
    ),
]
Engine = Annotated[
    Literal["here", "ray"],
    typer.Option(
        help="Where images are scored: here (in this process), or ray (on a Ray cluster; extra: ray).",
        metavar="NAME",
        rich_help_panel=RUNNING,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT. By default one is started on this machine.",
        metavar="WHERE",
        rich_help_panel=RUNNING,
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(min=1, help="The largest number of Ray actors.", metavar="N", rich_help_panel=RUNNING),
]
GpusPerActor = Annotated[
    float,
    typer.Option(
        "--num-gpus-per-actor",
        min=0,
        help="The number of GPUs of a Ray actor; 0.5 lets two share one.",
        metavar="N",
        rich_help_panel=RUNNING,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="What an earlier run left in --out is replaced.",
        metavar="",
        rich_help_panel=OUTPUT,
    ),
]
Coco = Annotated[
    bool,
    typer.Option(
        "--coco",
        help="Regions are also written as COCO annotations, to coco.json.",
        metavar="",
        rich_help_panel=OUTPUT,
    ),
]
Parquet = Annotated[
    bool,
    typer.Option(
        "--parquet",
        help="Rows are also written to results.parquet (extra: parquet).",
        metavar="",
        rich_help_panel=OUTPUT,
    ),
]
DataSets = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="A labelled data set: a folder, a manifest, a URI of one, a catalog name or NAME=DIR. The option may be "
        "repeated.",
        metavar="DATA",
        rich_help_panel=DATA,
    ),
]
DataRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-root",
        parser=path_here,
        help="A folder that holds data sets. The option may be repeated. By default it is $AD_DINOV3_DATA and ./data.",
        metavar="DIR",
        rich_help_panel=DATA,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At most this many images of each data set are used, evenly spread over it.",
        metavar="N",
        rich_help_panel=DATA,
    ),
]
ProtocolText = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="The rules of measurement: paper, released, native, or a TOML file.",
        metavar="NAME",
        rich_help_panel=DATA,
    ),
]
PRESET = typer.Option(
    help="The settings to start from: paper, released, default, embedded, or the name of a baseline.",
    metavar="NAME",
    rich_help_panel=TRAINING,
)
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        parser=path_here,
        help="A TOML or JSON file with settings.",
        metavar="FILE",
        rich_help_panel=TRAINING,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="One setting, such as train.epochs=5, which wins over --settings. The option may be repeated.",
        metavar="KEY=VALUE",
        rich_help_panel=TRAINING,
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        help="Frozen features are kept on disk, or every image is encoded anew at every step.",
        metavar="",
        rich_help_panel=TRAINING,
    ),
]
BakedClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--class-name",
        help="A class whose prompts are stored in the model. The option may be repeated.",
        metavar="NAME",
        rich_help_panel=MODEL,
    ),
]
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
