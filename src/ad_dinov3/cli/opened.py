"""What scores the images of a run: a model, or the comparison of the images with each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ad_dinov3.cli.promises import print_promises
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.data.streams import ImageFile
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.opening import CarriedModel, ModelSpec, Viewed
    from ad_dinov3.infer.session import Session
    from ad_dinov3.predict.cluster import Cluster
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.shards import Shard


@dataclass(frozen=True, eq=False)
class Opened:
    """What scores the images of a run, and what is said of it."""

    detector: Detector | Session
    viewed: Viewed
    threshold: float
    promises: Mapping[str, str]


def open_model(console: Console, spec: ModelSpec, normals: Mapping[str, Sequence[Path]]) -> Opened:
    """The model with its normal images, seen through its view."""
    from ad_dinov3.infer.opening import look_through, remember_all

    with console.status("loading the model"):
        detector = spec.open()
        remember_all(detector, normals, spec.view)
        viewed = look_through(detector, spec.view)
    print_promises(console, detector.promises)
    return Opened(detector, viewed, detector.threshold, detector.promises)


def listed(
    items: Iterable[ImageFile], total: int | None, spec: ModelSpec, engine: str, part: Shard
) -> Sequence[ImageFile]:
    """All images of a folder that is to be compared with itself, which is gone through twice.

    Raises:
        ConfigError: tiles, a kept aspect, a cluster or a shard was asked for, or a source has no known end.
    """
    if spec.view.words or engine != "here" or part.count > 1 or total is None or not isinstance(items, Sequence):
        raise ConfigError(
            "--compare folder looks at whole images of folders or files, all of them in one process; omit --tile, "
            "--keep-aspect, --engine, --shard, videos and lists on stdin"
        )
    return items


def compare_with_each_other(
    console: Console,
    spec: ModelSpec,
    items: Sequence[ImageFile],
    normals: Mapping[str, Sequence[Path]],
    options: DriveOptions,
    out: Path,
) -> Opened:
    """The answers of a folder whose images were compared with each other and with normal ones."""
    from ad_dinov3.infer.compared import CALIBRATED_THRESHOLD
    from ad_dinov3.infer.opening import Viewed
    from ad_dinov3.predict.compare import compare_images

    with console.status("loading the model"):
        detector = spec.open()
    with console.status(f"comparing {len(items):,} images with each other"):
        found = compare_images(detector, items, options.class_of, normals, out)
    for remark in found.remarks:
        console.print(remark, highlight=False)
    print_promises(console, found.promises)
    viewed = Viewed(found.scorer, f"{detector.fingerprint} compared {found.fingerprint}")
    return Opened(detector, viewed, CALIBRATED_THRESHOLD, found.promises)


def away_from_here(
    detector: Detector | Session | None, spec: ModelSpec, address: str | None, actors: int | None, gpus: float
) -> tuple[CarriedModel | ModelSpec, Cluster]:
    """What travels to a cluster, with its normal images if it has been given some, and the cluster."""
    from ad_dinov3.infer.opening import CarriedModel
    from ad_dinov3.predict.cluster import Cluster

    carried = spec if detector is None else CarriedModel(detector, spec.view)
    return carried, Cluster(address, actors, gpus=gpus)
