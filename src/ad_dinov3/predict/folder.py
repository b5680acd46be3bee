"""One run over many images into one folder: what is done is skipped, everything is gathered in tables and a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from ad_dinov3 import __version__
from ad_dinov3.data.remote import redacted
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import held, write_text
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.predict.drive import DriveOptions, RunSummary, drive
from ad_dinov3.predict.near_copy_sink import NearCopySink
from ad_dinov3.predict.outputs import FileSink, Outputs
from ad_dinov3.predict.report import ReportSink, ReportText, ThumbnailSink
from ad_dinov3.predict.results import ResultsSink, Row, RunKey, command_again, run_key
from ad_dinov3.predict.run_facts import MadeBy
from ad_dinov3.predict.shards import ALL, Shard
from ad_dinov3.predict.store import JOURNALS, FolderStore, Parts, Store, Tenure, UriStore
from ad_dinov3.predict.tables import TABLES, TableSink
from ad_dinov3.predict.types import Outcome, Sink, StoredScore
from ad_dinov3.references.conformal import VOID

DROPPED = "dropped"
"""Below an output folder: images that people have added in the workbench, which are no outputs."""


@dataclass(frozen=True)
class FolderRun:
    """What to write, and what to say of it.

    Attributes:
        folder: where everything goes; made if it is not there. Of a run into an object store where it works.
        remote: where everything goes in an object store; None: to the folder.
        model_name: as the user named it.
        model_fingerprint: equal fingerprints give equal maps, so what one has done need not be done again.
        options: how to decide and to drive.
        outputs: the files of each image.
        tables: what to gather the rows in: keys of `tables.TABLES`.
        overwrite: forget what earlier runs did.
        method: what the method is called; empty: not said.
        title: the report's heading; None: the folder's name.
        shard: which part of the images this is.
        promises: class name -> what is promised of false alarms there, in words.
        near_copies: notices images that are nearly normal ones.
        remarks: what else a person should know of the scores, such as which could not be compared.
        also: further sinks, told when all others have taken a result.
        made_by: how the model is opened again; None: by its name.
        truth: for the report, a line on what is known to be right of an image, None if nothing is.
    """

    folder: Path
    model_name: str
    model_fingerprint: str
    options: DriveOptions
    outputs: Outputs = field(default_factory=Outputs)
    tables: tuple[str, ...] = ("csv",)
    overwrite: bool = False
    method: str = ""
    title: str | None = None
    shard: Shard = ALL
    promises: Mapping[str, str] = field(default_factory=dict)
    near_copies: NearCopySink = field(default_factory=NearCopySink)
    remarks: Sequence[str] = ()
    also: tuple[Sink, ...] = ()
    made_by: MadeBy | None = None
    truth: Callable[[Row], str | None] | None = None
    remote: UriStore | None = None

    @property
    def maker(self) -> MadeBy:
        """How the model is opened again."""
        return self.made_by or MadeBy(ModelSpec(self.model_name))

    @property
    def store(self) -> Store:
        """Where the images' files go."""
        return self.remote or FolderStore(self.folder)

    @property
    def place(self) -> str:
        """Where the results are, for people."""
        return redacted(self.remote.uri) if self.remote else str(self.folder)

    @property
    def key(self) -> RunKey:
        """What decides an image's row, the image aside."""
        return run_key(self.model_fingerprint, self.options, self.outputs)

    @property
    def report_text(self) -> ReportText:
        """What the report says beside the images."""
        facts = [("Method", self.method)] if self.method else []
        facts.append(("Model", redacted(self.model_name)))
        facts += [(f"Promise for {name}", f"{words}. {VOID}") for name, words in self.promises.items()]
        facts += [("Note", remark) for remark in self.remarks]
        title = self.title or self.folder.absolute().name
        again = partial(command_again, out=self.place, chosen=self.maker.words(self.options))
        return ReportText(title, self.options.rule.threshold, facts, self.truth, again)

    def is_output(self, item: ImageFile) -> bool:
        """Whether an item lies where this run, or another shard of it, writes."""
        is_whole = self.shard.count == 1
        if self.remote:
            home = self.remote.uri if is_whole else self.remote.uri.rpartition("/")[0]
            return item.uri is not None and item.uri.startswith(f"{home}/")
        folder = self.folder.absolute()
        if folder / DROPPED in item.path.absolute().parents:
            return False
        return item.uri is None and (folder if is_whole else folder.parent) in item.path.absolute().parents


@dataclass(frozen=True)
class FolderSummary:
    """What a run came to: this run's part, and what earlier runs had found in the images that they had done.

    Attributes:
        run: what became of the images that were scored, or decided anew, in this run.
        earlier_anomalous: images that an earlier run had called anomalous, with the same settings.
        earlier_normal: images that an earlier run had called normal, with the same settings.
        redecided: images of this run whose map and score an earlier run had written.
        missing: images that were listed and came to no end, neither scored nor failed; a cluster may lose some.
        trouble: why, if the cluster said so.
    """

    run: RunSummary
    earlier_anomalous: int
    earlier_normal: int
    redecided: int = 0
    missing: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def skipped(self) -> int:
        """Number of images that an earlier run had done."""
        return self.earlier_anomalous + self.earlier_normal

    @property
    def exit_code(self) -> int:
        """The process's exit code: 4 if images are missing, else the run's."""
        return 4 if self.missing else self.run.exit_code


def score_into_folder(
    items: Iterable[ImageFile],
    detector: Scorer,
    run: FolderRun,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FolderSummary:
    """Score the items that no earlier run has done; write files, results.jsonl, tables, run.json and report.html.

    An image that an earlier run has scored with the same model is not scored again: with another threshold, another
    smallest region or other files, its score and its map are read from the folder and the decision is made anew. Items
    whose files lie inside the output folder are omitted: the outputs of the last run are not this run's input. Images
    that were dropped onto the workbench lie there and are none.

    Raises:
        ConfigError: another run is writing into the folder.
        DataError: the folder's results.jsonl is of another kind, or the disk is full.
        MissingExtraError: Parquet is wanted and pyarrow is not installed; said before anything is scored.
    """
    with held(run.folder):
        folder = RunFolder(run, on_outcome)
        sinks = [FileSink(run.store, run.outputs), *folder.sinks, run.near_copies, *run.also]
        summary = drive(folder.to_do(items), detector, sinks, run.options, on_outcome, should_stop)
        return folder.finish(summary)


class RunFolder:
    """An output folder while a run goes on: what earlier runs have done, and what takes this run's results.

    Args:
        run: what to write.
        on_outcome: told of each image that an earlier run has done.

    Attributes:
        results: the sink of rows.
        thumbnails: the sink of the report's pictures.
        sinks: these two, and those of tables and report, in the order in which they are closed.
    """

    def __init__(self, run: FolderRun, on_outcome: Callable[[Outcome], None]) -> None:
        self.run = run
        self._on_outcome = on_outcome
        self._counts: Counter[str] = Counter()
        if "video" in run.tables and (run.remote or not run.outputs.overlays):
            raise ConfigError("a video is made of overlays on this machine; write into a folder here, with overlays")
        self._tenure = Tenure(run.remote, run.folder, run.overwrite) if run.remote else None
        if "parquet" in run.tables:
            name, write_parquet = TABLES["parquet"]
            write_parquet(run.folder / name, iter(()))
        if run.overwrite:
            for name in ("results.jsonl", ".thumbnails.jsonl"):
                (run.folder / name).unlink(missing_ok=True)
        parts, pictures = [Parts(self._tenure, run.folder / name) if self._tenure else None for name in JOURNALS]
        self.results = ResultsSink(run.folder, run.key, run.outputs, run.store, parts)
        self.thumbnails = ThumbnailSink(run.folder, pictures)
        (run.folder / "run.json").unlink(missing_ok=True)  # it stands for a run that came to its end
        tables = [TableSink(run.folder, table, self.results.rows) for table in run.tables]
        report = ReportSink(run.folder, self.results.rows, self.thumbnails.get, run.report_text)
        self.sinks: list[Sink] = [self.thumbnails, self.results, *tables, report]

    def to_do(self, items: Iterable[ImageFile]) -> Iterator[ImageFile | StoredScore]:
        """The items that no earlier run has done, with the scores that one has written."""
        for item in items:
            if self.run.is_output(item):
                continue
            self._counts["images"] += 1
            row = self.results.finished(item)
            if row is not None:
                self._counts[row.decision] += 1
                self._on_outcome(Outcome(item, row.decision, is_new=False))
            else:
                stored = self.results.stored(item)
                self._counts["stored"] += stored is not None
                yield stored or item

    def finish(self, summary: RunSummary, missing: tuple[str, ...] = (), trouble: str = "") -> FolderSummary:
        """Write run.json when all sinks are closed, unless images are missing: it stands for a whole run."""
        counts = self._counts
        if not missing:
            facts = _provenance(self.run, summary, counts["images"])
            write_text(self.run.folder / "run.json", json.dumps(facts, indent=2))
        if self._tenure:
            self._tenure.end()
        return FolderSummary(summary, counts["anomalous"], counts["normal"], counts["stored"], missing, trouble)


def _provenance(run: FolderRun, summary: RunSummary, images: int) -> dict[str, object]:
    return {
        "format_version": 1,
        "ad_dinov3": __version__,
        "method": run.method,
        "model": redacted(run.model_name),
        "model_fingerprint": run.model_fingerprint,
        "made_by": run.maker.tree(),
        "promises": dict(run.promises),
        "remarks": list(run.remarks),
        "options": asdict(run.options),
        "outputs": asdict(run.outputs),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "shard": str(run.shard),
        "images": images,
        "seconds": round(summary.seconds, 3),
        "anomalous": summary.anomalous,
        "normal": summary.normal,
        "failed": len(summary.failures),
        "interrupted": summary.interrupted,
        "step_seconds": {step: round(seconds, 3) for step, seconds in summary.step_seconds.items()},
    }
