"""Lists of images in a file, here or in an object store, row by row: CSV, JSONL, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ad_dinov3.data.remote import is_uri, open_remote, redacted, uri_path
from ad_dinov3.errors import DataError, MissingExtraError

Row = Mapping[str, object]

_BATCH = 1000


def is_image_list(source: str) -> bool:
    """Whether a source's suffix is that of a list of images."""
    return _suffix(source) in _READERS


def read_image_list(source: str) -> Iterator[tuple[str, str | None]]:
    """(place, class name or None) of each row: its ``image``, a path or URI, and its ``class`` if there is one.

    Relative places are relative to the list. Other columns are not looked at.

    Raises:
        DataError: the list cannot be read, or a row has no image.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    try:
        with open_remote(source) if is_uri(source) else Path(source).open("rb") as file:
            for number, row in enumerate(_READERS[_suffix(source)](file), start=1):
                image = row.get("image")
                if not isinstance(image, str) or not image:
                    found = "" if "image" in row else f"; the row has {', '.join(map(str, row)) or 'no columns'}"
                    where = f"{redacted(source)}, row {number}"
                    raise DataError(f"{where}: expected a path or URI in the column image{found}")
                name = row.get("class")
                yield _placed(image, source), str(name) if name else None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{redacted(source)}: cannot be read as a list of images ({redacted(str(error))})") from None


def _placed(image: str, source: str) -> str:
    if is_uri(image) or Path(image).is_absolute():
        return image
    return f"{source.rpartition('/')[0]}/{image}" if is_uri(source) else str(Path(source).parent / image)


def _suffix(source: str) -> str:
    return (uri_path(source) if is_uri(source) else Path(source)).suffix.lower()


def _csv(file: BinaryIO) -> Iterator[Row]:
    yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))


def _jsonl(file: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from None
            yield row if isinstance(row, dict) else {}


def _parquet(file: BinaryIO) -> Iterator[Row]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    table = pq.ParquetFile(file)
    names = table.schema_arrow.names
    if "image" not in names:
        yield dict.fromkeys(names)
    columns = [name for name in ("image", "class") if name in names]
    for batch in table.iter_batches(_BATCH, columns=columns):
        yield from batch.to_pylist()


_READERS: dict[str, Callable[[BinaryIO], Iterator[Row]]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
