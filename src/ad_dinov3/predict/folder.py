"""One run over many images into one folder: what is done is skipped, everything is gathered in tables and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from ad_dinov3 import __version__
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.files import write_text
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.predict.drive import DriveOptions, Failure, RunSummary, Success, drive
from ad_dinov3.predict.ledger import Ledger, Outputs, Row, digest
from ad_dinov3.predict.publish import ReportText, write_report
from ad_dinov3.predict.sinks import FileSink, ThumbnailSink, write_coco, write_csv, write_parquet


@dataclass(frozen=True)
class Skipped:
    """An image that an earlier run has done with the same settings."""

    item: ImageFile


Outcome = Success | Failure | Skipped


@dataclass(frozen=True)
class FolderRun:
    """What to write, and what to say of it.

    Attributes:
        folder: where everything goes; made if it is not there.
        model_name: as the user named it.
        model_fingerprint: equal fingerprints give equal maps, so what one has done need not be done again.
        options: how to decide and to drive.
        outputs: the files of each image.
        coco: also write coco.json.
        parquet: also write results.parquet.
        overwrite: forget what earlier runs did.
        method: what the method is called; empty: not said.
        title: the report's heading; None: the folder's name.
        truth: for the report, a line on what is known to be right of an image, None if nothing is.
    """

    folder: Path
    model_name: str
    model_fingerprint: str
    options: DriveOptions
    outputs: Outputs = field(default_factory=Outputs)
    coco: bool = False
    parquet: bool = False
    overwrite: bool = False
    method: str = ""
    title: str | None = None
    truth: Callable[[Row], str | None] = lambda row: None

    @property
    def key(self) -> str:
        """Digest of what decides an image's result, the image aside."""
        options = self.options
        decides = (
            options.class_name,
            options.class_from_folder,
            options.threshold,
            options.min_area_px,
            asdict(self.outputs),
        )
        return digest(self.model_fingerprint, *decides)


@dataclass(frozen=True)
class FolderSummary:
    """What a run came to: this run's part, and how many images earlier runs had done."""

    run: RunSummary
    skipped: int


def score_into_folder(
    items: Iterable[ImageFile],
    detector: Scorer,
    run: FolderRun,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FolderSummary:
    """Score the items that no earlier run has done; write files, results.jsonl, tables, run.json and report.html.

    Items whose files lie inside the output folder are left out: the outputs of the last run are not this run's input.

    Raises:
        DataError: the folder's results.jsonl is of another kind, or the disk is full.
        MissingExtraError: Parquet is wanted and pyarrow is not installed; said before anything is scored.
    """
    if run.parquet:
        write_parquet(run.folder / "results.parquet", iter(()))
    if run.overwrite:
        for name in ("results.jsonl", ".thumbnails.jsonl"):
            (run.folder / name).unlink(missing_ok=True)
    ledger, thumbnails = Ledger(run.folder, run.key, run.outputs), ThumbnailSink(run.folder)
    skipped = 0

    def to_do() -> Iterator[ImageFile]:
        nonlocal skipped
        for item in items:
            if run.folder.absolute() in item.path.absolute().parents:
                continue
            if ledger.is_done(item):
                skipped += 1
                on_outcome(Skipped(item))
            else:
                yield item

    sinks = (FileSink(run.folder, run.outputs), thumbnails, ledger)
    summary = drive(to_do(), detector, sinks, run.options, on_outcome, should_stop)
    _gather(run, summary, ledger, thumbnails)
    return FolderSummary(summary, skipped)


def _gather(run: FolderRun, summary: RunSummary, ledger: Ledger, thumbnails: ThumbnailSink) -> None:
    """Write what is made of all rows, those of earlier runs included."""
    write_csv(run.folder / "results.csv", ledger.rows())
    if run.coco:
        write_coco(run.folder / "coco.json", ledger.rows())
    if run.parquet:
        write_parquet(run.folder / "results.parquet", ledger.rows())
    text = ReportText(
        title=run.title or run.folder.absolute().name,
        threshold=run.options.threshold,
        facts=_facts(run, summary),
        truth=run.truth,
    )
    write_report(run.folder / "report.html", ledger.rows, thumbnails.get, text)
    write_text(run.folder / "run.json", json.dumps(_provenance(run, summary), indent=2))


def _facts(run: FolderRun, summary: RunSummary) -> Sequence[tuple[str, str]]:
    facts = [("Method", run.method)] if run.method else []
    facts += [("Model", run.model_name), ("Date", datetime.now().astimezone().strftime("%d %B %Y, %H:%M"))]
    if summary.scored:
        speed = summary.scored / summary.seconds
        facts.append(("Last run", f"{summary.scored:,} images in {summary.seconds:.1f} s, {speed:.1f} per second"))
    return facts


def _provenance(run: FolderRun, summary: RunSummary) -> dict[str, object]:
    return {
        "format_version": 1,
        "ad_dinov3": __version__,
        "method": run.method,
        "model": run.model_name,
        "model_fingerprint": run.model_fingerprint,
        "options": asdict(run.options),
        "outputs": asdict(run.outputs),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(summary.seconds, 3),
        "anomalous": summary.anomalous,
        "normal": summary.normal,
        "failed": len(summary.failures),
        "interrupted": summary.interrupted,
        "step_seconds": {step: round(seconds, 3) for step, seconds in summary.step_seconds.items()},
    }
