"""Regions as annotations that labelling tools and trainers of segmentation models read; one label, "anomaly"."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ad_dinov3.errors import DataError
from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import Region
from ad_dinov3.infer.record import Decision, ImageRecord, Record

LABEL = "anomaly"
LABEL_STUDIO_CONFIG = f"""\
<View>
  <Image name="image" value="$image"/>
  <Choices name="decision" toName="image"><Choice value="anomalous"/><Choice value="normal"/></Choices>
  <PolygonLabels name="label" toName="image"><Label value="{LABEL}"/></PolygonLabels>
</View>
"""
"""The labelling interface that `label_studio_tasks` fits."""


def coco_tree(records: Iterable[ImageRecord]) -> Record:
    """COCO annotations of one category: box, outline, area and peak as score of each region.

    Outlines leave holes out; ``area`` counts the region's pixels without them. Failed images are left out.
    """
    images: list[Record] = []
    annotations: list[Record] = []
    for record in records:
        if record.decision == "failed":
            continue
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": record.image, "width": record.width, "height": record.height})
        for region in record.regions:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **_coco_annotation(region)})
    categories = [{"id": 1, "name": LABEL, "supercategory": LABEL}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_annotation(region: Region) -> Record:
    x0, y0, x1, y1 = region.box
    return {
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": region.area_px,
        "segmentation": [[value for corner in region.polygon for value in corner]],
        "iscrowd": 0,
        "score": round(region.peak, 6),
    }


def label_studio_tasks(records: Iterable[ImageRecord], image_prefix: str = "") -> list[Record]:
    """Label Studio's tasks with predictions to correct: the decision as a choice, each region as a polygon.

    Import them into a project whose labelling interface is `LABEL_STUDIO_CONFIG`. Failed images are left out.

    Args:
        records: of the images.
        image_prefix: what makes an image's name the URL that Label Studio can open, such as
            ``/data/local-files/?d=photos/``.
    """
    return [_task(record, image_prefix) for record in records if record.decision != "failed"]


def _task(record: ImageRecord, image_prefix: str) -> Record:
    result = [label_studio_choice(record.decision), *label_studio_outlines(record)]
    prediction = {"model_version": "ad-dinov3", "score": record.score, "result": result}
    return {"data": {"image": f"{image_prefix}{record.image}"}, "predictions": [prediction]}


def label_studio_choice(decision: Decision) -> Record:
    """A decision as Label Studio's choice."""
    return {"from_name": "decision", "to_name": "image", "type": "choices", "value": {"choices": [decision]}}


def label_studio_outlines(record: ImageRecord) -> list[Record]:
    """The regions as Label Studio's polygons, in percent of the image's width and height."""
    size = {"original_width": record.width, "original_height": record.height, "image_rotation": 0}
    return [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
            **size,
            "value": {
                "points": [[100 * x / record.width, 100 * y / record.height] for x, y in region.polygon],
                "closed": True,
                "polygonlabels": [LABEL],
            },
            "score": round(region.peak, 6),
        }
        for region in record.regions
    ]


def write_yolo(records: Iterable[ImageRecord], folder: Path) -> Path:
    """Write a YOLO segmentation data set's ``labels/`` and ``data.yaml``; the images go into ``images/`` beside them.

    A line is ``0 x y x y ...``, a region's corners as shares of the image's width and height; an image without regions
    has a file without any. Failed images are left out.

    Returns:
        The data.yaml.

    Raises:
        DataError: two images differ in their suffix alone, so that YOLO would take one file for both.
    """
    written: dict[Path, str] = {}
    for record in records:
        if record.decision == "failed":
            continue
        relative = Path(record.image)
        parts = [part for part in relative.parts if part not in (relative.anchor, "..")]
        file = (folder / "labels").joinpath(*parts).with_suffix(".txt")
        if file in written:
            raise DataError(f"{record.image} and {written[file]} would share {file}; rename one of the images")
        written[file] = record.image
        write_text(file, "\n".join(_yolo_line(region, record) for region in record.regions))

    write_text(folder / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n  0: {LABEL}\n")
    return folder / "data.yaml"


def _yolo_line(region: Region, record: ImageRecord) -> str:
    corners = (f"{x / record.width:.6f} {y / record.height:.6f}" for x, y in region.polygon)
    return f"0 {' '.join(corners)}"
