"""Where results go: files for each image, small pictures for the report, tables over all rows."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.errors import MissingExtraError
from ad_dinov3.files import replacing
from ad_dinov3.infer.image_files import write_jpeg, write_map_png16, write_map_tiff, write_mask
from ad_dinov3.predict.drive import Failure, Scored
from ad_dinov3.predict.journal import Journal
from ad_dinov3.predict.ledger import Outputs, Row

_THUMBNAIL_PX = 320
_THUMBNAIL_QUALITY = 78
_MAP_SIDE = 96  # patches; a larger patch map is shrunk for the report
_PARQUET_ROWS = 1000

CSV_COLUMNS = (
    *("image", "decision", "score", "threshold", "class_name", "width", "height", "anomalous_area_px", "region_count"),
    *("peak", "box", "seconds", "overlay", "map", "mask", "error", "path", "regions"),
)


class FileSink:
    """Writes each image's overlay, anomaly map and mask below a folder."""

    def __init__(self, folder: Path, outputs: Outputs) -> None:
        self._folder = folder
        self._outputs = outputs

    def write(self, scored: Scored) -> None:
        """Write the files of one image."""
        name, prediction = scored.item.name, scored.prediction
        if overlay := self._outputs.overlay(name):
            write_jpeg(self._folder / overlay, prediction.overlay(scored.image))
        if mask := self._outputs.mask(name):
            write_mask(self._folder / mask, prediction.mask())
        if anomaly_map := self._outputs.map(name):
            write_map = write_map_tiff if self._outputs.maps == "tiff" else write_map_png16
            write_map(self._folder / anomaly_map, prediction.anomaly_map)

    def fail(self, failure: Failure) -> None:
        """Remove what an earlier run wrote for an image that cannot be done any more."""
        name = failure.item.name
        for output in (self._outputs.overlay(name), self._outputs.mask(name), self._outputs.map(name)):
            if output:
                (self._folder / output).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is left to write."""


@dataclass(frozen=True)
class Thumbnail:
    """What the report shows of an image.

    Attributes:
        image: the image's name in this run.
        photo: JPEG in base64, longer side at most 320 px.
        patch_map: 8-bit grey PNG in base64, the anomaly map on the patch grid, 255 = 1.
    """

    image: str
    photo: str
    patch_map: str


class ThumbnailSink:
    """Keeps a thumbnail of each image in ``.thumbnails.jsonl``, so that a report over several runs has all of them."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / ".thumbnails.jsonl", Thumbnail)

    def write(self, scored: Scored) -> None:
        """Keep one image's thumbnail."""
        self._journal.append(make_thumbnail(scored.item.name, scored.image, scored.patch_map))

    def fail(self, failure: Failure) -> None:
        """A failed image has no picture."""

    def get(self, image: str) -> Thumbnail | None:
        """The thumbnail of an image, if there is one."""
        return self._journal.get(image)

    def close(self) -> None:
        """Drop replaced thumbnails."""
        self._journal.close()


def make_thumbnail(name: str, image: NDArray[np.uint8], patch_map: NDArray[np.float32]) -> Thumbnail:
    """Shrink an image (H, W, 3) to at most 320 px and a map (h, w) in [0, 1] to 8 bit, at most 96 patches a side."""
    photo = Image.fromarray(image)
    photo.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    levels = Image.fromarray(np.rint(patch_map * 255).astype(np.uint8))
    levels.thumbnail((_MAP_SIDE, _MAP_SIDE), Image.Resampling.BOX)
    return Thumbnail(name, _base64(photo, "JPEG"), _base64(levels, "PNG"))


def _base64(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=_THUMBNAIL_QUALITY)  # PNG has no quality and ignores it
    return base64.b64encode(buffer.getvalue()).decode()


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
            values["regions"] = json.dumps(values["regions"], separators=(",", ":"))
            table.writerow(values[column] for column in CSV_COLUMNS)


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
    kinds = {"score": real, "threshold": real, "seconds": real, "regions": pa.list_(region)}
    kinds |= dict.fromkeys(("width", "height", "anomalous_area_px"), whole)
    schema = pa.schema([(column, kinds.get(column, text)) for column in Row.__dataclass_fields__])
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        while part := [_plain(row) for row in islice(rows, _PARQUET_ROWS)]:
            writer.write_table(pa.Table.from_pylist(part, schema))
