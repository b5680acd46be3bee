"""Images that people drop onto the workbench: kept beside the results, and scored as the others were."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from ad_dinov3.data.decode import IMAGE_SUFFIXES, image_header
from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import DataError
from ad_dinov3.files import replacing
from ad_dinov3.infer.areas import Areas
from ad_dinov3.predict.folder import DROPPED, FolderRun, score_into_folder
from ad_dinov3.predict.tables import TABLES
from ad_dinov3.serve.normals import suffix_of
from ad_dinov3.serve.workbench.folder import Results
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.work import Hand

_UNSAFE = re.compile(r"[^\w .()+-]")
_LONGEST_STEM = 100


def keep(home: Path, files: Sequence[tuple[str, bytes]]) -> list[str]:
    """Keep images in the folder ``dropped`` of the results, each whole or not at all; what is there is not replaced.

    Args:
        home: the folder of the results.
        files: names, as a browser tells them, and contents.

    Returns:
        What they are called among the results.

    Raises:
        ImageError: one is no image; then none is kept.
        DataError: the disk is full, or the folder cannot be written.
    """
    for name, content in files:
        image_header(Path(name), content)
    return [f"{DROPPED}/{_kept(home / DROPPED, _safe(name, content), content)}" for name, content in files]


def score_dropped(results: Results, model: BenchModel, areas: Areas, work: Hand) -> bool:
    """Add those dropped images to the results that have no row yet; whether there were any.

    Args:
        results: without good images.
        model: what scores.
        areas: where images are looked at.
        work: takes the progress, and says when to stop.
    """
    items = _not_scored(results.folder, results)
    if not items:
        return False
    plain = model.plain()
    run = _run_like(results, model.name, model.fingerprint_of(plain), areas)
    count = work.counter("Scoring the new images", len(items))
    score_into_folder(items, model.scorer_of(plain), run, count, work.is_stopped)
    return True


def has_dropped(home: Path, results: Results) -> bool:
    """Whether images that were dropped into a folder have no row among some results."""
    return bool(_not_scored(home, results))


def _not_scored(home: Path, results: Results) -> list[ImageFile]:
    """Dropped images without a row; where folders name classes, they show what most others do."""
    if not (home / DROPPED).is_dir():
        return []
    classes = Counter(row.class_name for row in results.rows.values() if row.class_name)
    shown = classes.most_common(1)[0][0] if results.options.class_from_folder and classes else None
    found = (
        replace(item, name=f"{DROPPED}/{item.name}", class_name=shown) for item in find_images([str(home / DROPPED)])
    )
    return [item for item in found if item.name not in results.rows]


def _run_like(results: Results, model_name: str, fingerprint: str, areas: Areas) -> FolderRun:
    """A run that adds to results in the way in which they were made, but for the areas."""
    options, said = results.options, results.run
    return FolderRun(
        folder=results.folder,
        model_name=model_name,
        model_fingerprint=fingerprint,
        options=replace(options, rule=replace(options.rule, areas=areas)),
        outputs=said.outputs,
        tables=tuple(table for table, (name, _) in TABLES.items() if (results.folder / name).is_file()),
        method=said.method,
        promises=said.promises,
        made_by=said.made_by,
    )


def _safe(name: str, content: bytes) -> str:
    """A file's name without folders and without what a file system or a page could take amiss."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = last.rpartition(".")
    if f".{suffix.lower()}" not in IMAGE_SUFFIXES or not dot:
        stem, suffix = last, suffix_of(content).removeprefix(".")
    kept = _UNSAFE.sub("_", stem).strip(". ")[:_LONGEST_STEM]
    return f"{kept or 'image'}.{suffix.lower()}"


def _kept(folder: Path, name: str, content: bytes) -> str:
    stem, _, suffix = name.rpartition(".")
    for number in count(1):
        path = folder / (name if number == 1 else f"{stem}-{number}.{suffix}")
        if path.exists() and path.read_bytes() == content:
            return path.name
        if not path.exists():
            break
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path.name
