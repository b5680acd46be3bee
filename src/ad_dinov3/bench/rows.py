"""Rows: one number each, with everything that must travel with it; JSONL, and Parquet where pyarrow is installed."""

from __future__ import annotations

import importlib.util
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ad_dinov3.errors import DataError
from ad_dinov3.files import replacing

Scope = Literal["class", "mean", "pooled"]
_PACKAGES = ("ad-dinov3", "torch", "transformers", "numpy", "scipy", "pillow")


@dataclass(frozen=True)
class MetricRow:
    """One metric of one method on one class, or on a whole data set.

    Attributes:
        method: the method's name, such as ``ad_dinov3``.
        model: the name or folder that was asked for.
        weights_hash: digest over settings, encoder and head.
        trained_on: names of the training data.
        training_seed: seed of the training; None for untrained methods.
        input_size: (H, W) in px of the model's input.
        interpolation: filter of the resize to it.
        data: the data set's name.
        data_hash: digest over all images, masks and classes that were measured.
        scope: one ``class``, the unweighted ``mean`` of the classes, or all images ``pooled``.
        class_name: for the scope class, else empty.
        metric: a key of `ad_dinov3.bench.metric_table.METRICS`.
        value: in [0, 1]; None where undefined (shown as n/a).
        low: lower end of the confidence interval.
        high: upper end.
        level: the interval's level.
        threshold: where F1 is greatest, for the two F1 metrics of classes and pooled sets.
        images: measured images.
        anomalous_images: of which anomalous.
        pixels: measured pixels.
        regions: ground-truth regions.
        classes: how many classes the value rests on.
        estimator: ``exact`` or ``65536 bins``.
        protocol: the protocol's name.
        protocol_hash: digest over its choices.
        seconds: scoring of these images, decoding included.
        peak_memory_mb: of the process, until the row was made.
        device: where the model ran.
        versions: package versions, ``name version`` joined by commas.
        commit: of the source tree; None for an installed package.
        seen: the model or its encoder was trained on some of these images, so the figure is not zero-shot.
        format_version: of this row's fields; 1 had no ``seen``.
    """

    method: str
    model: str
    weights_hash: str
    trained_on: tuple[str, ...]
    training_seed: int | None
    input_size: tuple[int, int]
    interpolation: str
    data: str
    data_hash: str
    scope: Scope
    class_name: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    threshold: float | None
    images: int
    anomalous_images: int
    pixels: int
    regions: int
    classes: int
    estimator: str
    protocol: str
    protocol_hash: str
    seconds: float
    peak_memory_mb: float
    device: str
    versions: str
    commit: str | None
    seen: bool = False
    format_version: Literal[1, 2] = 2

    @property
    def run(self) -> tuple[str, ...]:
        """What makes two rows results of one and the same evaluation: method, weights, data and protocol."""
        return self.method, self.weights_hash, self.data, self.data_hash, self.protocol_hash


_ROW = TypeAdapter(MetricRow)


def read_metric_rows(path: Path) -> list[MetricRow]:
    """Rows of a JSONL file, or of ``rows.jsonl`` in a folder.

    Raises:
        DataError: the file is missing, or a line is not a row; the line is named.
    """
    file = path / "rows.jsonl" if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); `ad-dinov3 evaluate --out` writes it") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_ROW.validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{file}, line {number}: not a result row ({where}: {first['msg']})") from None
    return rows


def write_metric_rows(folder: Path, rows: Iterable[MetricRow]) -> Path:
    """Put rows into ``rows.jsonl`` of a folder, in place of earlier ones of the same evaluations.

    With pyarrow installed, ``rows.parquet`` beside it holds the same rows.

    Returns:
        the JSONL file.

    Raises:
        DataError: the file that is there is not one of rows.
    """
    fresh = list(rows)
    file = folder / "rows.jsonl"
    runs = {row.run for row in fresh}
    kept = [row for row in read_metric_rows(file) if row.run not in runs] if file.is_file() else []
    every = kept + fresh
    with replacing(file) as unfinished:
        text = "".join(_ROW.dump_json(row).decode() + "\n" for row in every)
        unfinished.write_text(text, encoding="utf-8")
    if importlib.util.find_spec("pyarrow"):
        _write_parquet(folder / "rows.parquet", every)
    return file


def _write_parquet(path: Path, rows: Sequence[MetricRow]) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([json.loads(json.dumps(asdict(row))) for row in rows])
    with replacing(path) as unfinished:
        pyarrow.parquet.write_table(table, unfinished)


def installed_versions() -> str:
    """Versions of Python and of the packages that can change a number."""
    found = [f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def source_commit() -> str | None:
    """The commit of the source tree that runs, with ``+`` if files differ from it; None for an installed package."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", str(folder.parent))
    except (OSError, subprocess.CalledProcessError):
        return None
    return head[:12] + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def peak_memory_mb() -> float:
    """Greatest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
