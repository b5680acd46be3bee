"""results.jsonl: one row for each image, and the memory of what earlier runs have done."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ad_dinov3.data.labels import Confusion, confusion
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ImageError
from ad_dinov3.infer.decide import describe_region
from ad_dinov3.infer.record import ImageRecord, Reduction
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.journal import Journal
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.store import Parts, Store
from ad_dinov3.predict.types import Failure, Result, StoredScore

_SOURCES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Row(ImageRecord):
    """One image's line in results.jsonl: what is said of it, and where its files are."""

    path: Annotated[str, Field(description="the image's file or URI")]
    grid: Annotated[tuple[int, int], Field(description="h, w of the anomaly map as the model gave it")] = (0, 0)
    seconds: Annotated[float, Field(description="from the file to the decision")] = 0.0
    overlay: Annotated[str | None, Field(description="file below the output folder")] = None
    map: Annotated[str | None, Field(description="file below the output folder")] = None
    mask: Annotated[str | None, Field(description="file below the output folder")] = None
    error: Annotated[str | None, Field(description="why there is no result")] = None
    taken_at: Annotated[str | None, Field(description="when a camera took the image, UTC, ISO 8601")] = None
    video_s: Annotated[float | None, Field(description="seconds from the start of the video to this frame")] = None
    reduction: Reduction = 1
    model_score: Annotated[
        float | None, Field(description="the model's score of the whole image, where less than that is looked at")
    ] = None
    key: Annotated[
        str,
        Field(description="digest of the file's version and of what decides map and score"),
    ] = ""
    decision_key: Annotated[str, Field(description="digest of what decides what was made of them")] = ""


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of a finished run, in natural order of the names, one at a time."""
    row = TypeAdapter(Row)
    with (folder / "results.jsonl").open("rb") as lines:
        yield from map(row.validate_json, lines)


def by_folder_names(rows: Iterable[Row]) -> Confusion | None:
    """The rows' decisions held against the names of the images' folders; None if these say nothing."""
    return confusion((Path(row.path).parent, row.decision == "anomalous") for row in rows if row.decision != "failed")


def describe_findings(row: Row) -> str:
    """The strongest region of a row in words, and how many more there are; or that there is none."""
    if not row.regions:
        return "no region stands out"
    found = describe_region(row.regions[0], (row.height, row.width), row.threshold or 0.0)
    return found + (f", and {len(row.regions) - 1} more" if len(row.regions) > 1 else "")


def command_again(rows: Iterable[Row], out: str, chosen: Sequence[str]) -> str:
    """The command that goes through the same images once more, but for the threshold.

    Args:
        rows: of the images.
        out: where the results are.
        chosen: the options that say which model scores them, and how.
    """
    sources = list(dict.fromkeys(row.path.removesuffix(row.image).rstrip("/") or "." for row in rows))
    images = sources if len(sources) <= _SOURCES_SHOWN else ["IMAGES"]
    return shlex.join(["ad-dinov3", "predict", *images, "-o", out, *chosen])


def digest(*parts: object) -> str:
    """A short hex digest of values by their JSON form."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunKey:
    """What decides an image's row, the image aside.

    Attributes:
        scores: digest of what decides map and score: the model and how it looks, the class.
        decision: digest of what is made of them: the rule and the files.
    """

    scores: str
    decision: str

    def of(self, item: ImageFile) -> str:
        """Digest of a file's version and of what decides its scores; "" if the file cannot be asked."""
        try:
            version = item.version()
        except (OSError, ImageError):
            return ""
        named = () if item.class_name is None else (item.class_name,)
        return digest(item.name, *version, self.scores, *named)


def run_key(fingerprint: str, options: DriveOptions, outputs: Outputs) -> RunKey:
    """The key of a model's run; equal on every machine."""
    return RunKey(
        scores=digest(fingerprint, options.class_name, options.class_from_folder),
        decision=digest(asdict(options.rule), asdict(outputs)),
    )


def row_of(result: Result, key: RunKey, outputs: Outputs) -> Row:
    """The row of a result whose files are ``outputs``."""
    item = result.scored.item
    return Row(
        **vars(result.prediction.record(item.name)),
        path=item.where,
        model_score=None if result.prediction.looked_at is None else result.scored.raw.score,
        grid=result.scored.grid,
        seconds=round(result.seconds, 4),
        overlay=outputs.overlay(item.name),
        map=outputs.map(item.name),
        mask=outputs.mask(item.name),
        taken_at=item.taken_at,
        video_s=item.video_s,
        key=key.of(item),
        decision_key=key.decision,
        reduction=result.scored.reduction,
    )


def failed_row(failure: Failure) -> Row:
    """The row of an image that could not be done."""
    item = failure.item
    return Row(
        image=item.name,
        path=item.where,
        decision="failed",
        error=failure.reason,
        taken_at=item.taken_at,
        video_s=item.video_s,
    )


class ResultsSink:
    """The sink of rows.

    Args:
        folder: the output folder; rows go to its results.jsonl.
        key: what decides a result.
        outputs: which files each image gets.
        store: where those are.
        parts: where new rows are stored, too.

    Raises:
        DataError: there is a results.jsonl of another kind.
    """

    def __init__(self, folder: Path, key: RunKey, outputs: Outputs, store: Store, parts: Parts | None = None) -> None:
        self._store = store
        self._run_key = key
        self._outputs = outputs
        self._journal = Journal(folder / "results.jsonl", Row, parts)

    def finished(self, item: ImageFile) -> Row | None:
        """The row of this very file if an earlier run made it with these settings and its files are still there."""
        row = self._journal.get(item.name)
        if row is None or row.key != self._run_key.of(item) or row.decision_key != self._run_key.decision:
            return None
        return row if all(map(self._store.has, self._outputs.files(item.name))) else None

    def stored(self, item: ImageFile) -> StoredScore | None:
        """The answer of this model to this very file if an earlier run wrote it, whatever was decided then."""
        row = self._journal.get(item.name)
        if row is None or row.key != self._run_key.of(item) or row.score is None or row.map is None:
            return None
        if row.map != self._outputs.map(item.name) or not self._store.has(row.map):
            return None
        score = row.score if row.model_score is None else row.model_score
        return StoredScore(item, self._store, row.map, score, row.grid, row.p_value)

    def write(self, result: Result) -> None:
        """Append the row of a result."""
        self.append(row_of(result, self._run_key, self._outputs))

    def fail(self, failure: Failure) -> None:
        """Append the row of an image that could not be done; the next run tries it again."""
        self.append(failed_row(failure))

    def append(self, row: Row) -> None:
        """Append a row that was made elsewhere."""
        self._journal.append(row)

    def rows(self) -> Iterator[Row]:
        """The last row of each image in natural order of the names, one at a time; also after ``close``."""
        return iter(self._journal)

    def close(self) -> None:
        """Tidy results.jsonl: one row per image, in natural order of the names."""
        self._journal.close()
