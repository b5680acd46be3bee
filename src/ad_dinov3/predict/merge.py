"""The results of shards -> one folder's rows, tables and report, or a refusal that says what is missing."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ad_dinov3.data.remote import fetch_file, names_in
from ad_dinov3.errors import DataError
from ad_dinov3.files import held, write_text
from ad_dinov3.predict.journal import Journal
from ad_dinov3.predict.report import ReportText, Thumbnail, write_report
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.predict.shards import Shard
from ad_dinov3.predict.store import JOURNALS, UriStore, empty
from ad_dinov3.predict.tables import TABLES

_MUST_AGREE = ("model_fingerprint", "options", "outputs")
_SHOWN = 8


@dataclass(frozen=True)
class FinishedShard:
    """A shard whose run came to its end.

    Attributes:
        folder: its results.
        shard: which part it is.
        facts: its run.json.
    """

    folder: Path
    shard: Shard
    facts: dict[str, object]


@dataclass(frozen=True)
class MergeSummary:
    """What a merge came to: images by decision, and the shards that were left out."""

    anomalous: int
    normal: int
    failed: int
    missing: tuple[Shard, ...]


def merge_shards(
    sources: Sequence[Path], out: Path, tables: Sequence[str] = ("csv",), allow_missing: bool = False
) -> MergeSummary:
    """Join all shards' results.jsonl, and write tables, run.json and report.html; images' files stay where they are.

    Args:
        sources: folders of shards, or of one shard.
        out: where the joint results go; rows name the images' files relative to it.
        tables: what to gather the rows in: keys of `tables.TABLES`.
        allow_missing: go on without shards that are missing or did not come to their end.

    Raises:
        DataError: there is no shard; one is missing, unfinished or there twice; two are of different runs; a row is not
            its shard's.
    """
    found = _find_shards(sources)
    missing = _missing(found)
    if missing and not allow_missing:
        named = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(
            f"{len(missing)} of {found[0].shard.count} shards are missing or unfinished: {named}; run them again with "
            "the same command, or merge what is there with --allow-missing"
        )
    counts: Counter[str] = Counter()
    gathering = out / ".merging.jsonl"
    gathering.unlink(missing_ok=True)
    rows = Journal(gathering, Row)
    for part in found:
        for row in _rows_of(part, out):
            counts[row.decision] += 1
            rows.append(row)
    rows.close()
    os.replace(gathering, out / "results.jsonl")
    for table in tables:
        name, write = TABLES[table]
        write(out / name, read_rows(out))
    _write_report(found, out)
    facts = found[0].facts | dict(counts) | {"shard": str(Shard()), "missing_shards": [str(shard) for shard in missing]}
    write_text(out / "run.json", json.dumps(facts | {"images": counts.total()}, indent=2))
    return MergeSummary(counts["anomalous"], counts["normal"], counts["failed"], missing)


def merge_stored_shards(store: UriStore, tables: Sequence[str] = ("csv",), allow_missing: bool = False) -> MergeSummary:
    """As `merge_shards`, of all shards in an object store, into the same place; it works in ``store.work_folder``.

    Raises:
        DataError: as `merge_shards`, or the store cannot be read or written.
        ConfigError: another run is at work there.
    """
    folder = store.work_folder
    with held(folder):
        empty(folder)
        for name in sorted(names_in(store.uri)):
            if PurePosixPath(name).match("shard-*-of-*"):
                there = names_in(f"{store.uri}/{name}")
                for file in ("run.json", *JOURNALS):
                    if file in there:
                        fetch_file(f"{store.uri}/{name}/{file}", folder / name / file)
        summary = merge_shards([folder], folder, tables, allow_missing)
        store.put_all(folder)
    return summary


def _find_shards(sources: Sequence[Path]) -> list[FinishedShard]:
    folders = [folder for source in sources for folder in sorted(source.glob("shard-*-of-*")) or [source]]
    found: dict[Shard, FinishedShard] = {}
    for folder in folders:
        part = _read_shard(folder)
        if part is None:
            continue
        twin, first = found.get(part.shard), next(iter(found.values()), part)
        if twin is not None:
            raise DataError(f"shard {part.shard} is there twice: {twin.folder} and {folder}; merge one of them")
        for fact in _MUST_AGREE:
            if part.facts.get(fact) != first.facts.get(fact) or part.shard.count != first.shard.count:
                raise DataError(
                    f"{first.folder} and {folder} are not of one run: their {fact} or numbers of shards differ; "
                    "run all shards with the same settings"
                )
        found[part.shard] = part
    if not found:
        raise DataError(
            f"no finished shard in {', '.join(map(str, sources))}; expected folders shard-00000-of-00004 and so on, as "
            "ad-dinov3 predict --shard 0/4 writes them"
        )
    return sorted(found.values(), key=lambda part: part.shard.index)


def _read_shard(folder: Path) -> FinishedShard | None:
    """The shard in a folder; None if its run did not come to its end."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        index, _, count = str(facts["shard"]).partition("/")
        return None if facts["interrupted"] else FinishedShard(folder, Shard(int(index), int(count)), facts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: was not written by this version of ad-dinov3 ({error}); run the shard again"
        ) from None


def _missing(found: Sequence[FinishedShard]) -> tuple[Shard, ...]:
    count, there = found[0].shard.count, {part.shard.index for part in found}
    return tuple(Shard(index, count) for index in range(count) if index not in there)


def _rows_of(part: FinishedShard, out: Path) -> Iterator[Row]:
    prefix = Path(os.path.relpath(part.folder.absolute(), out.absolute())).as_posix()

    def moved(name: str | None) -> str | None:
        return None if name is None else f"{prefix}/{name}"

    found = 0
    for row in read_rows(part.folder):
        found += 1
        if not part.shard.holds(row.image):
            raise DataError(f"{part.folder}: {row.image} does not belong to shard {part.shard}; run the shard again")
        yield replace(row, overlay=moved(row.overlay), map=moved(row.map), mask=moved(row.mask))
    if found < int(str(part.facts["images"])):
        raise DataError(f"{part.folder}: expected {part.facts['images']} rows, found {found}; run the shard again")


def _write_report(found: Sequence[FinishedShard], out: Path) -> None:
    pictures = [Journal(part.folder / ".thumbnails.jsonl", Thumbnail) for part in found]
    shards = [part.shard for part in found]

    def thumbnail(image: str) -> Thumbnail | None:
        holders = (file for shard, file in zip(shards, pictures, strict=True) if shard.holds(image))
        return next(holders).get(image)

    first = found[0].facts
    rule = json.loads(json.dumps(first["options"]))["rule"]
    facts = [("Method", str(first["method"]))] if first["method"] else []
    facts += [("Model", str(first["model"])), ("Shards", f"{len(found)} of {shards[0].count}")]
    write_report(
        out / "report.html",
        lambda: read_rows(out),
        thumbnail,
        ReportText(out.absolute().name, rule["threshold"], facts),
    )
