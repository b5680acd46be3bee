"""What is made of all rows of an output folder when its run ends: one row of `TABLES` for each format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from ad_dinov3.errors import MissingExtraError
from ad_dinov3.files import replacing
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.types import Failure, Result
from ad_dinov3.predict.videos import write_videos

_PARQUET_ROWS = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

CSV_COLUMNS = (
    *("image", "decision", "score", "threshold", "p_value", "class_name", "width", "height", "anomalous_area_px"),
    *("region_count", "peak", "box", "seconds", "overlay", "map", "mask", "error", "path", "regions"),
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


def _plain(row: Row) -> dict[str, object]:
    """A row and its regions as dicts; ``asdict`` would copy every corner of every outline."""
    return {**vars(row), "regions": [vars(region) for region in row.regions]}


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV for spreadsheets: the strongest region in columns, all regions as JSON in the last one."""
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(CSV_COLUMNS)
        for row in rows:
            values = {**_plain(row), "region_count": len(row.regions), "peak": None, "box": None}
            if row.regions:
                values |= {"peak": round(row.regions[0].peak, 6), "box": " ".join(map(str, row.regions[0].box))}
            if row.score is not None:
                values["score"] = round(row.score, 6)
            values["regions"] = json.dumps(values["regions"], separators=(",", ":"))
            table.writerow(_escaped(values[column]) for column in CSV_COLUMNS)


def _escaped(value: object) -> object:
    """The value, text that a spreadsheet would take for a formula after an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_coco(path: Path, rows: Iterable[Row]) -> None:
    """Write regions as COCO annotations of one category, "anomaly": box, outline, area and peak as score.

    Outlines leave holes out; ``area`` counts the region's pixels without them. Failed images are left out.
    """
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for row in rows:
        if row.decision == "failed":
            continue
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": row.image, "width": row.width, "height": row.height})
        for region in row.regions:
            x0, y0, x1, y1 = region.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": region.area_px,
                    "segmentation": [[value for corner in region.polygon for value in corner]],
                    "iscrowd": 0,
                    "score": round(region.peak, 6),
                }
            )
    categories = [{"id": 1, "name": "anomaly", "supercategory": "anomaly"}]
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)


def write_parquet(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as a Parquet table, regions as a list of structs.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    whole, real, text = pa.int64(), pa.float64(), pa.string()
    region = pa.struct(
        [
            ("box", pa.list_(whole)),
            ("area_px", whole),
            ("peak", real),
            ("mean", real),
            ("centroid", pa.list_(real)),
            ("elongation", real),
            ("polygon", pa.list_(pa.list_(whole))),
        ]
    )
    kinds = {"regions": pa.list_(region), "grid": pa.list_(whole)}
    kinds |= dict.fromkeys(("score", "threshold", "p_value", "seconds"), real)
    kinds |= dict.fromkeys(("width", "height", "anomalous_area_px"), whole)
    schema = pa.schema([(column, kinds.get(column, text)) for column in Row.__dataclass_fields__])
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        while part := [_plain(row) for row in islice(rows, _PARQUET_ROWS)]:
            writer.write_table(pa.Table.from_pylist(part, schema))


TABLES: dict[str, tuple[str, Callable[[Path, Iterator[Row]], None]]] = {
    "csv": ("results.csv", write_csv),
    "coco": ("coco.json", write_coco),
    "parquet": ("results.parquet", write_parquet),
    "video": ("videos", write_videos),
}
"""What a table is called -> the name of its file, or of its files' folder, and what writes it."""
