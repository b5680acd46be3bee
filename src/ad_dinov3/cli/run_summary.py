"""What a run over a folder says at its end."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.predict.drive import RunSummary
    from ad_dinov3.predict.folder import FolderRun, FolderSummary
    from ad_dinov3.predict.types import Failure

_FAILURES_SHOWN = 20
_WORST_SHOWN = 5
_ENOUGH_TO_WONDER = 10


def print_summary(console: Console, summary: FolderSummary, run: FolderRun, sources: Sequence[str]) -> None:
    """Counts, speed, failures and where to look."""
    from ad_dinov3.data.remote import redacted
    from ad_dinov3.predict.results import by_folder_names, read_rows

    done = summary.run
    if not (done.scored or done.failures or summary.skipped or run.shard.count > 1):
        raise ConfigError(
            f"no images in {', '.join(map(redacted, sources))}; expected files such as .jpg, .png, .bmp, .tiff, .webp"
        )
    console.print(_what_was_done(summary, run.options.rule.threshold))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    rows = [
        ("bold red", done.anomalous + summary.earlier_anomalous, "anomalous"),
        ("green", done.normal + summary.earlier_normal, "normal"),
        ("bold yellow", len(done.failures), "failed"),
    ]
    for style, count, words in rows:
        if count or words != "failed":
            table.add_row(f"[{style}]{count:,}[/]", words)
    console.print(table)
    if done.interrupted:
        console.print("stopped before the end: these are not all images; the same command goes on where it stopped")
    if _calls_most_anomalous(summary) and (hint := _hint(run)):
        console.print(f"Most images are called anomalous: {hint}")
    if counts := by_folder_names(read_rows(run.folder)):
        console.print(f"by folder names: {counts}", highlight=False)
    print_worst(console, run.folder)
    if summary.missing:
        console.print(f"{len(summary.missing):,} images came to no end, see {run.place}/missing.txt", style="bold red")
        console.print(f"{summary.trouble or 'the cluster lost them'}; run again to go on", markup=False)
    print_failures(console, done.failures)
    console.print(f"report: {run.place}/report.html", highlight=False, soft_wrap=True)


def _calls_most_anomalous(summary: FolderSummary) -> bool:
    """Whether more than half of a folder is called anomalous."""
    anomalous = summary.run.anomalous + summary.earlier_anomalous
    normal = summary.run.normal + summary.earlier_normal
    return anomalous + normal >= _ENOUGH_TO_WONDER and anomalous > normal


def _hint(run: FolderRun) -> str:
    """Why a threshold may call most images anomalous; empty where they have set it themselves."""
    if run.promises:
        return "if that is wrong, they differ from the good images in product, camera or light; take new good images."
    if run.maker.compare is not None:
        return ""
    return (
        "without good images nobody can say how a good part of this product scores. Compare them with good ones "
        "(--normals GOOD), or with each other (--compare folder)."
    )


def _what_was_done(summary: FolderSummary, threshold: float) -> str:
    done = summary.run
    parts = []
    if done.scored or not summary.skipped:
        speed = f", {done.scored / done.seconds:.1f} images/s" if done.scored else ""
        stored = f", {summary.redecided:,} of them by stored maps" if summary.redecided else ""
        parts.append(f"{_images(done.scored)} in {done.seconds:.1f} s{speed}{stored}")
    if summary.skipped:
        parts.append(f"{_images(summary.skipped)} had been done before with these settings")
    return f"{'; '.join(parts)}; threshold {threshold:.3f}"


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def print_worst(console: Console, folder: Path) -> None:
    """The anomalous images with the highest scores, and what was found in them."""
    from ad_dinov3.predict.results import describe_findings, read_rows

    anomalous = (row for row in read_rows(folder) if row.decision == "anomalous")
    worst = heapq.nlargest(_WORST_SHOWN, anomalous, key=lambda row: row.score or 0.0)
    if worst:
        table = Table(box=None, show_header=False, pad_edge=False, title="worst", title_justify="left")
        for row in worst:
            table.add_row(Text(f"{row.score:.2f}", "bold red"), Text(row.image), describe_findings(row))
        console.print(table)


def print_failures(console: Console, failures: Sequence[Failure]) -> None:
    """The first failures with their reasons, and how many more there are."""
    if not failures:
        return
    table = Table(box=None, show_header=False, pad_edge=False, title="failed", title_justify="left")
    for failure in failures[:_FAILURES_SHOWN]:
        table.add_row(Text(failure.item.name, style="yellow"), Text(failure.reason))
    console.print(table)
    if len(failures) > _FAILURES_SHOWN:
        console.print(f"and {len(failures) - _FAILURES_SHOWN:,} more failed, see results.csv")


def print_profile(console: Console, run: RunSummary) -> None:
    """Seconds by step; the scoring thread's steps as shares of the wall-clock time."""
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "seconds", "of the run", "ms per image"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step, seconds in sorted(run.step_seconds.items(), key=lambda item: -item[1]):
        each = f"{1000 * seconds / run.scored:.1f}" if run.scored else ""
        table.add_row(step, f"{seconds:.2f}", f"{seconds / run.seconds:.0%}", each)
    console.print(table)
    console.print("score and wait for images share one thread; the other steps run beside it, in several threads each")
