"""What scores the images of a run: a model, or the comparison of the images with each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from ad_dinov3.cli.promises import print_promises
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.data.streams import ImageFile
    from ad_dinov3.infer.decide import DecisionRule
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.drift_watch import Drift, DriftWatch
    from ad_dinov3.infer.opening import CarriedModel, ModelSpec, Viewed
    from ad_dinov3.infer.scorer import Scorer
    from ad_dinov3.infer.session import Session
    from ad_dinov3.predict.cluster import Cluster
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.near_copy_sink import NearCopySink
    from ad_dinov3.predict.shards import Shard
    from ad_dinov3.references.calibration import Calibration


@dataclass(frozen=True, eq=False)
class Opened:
    """What scores the images of a run, and what is said of it."""

    detector: Detector | Session
    viewed: Viewed
    threshold: float
    promises: Mapping[str, str]
    remarks: Sequence[str] = ()

    def rule(self, out: Path, threshold: float | None, min_area_px: int | None, all_regions: bool) -> DecisionRule:
        """What is wished, or else what the model says; where to look at images ``out`` may say, too."""
        from ad_dinov3.infer.areas import read_areas
        from ad_dinov3.infer.decide import DecisionRule

        level = self.threshold if threshold is None else threshold
        return DecisionRule(level, min_area_px, all_regions, read_areas(out) or self.detector.areas)


def open_model(console: Console, spec: ModelSpec, normals: Mapping[str, Sequence[Path]]) -> Opened:
    """The model with its normal images, seen through its view."""
    from ad_dinov3.infer.opening import look_through, remember_all

    with console.status("loading the model"):
        detector = spec.open()
        remember_all(detector, normals, spec.view)
        viewed = look_through(detector, spec.view)
    print_promises(console, detector.promises, normals)
    return Opened(detector, viewed, detector.threshold, detector.promises)


@dataclass(frozen=True)
class Asked:
    """How the images of a run are to be looked at: each alone or with others, where, which part, how many in all."""

    compare: Literal["folder", "stream"] | None
    drift: bool
    engine: str
    part: Shard
    total: int | None

    def check(self, spec: ModelSpec, normals: Mapping[str, Sequence[Path]]) -> None:
        """Refuse what a comparison of images with each other, or a watch over them, cannot do.

        Raises:
            ConfigError: tiles, a kept aspect, a cluster or a shard; for a folder a source without a known end; for a
                stream normal images; a watch over images that do not come one after the other.
        """
        if self.drift and (self.compare == "folder" or self.engine != "here"):
            raise ConfigError(
                "--drift watches images in the order in which they come; omit --compare folder and --engine"
            )
        if self.compare is None:
            return
        if self.engine != "here" or self.part.count > 1:
            raise ConfigError(
                "--compare holds each image of a class against all others, so that one process has to see them all; "
                "omit --engine and --shard, and give each machine the folders of other classes"
            )
        if spec.view.words:
            raise ConfigError("--compare looks at whole images; omit --tile and --keep-aspect")
        if self.compare == "folder" and self.total is None:
            raise ConfigError(
                "--compare folder goes through all images twice; for videos and lists take --compare stream"
            )
        if self.compare == "stream" and normals:
            raise ConfigError("--compare stream learns from the stream alone; omit --compare to use --normals")


def open_scorer(
    console: Console,
    spec: ModelSpec,
    asked: Asked,
    items: Iterable[ImageFile],
    normals: Mapping[str, Sequence[Path]],
    options: DriveOptions,
    out: Path,
) -> Opened:
    """What scores the images of a run as it is asked for; ``out`` is where a comparison keeps tokens for a while.

    Raises:
        ConfigError: what is asked for cannot be.
    """
    asked.check(spec, normals)
    if asked.compare == "folder":
        return open_comparison(console, spec, items, normals, options, out)
    if asked.compare == "stream":
        return open_stream(console, spec, asked.drift)
    opened = open_model(console, spec if asked.engine == "here" else replace(spec, device="cpu"), normals)
    if not asked.drift:
        return opened
    scorer = watched(console, opened.viewed.scorer, opened.detector)
    return replace(opened, viewed=replace(opened.viewed, scorer=scorer))


def open_comparison(
    console: Console,
    spec: ModelSpec,
    items: Iterable[ImageFile],
    normals: Mapping[str, Sequence[Path]],
    options: DriveOptions,
    out: Path,
) -> Opened:
    """What answers for a folder whose images are compared with each other."""
    from ad_dinov3.infer.compared import CALIBRATED_THRESHOLD
    from ad_dinov3.infer.opening import Viewed
    from ad_dinov3.predict.compare import compare_images

    with console.status("loading the model"):
        detector = spec.open()
    with console.status("comparing the images with each other"):
        found = compare_images(detector, items, options.class_of, normals, out)
    remarks = [*found.remarks, *_products_together(items, options), *_forgotten(detector)]
    _tell(console, remarks)
    print_promises(console, found.promises)
    viewed = Viewed(found.scorer, f"{detector.fingerprint} compared {found.fingerprint}")
    return Opened(detector, viewed, CALIBRATED_THRESHOLD, found.promises, remarks)


def _tell(console: Console, remarks: Iterable[str]) -> None:
    for remark in remarks:
        console.print(remark, markup=False, highlight=False)


def _forgotten(detector: Detector | Session) -> list[str]:
    """A remark where a model remembers good images, or has a threshold from some, as a comparison looks at neither."""
    if detector.references.is_empty:
        return []
    return ["the good images that the model remembers or was calibrated by take no part in this comparison"]


def _products_together(items: Iterable[ImageFile], options: DriveOptions) -> list[str]:
    """A remark where sub-folders, whose names say nothing of defects, are compared as one class."""
    from ad_dinov3.data.labels import label_of

    folders = {item.name.partition("/")[0] for item in items if "/" in item.name}
    if options.class_from_folder or len(folders) < 2 or any(label_of(name) is not None for name in folders):
        return []
    return [f"{len(folders)} sub-folders are compared as one class; if each is a product, add --class-from-folder"]


def open_stream(console: Console, spec: ModelSpec, drift: bool) -> Opened:
    """What answers for a stream whose images are compared with those before them."""
    from ad_dinov3.infer.compared import CALIBRATED_THRESHOLD
    from ad_dinov3.infer.opening import Viewed
    from ad_dinov3.predict.compare import LEARNING, StreamScorer

    with console.status("loading the model"):
        detector = spec.open()
    remarks = [LEARNING, *_forgotten(detector)]
    _tell(console, remarks)
    scorer = StreamScorer(detector, drift_watch(console, {}) if drift else None)
    viewed = Viewed(scorer, f"{detector.fingerprint} compared with the past")
    return Opened(detector, viewed, CALIBRATED_THRESHOLD, {}, remarks)


def near_copy_sink(console: Console, normals: Mapping[str, Sequence[Path]]) -> NearCopySink:
    """What warns of images that are nearly normal ones."""
    from ad_dinov3.predict.near_copy_sink import NearCopySink

    tell = partial(console.print, style="yellow", markup=False, soft_wrap=True)
    return NearCopySink(normals, tell)


def watched(console: Console, scorer: Scorer, detector: Detector | Session) -> Scorer:
    """The scorer of a model, with a watch over its scores."""
    from ad_dinov3.infer.drift_watch import WatchedScorer

    return WatchedScorer(scorer, drift_watch(console, detector.references.calibrations))


def drift_watch(console: Console, calibrations: Mapping[str, Calibration]) -> DriftWatch:
    """A watch that says when the images of a class have changed."""
    from ad_dinov3.infer.drift_watch import DriftWatch

    def tell(name: str, drift: Drift) -> None:
        console.print(f"{name}: {drift.words}", style="bold yellow", highlight=False)

    return DriftWatch(calibrations, tell)


def away_from_here(
    detector: Detector | Session | None, spec: ModelSpec, address: str | None, actors: int | None, gpus: float
) -> tuple[CarriedModel | ModelSpec, Cluster]:
    """What travels to a cluster, with its normal images if it has been given some, and the cluster."""
    from ad_dinov3.infer.opening import CarriedModel
    from ad_dinov3.predict.cluster import Cluster

    carried = spec if detector is None else CarriedModel(detector, spec.view)
    return carried, Cluster(address, actors, gpus=gpus)
