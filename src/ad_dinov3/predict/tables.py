"""What is made of all rows of an output folder when its run ends: one row of `TABLES` for each format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from ad_dinov3.files import replacing
from ad_dinov3.infer.annotations import coco_tree
from ad_dinov3.infer.arrow import arrow_schema, arrow_table
from ad_dinov3.infer.record import plain
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.types import Failure, Result
from ad_dinov3.predict.videos import write_videos

_PARQUET_ROWS = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

CSV_COLUMNS = (
    *("image", "decision", "score", "threshold", "p_value", "class_name", "width", "height", "anomalous_area_px"),
    *(
        "region_count",
        "peak",
        "box",
        "seconds",
        "overlay",
        "map",
        "mask",
        "error",
        "path",
        "taken_at",
        "video_s",
        "reduction",
        "regions",
    ),
)


class TableSink:
    """Writes a table over all rows, those of earlier runs included.

    Args:
        folder: the output folder.
        table: a key of `TABLES`.
        rows: gives the rows, once the sink of rows is closed.
    """

    def __init__(self, folder: Path, table: str, rows: Callable[[], Iterator[Row]]) -> None:
        name, self._write = TABLES[table]
        self._path = folder / name
        self._rows = rows

    def write(self, result: Result) -> None:
        """A table is written at the end."""

    def fail(self, failure: Failure) -> None:
        """A table is written at the end."""

    def close(self) -> None:
        """Write the table."""
        self._write(self._path, self._rows())


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV for spreadsheets: the strongest region in columns, all regions as JSON in the last one."""
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(CSV_COLUMNS)
        for row in rows:
            values = {**plain(row), "region_count": len(row.regions), "peak": None, "box": None}
            if row.regions:
                values |= {"peak": round(row.regions[0].peak, 6), "box": " ".join(map(str, row.regions[0].box))}
            if row.score is not None:
                values["score"] = round(row.score, 6)
            values["regions"] = json.dumps(values["regions"], separators=(",", ":"))
            table.writerow(escaped(values[column]) for column in CSV_COLUMNS)


def escaped(value: object) -> object:
    """The value, text that a spreadsheet would take for a formula after an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_coco(path: Path, rows: Iterable[Row]) -> None:
    """Write regions as COCO annotations, as `annotations.coco_tree` says."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        json.dump(coco_tree(rows), file)


def write_parquet(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as a Parquet table, regions as a list of structs.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    schema = arrow_schema(Row)
    import pyarrow.parquet as pq

    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        while part := list(islice(rows, _PARQUET_ROWS)):
            writer.write_table(arrow_table(Row, part))


TABLES: dict[str, tuple[str, Callable[[Path, Iterator[Row]], None]]] = {
    "csv": ("results.csv", write_csv),
    "coco": ("coco.json", write_coco),
    "parquet": ("results.parquet", write_parquet),
    "video": ("videos", write_videos),
}
"""What a table is called -> the name of its file, or of its files' folder, and what writes it."""
