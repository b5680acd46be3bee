"""ad-dinov3 demo: the embedded model on the embedded sample images, compared with what is truly wrong with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ad_dinov3.cli.machine import Json, Output
from ad_dinov3.cli.options import OUTPUT, command_app, path_here

if TYPE_CHECKING:
    from ad_dinov3.infer.detector import Detector
    from ad_dinov3.infer.session import Session
    from ad_dinov3.predict.results import Row
    from ad_dinov3.types import Sample

app = command_app()

_COMPARED = "cookie"
_NEAR_PX = 8  # one step of the embedded model's patch grid at its own input size


@dataclass(frozen=True)
class Verdict:
    """How a row compares with the truth.

    Attributes:
        is_right: a normal image was called normal; an anomalous one was called so, and its map peaks on the defect.
        words: the comparison in one line.
    """

    is_right: bool
    words: str


@dataclass(frozen=True)
class Tally:
    """How often a run was right.

    Attributes:
        defects: anomalous images.
        found: those of them that were called so, with the map's peak on the defect.
        normal_images: the others.
        false_alarms: those of them that were called anomalous.
    """

    defects: int
    found: int
    normal_images: int
    false_alarms: int

    def __str__(self) -> str:
        return (
            f"{self.found} of {self.defects} defects found, "
            f"{self.false_alarms} false alarm{'' if self.false_alarms == 1 else 's'} on "
            f"{self.normal_images} normal image{'' if self.normal_images == 1 else 's'}"
        )


@app.command()
def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=path_here,
            help="The folder for overlays and the report.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("ad-dinov3-demo"),
    as_json: Json = False,
) -> None:
    """Find the defects in the sample images that come with the package, offline.

    Twelve samples are rendered and four are photographs; what is wrong with each is said beside the result. The
    photographs are then scored again, compared with nine good ones, as predict --normals does it.
    """
    from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
    from ad_dinov3.data.layouts import read_folder

    output = Output(as_json)
    console = output.console
    samples = {_shown(sample): sample for sample in read_folder(SAMPLES)}
    with console.status("loading the embedded model"):
        from ad_dinov3.infer.opening import load

        detector = load(offline=True)
    alone = _look(console, detector, samples, _Scene(out, "Demo: rendered samples and photographs"))
    console.print(
        "The cookies are photographs, the others are rendered; figures on whole data sets are in the README.\n"
    )

    photographs = {name: sample for name, sample in samples.items() if sample.class_name == _COMPARED}
    good = sorted((GOOD_SAMPLES / _COMPARED).glob("*.jpg"))
    console.print(f"[bold]The cookies again, compared with {len(good)} whole ones[/bold] (predict --normals GOOD/)\n")
    promise = detector.remember(good, _COMPARED)
    scene = _Scene(out / "with_good_images", "Demo: photographs compared with good ones", str(GOOD_SAMPLES))
    compared = _look(console, detector, photographs, scene)
    console.print(promise, highlight=False, soft_wrap=True)
    output.result({"out": out, "alone": asdict(alone), "with_good_images": asdict(compared), "promise": promise})


@dataclass(frozen=True)
class _Scene:
    """A folder of results: its report's title, and the normal images that the model knows."""

    out: Path
    title: str
    normals: str | None = None


def _look(console: Console, detector: Detector | Session, samples: dict[str, Sample], scene: _Scene) -> Tally:
    """Score samples into a folder and say what was found, and whether it is true."""
    from ad_dinov3.cli.predict import score_progress
    from ad_dinov3.data.streams import ImageFile
    from ad_dinov3.infer.decide import DecisionRule
    from ad_dinov3.predict.drive import DriveOptions
    from ad_dinov3.predict.folder import FolderRun, score_into_folder
    from ad_dinov3.predict.run_facts import MadeBy

    out = scene.out

    def truth(row: Row) -> str | None:
        return verdict_on(out, row, samples[row.image]).words if row.image in samples else None

    run = FolderRun(
        folder=out,
        model_name="embedded",
        model_fingerprint=detector.fingerprint,
        options=DriveOptions(rule=DecisionRule(detector.threshold), class_from_folder=True),
        overwrite=True,
        title=scene.title,
        truth=truth,
        made_by=MadeBy(normals=scene.normals),
    )
    items = [ImageFile(sample.image_path, name) for name, sample in samples.items()]
    with score_progress(console, len(items)) as on_outcome:
        score_into_folder(items, detector, run, on_outcome)
    tally = print_findings(console, out, samples)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return tally


def _shown(sample: Sample) -> str:
    """What a sample is called in the report; a rendered one is the only one of its kind and defect."""
    number = "" if sample.image_path.stem == "000" else f"_{sample.image_path.stem}"
    return f"{sample.class_name}/{sample.defect}{number}.jpg"


def verdict_on(out: Path, row: Row, sample: Sample) -> Verdict:
    """Hold a row, its map and its mask on disk against the sample's true mask."""
    import numpy as np
    import tifffile

    from ad_dinov3.data.decode import decode_mask
    from ad_dinov3.data.masks import load_mask

    if not sample.is_anomalous:
        is_right = row.decision == "normal"
        return Verdict(is_right, "truly normal" if is_right else "truly normal: a false alarm")
    true, marked = load_mask(sample), decode_mask(out / str(row.mask))
    anomaly_map = tifffile.imread(out / str(row.map))
    peak = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    miss_px = np.hypot(*(np.argwhere(true) - peak).T).min()
    both = np.count_nonzero(marked & true)
    if row.decision == "normal":
        return Verdict(False, f"true {sample.defect}: missed")
    if not both:
        return Verdict(False, f"true {sample.defect}: elsewhere")
    words = f"true {sample.defect}: {both / true.sum():.0%} of it marked, {both / marked.sum():.0%} of the marks on it"
    return Verdict(bool(miss_px <= _NEAR_PX), words)


def print_findings(console: Console, out: Path, samples: dict[str, Sample]) -> Tally:
    """What was found where, above the truth, and how often it was right."""
    from ad_dinov3.predict.results import describe_findings, read_rows

    rows = sorted(read_rows(out), key=lambda row: -(row.score or 0.0))
    verdicts = [verdict_on(out, row, samples[row.image]) for row in rows]
    for row, verdict in zip(rows, verdicts, strict=True):
        style = "bold red" if row.decision == "anomalous" else "bold green"
        console.print(
            Text.assemble((f"{row.score:.2f} {row.decision:<10}", style), f" {row.image.removesuffix('.jpg')}")
        )
        if row.regions:
            console.print(f"     {describe_findings(row)}", highlight=False)
        mark, colour = ("✓", "green") if verdict.is_right else ("✗", "red")
        console.print(Text.assemble((f"   {mark} ", colour), (verdict.words, "dim")))
    console.print()
    is_defect = [samples[row.image].is_anomalous for row in rows]
    right = [verdict.is_right for verdict in verdicts]
    found = sum(one and ok for one, ok in zip(is_defect, right, strict=True))
    normal = len(rows) - sum(is_defect)
    tally = Tally(sum(is_defect), found, normal, false_alarms=normal - (sum(right) - found))
    console.print(str(tally), highlight=False)
    return tally
