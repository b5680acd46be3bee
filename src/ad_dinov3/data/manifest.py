"""Lists of samples in a file: CSV, JSONL and Parquet manifests, the field's ``meta.json``, Real-IAD's JSON files.

Paths in a file are relative to its folder unless absolute.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ad_dinov3.data.labels import NORMAL_WORDS
from ad_dinov3.data.listing import Listing, collected, folder_contents, listed_sample
from ad_dinov3.data.pairing import natural_key
from ad_dinov3.errors import DataError, MissingExtraError
from ad_dinov3.files import parse_json, write_text
from ad_dinov3.types import Sample

_KEYS = ("image", "mask", "class", "label")
_NORMAL_LABELS = NORMAL_WORDS | {"0", "false"}
_UNNAMED_DEFECTS = frozenset({"", "1", "true"})


def read_manifest(path: Path) -> Listing:
    """Listing of a ``.csv``, ``.jsonl`` or ``.parquet`` manifest, or of a ``meta.json``.

    Rows of a manifest have the keys image, mask, class and label. Only image is required: without a label an image is
    anomalous if it has a mask; 0, good, ok and normal are normal; any other label names the defect.

    Raises:
        DataError: the file cannot be read, or a row has no image or an unknown key.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_meta(path)
    if suffix == ".csv":
        rows: Sequence[Mapping[str, object]] = _csv_rows(path)
    elif suffix == ".jsonl":
        rows = [_json_object(path, line) for line in _text(path).splitlines() if line.strip()]
    elif suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        raise DataError(f"{path}: expected a manifest named .csv, .jsonl, .parquet or .json")
    if not rows:
        raise DataError(f"{path}: the manifest has no rows; expected the keys {', '.join(_KEYS)}")
    return collected(_from_row(path, number, row) for number, row in enumerate(rows, start=1))


def _csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(_text(path).splitlines()))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None


def _parquet_rows(path: Path) -> list[dict[str, object]]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    try:
        rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    return rows


def read_meta(path: Path, split: str = "test") -> Listing:
    """Listing of one split of a ``meta.json``: {split: {class: [{img_path, mask_path, specie_name, anomaly}]}}.

    Raises:
        DataError: the file is not of this form.
    """
    classes = _json_object(path, _text(path)).get(split)
    if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
        raise DataError(f'{path}: expected {{"{split}": {{class: [{{img_path, mask_path, anomaly}}]}}}}')
    return collected(_from_meta(path, str(name), entry) for name, entries in classes.items() for entry in entries)


def write_meta(samples: Iterable[Sample], path: Path, split: str = "test") -> None:
    """Write samples as one split of a ``meta.json``, with paths relative to its folder; the other split is empty."""
    classes: dict[str, list[dict[str, str | int]]] = {}
    for sample in samples:
        entry: dict[str, str | int] = {
            "img_path": _relative(sample.image_path, path.parent),
            "mask_path": "" if sample.mask_path is None else _relative(sample.mask_path, path.parent),
            "cls_name": sample.class_name,
            "specie_name": sample.defect,
            "anomaly": int(sample.is_anomalous),
        }
        classes.setdefault(sample.class_name, []).append(entry)
    write_text(path, json.dumps({"train": {}, "test": {}, split: classes}, indent=1))


def list_real_iad(root: Path) -> Listing:
    """Listing of Real-IAD's test split: ``realiad_jsons/realiad_jsons/<class>.json`` beside ``realiad_<size>/``.

    Of several image sizes (raw, 1024, 512, 256) the largest counts; all five views are read.

    Raises:
        DataError: the JSON files or the images are not there, or a file has another form.
    """
    folders = [root / "realiad_jsons" / "realiad_jsons", root / "realiad_jsons"]
    tables = next((found for folder in folders if (found := sorted(folder.glob("*.json")))), [])
    sizes = [root / f"realiad_{size}" for size in ("raw", "1024", "512", "256")]
    images = next((folder for folder in sizes if folder.is_dir()), None)
    if not tables or images is None:
        wanted = "realiad_jsons/realiad_jsons/<class>.json and realiad_1024/ (or _raw, _512, _256)"
        raise DataError(f"expected {wanted} in {root}, {folder_contents(root)}")
    ordered = sorted(tables, key=lambda table: natural_key(table.stem))
    return collected(item for table in ordered for item in _from_real_iad(table, images))


def _from_row(path: Path, number: int, row: Mapping[str, object]) -> Sample | str:
    unknown = sorted(str(key) for key in row if key not in _KEYS)
    if unknown or not row.get("image"):
        wrong = f"got the unknown {', '.join(unknown)}" if unknown else "got no image"
        raise DataError(f"{path}, row {number}: expected the keys {', '.join(_KEYS)}, {wrong}")
    mask = path.parent / str(row["mask"]) if row.get("mask") else None
    label = "" if row.get("label") is None else str(row["label"]).strip()
    is_normal = label.lower() in _NORMAL_LABELS or (label == "" and mask is None)
    defect = None if is_normal else ("anomaly" if label.lower() in _UNNAMED_DEFECTS else label)
    return listed_sample(path.parent / str(row["image"]), mask, str(row.get("class") or "object"), defect)


def _from_meta(path: Path, class_name: str, entry: object) -> Sample | str:
    if not isinstance(entry, dict) or "img_path" not in entry or "anomaly" not in entry:
        raise DataError(f"{path}: expected img_path and anomaly in each entry of {class_name}, got {entry}")
    mask = path.parent / str(entry["mask_path"]) if entry.get("mask_path") else None
    defect = str(entry.get("specie_name") or "anomaly") if entry["anomaly"] else None
    return listed_sample(path.parent / str(entry["img_path"]), mask, class_name, defect)


def _from_real_iad(table: Path, images: Path) -> Iterator[Sample | str]:
    content = _json_object(table, _text(table))
    meta, entries = content.get("meta"), content.get("test")
    if not isinstance(meta, dict) or not isinstance(entries, list):
        raise DataError(f'{table}: expected {{"meta": {{"prefix", "normal_class"}}, "train": [...], "test": [...]}}')
    folder = images / str(meta.get("prefix") or table.stem)
    for entry in entries:
        if not isinstance(entry, dict) or "image_path" not in entry or "anomaly_class" not in entry:
            raise DataError(f"{table}: expected image_path and anomaly_class in each test entry, got {entry}")
        mask = folder / str(entry["mask_path"]) if entry.get("mask_path") else None
        defect = None if entry["anomaly_class"] == meta.get("normal_class", "OK") else str(entry["anomaly_class"])
        yield listed_sample(folder / str(entry["image_path"]), mask, table.stem, defect)


def _json_object(path: Path, text: str) -> dict[str, object]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
