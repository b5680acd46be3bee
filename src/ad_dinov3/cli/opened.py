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


def check_comparison(
    kind: str, spec: ModelSpec, engine: str, part: Shard, total: int | None, normals: Mapping[str, Sequence[Path]]
) -> None:
    """Refuse what a comparison of images with each other cannot do.

    Raises:
        ConfigError: tiles, a kept aspect, a cluster or a shard; for a folder a source without a known end; for a stream
            normal images.
    """
    if spec.view.words or engine != "here" or part.count > 1:
        raise ConfigError(
            "--compare holds each image of a class against all others, so that one process has to see them all, and "
            "whole; omit --tile, --keep-aspect, --engine and --shard"
        )
    if kind == "folder" and total is None:
        raise ConfigError("--compare folder goes through all images twice; for videos and lists take --compare stream")
    if kind == "stream" and normals:
        raise ConfigError("--compare stream learns from the stream alone; omit --compare to use --normals")


def open_comparison(
    console: Console,
    spec: ModelSpec,
    items: Iterable[ImageFile] | None,
    normals: Mapping[str, Sequence[Path]],
    options: DriveOptions,
    out: Path,
) -> Opened:
    """What answers for a folder whose images are compared with each other, or without ``items`` for a stream."""
    from ad_dinov3.infer.compared import CALIBRATED_THRESHOLD
    from ad_dinov3.infer.opening import Viewed
    from ad_dinov3.predict.compare import StreamScorer, compare_images

    with console.status("loading the model"):
        detector = spec.open()
    if items is None:
        console.print("each image is compared with those before it; the first ten of a class are learned from")
        viewed = Viewed(StreamScorer(detector), f"{detector.fingerprint} compared with the past")
        return Opened(detector, viewed, CALIBRATED_THRESHOLD, {})
    with console.status("comparing the images with each other"):
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
