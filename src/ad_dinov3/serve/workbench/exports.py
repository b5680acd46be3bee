"""Reviewed labels for other tools: a table, COCO, Label Studio's tasks, and a data set in MVTec AD's layout.

Outlines and masks of defects are the model's own at the threshold, as no person has drawn them.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, ImageError
from ad_dinov3.files import write_text
from ad_dinov3.infer.annotations import label_studio_choice, label_studio_outlines
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.decide import find_regions, threshold_mask, upsample
from ad_dinov3.infer.image_files import write_mask
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.tables import escaped, write_coco
from ad_dinov3.serve.workbench.answers import Label
from ad_dinov3.serve.workbench.folder import Results

FOLDER = "reviewed"
_NO_MASK = np.zeros((0, 0), bool)  # masks are written one by one, and not kept
_KINDS: Mapping[Label, str] = {"ok": "good", "ng": "defect"}


@dataclass(frozen=True)
class Labelled:
    """An image that somebody has called good or not.

    Attributes:
        row: with the regions at the threshold; an image that is called good has none.
        label: what it was called.
        by: ``review``, or ``folder`` where only the name of its folder says so.
        score: that decides on it, in [0, 1].
        mask: (H, W), where its map reaches the threshold.
    """

    row: Row
    label: Label
    by: str
    score: float
    mask: NDArray[np.bool_]


def labelled(results: Results, row: Row, label: Label, by: str, decide: tuple[float, float, Areas]) -> Labelled:
    """An image with the regions that its label allows.

    Args:
        results: that hold its map.
        row: its row.
        label: what it was called.
        by: who said so.
        decide: its score, the threshold, and where it is looked at.
    """
    score, threshold, areas = decide
    size = row.height, row.width
    if label == "ok":
        return Labelled(replace(row, regions=()), label, by, score, np.zeros(size, bool))
    looked_at = areas.mask(size)
    anomaly_map = np.where(looked_at, upsample(results.map(row.image), size), np.float32(-1))
    least = results.smallest_region(row)
    regions = tuple(find_regions(anomaly_map, threshold, least))
    return Labelled(replace(row, regions=regions), label, by, score, threshold_mask(anomaly_map, threshold, least))


def write_reviewed(folder: Path, labels: Iterable[Labelled], threshold: float) -> Path:
    """Write ``reviewed`` below the folder of the results, whole or not at all; an earlier one is replaced.

    Returns:
        The folder: labels.csv, coco.json, label_studio.json, and mvtec/CLASS with test and ground_truth, whose good
        images ``calibrate`` takes, and which ``train`` and ``evaluate`` take as a data set.

    Raises:
        ConfigError: no image has a label.
        ImageError: an image's file is gone.
    """
    target, unfinished = folder / FOLDER, folder / f".{FOLDER}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        images = []
        for image in labels:
            _write_mvtec(unfinished / "mvtec", image)
            images.append(replace(image, mask=_NO_MASK))
        if not images:
            raise ConfigError("no image has a label; review some, or name the folders of the images good and defect")
        _write_labels(unfinished / "labels.csv", images, threshold)
        write_coco(unfinished / "coco.json", [image.row for image in images])
        write_text(unfinished / "label_studio.json", json.dumps([_task(image) for image in images]))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    return target


def _write_labels(path: Path, images: Sequence[Labelled], threshold: float) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "path", "label", "by", "score", "threshold", "decision"])
        for image in images:
            decision = "anomalous" if image.score >= threshold else "normal"
            values = (
                image.row.image,
                image.row.path,
                image.label,
                image.by,
                round(image.score, 6),
                threshold,
                decision,
            )
            table.writerow(map(escaped, values))


def _task(image: Labelled) -> dict[str, object]:
    """A task of Label Studio, for the interface `LABEL_STUDIO_CONFIG`: a review is an annotation, regions predict."""
    said = [{"result": [label_studio_choice("normal" if image.label == "ok" else "anomalous")]}]
    return {
        "data": {"image": image.row.path},
        "annotations": said if image.by == "review" else [],
        "predictions": [{"score": image.score, "result": label_studio_outlines(image.row)}],
    }


def _write_mvtec(folder: Path, image: Labelled) -> None:
    row, kind = image.row, _KINDS[image.label]
    name = Path(row.image.replace("/", "__"))
    source = Path(row.path)
    if not source.is_file():
        raise ImageError(source, "the file is gone, or the workbench was started in another folder than predict")
    home = folder / (row.class_name.replace("/", "_") or "object")
    target = home / "test" / kind / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # no second copy on the same disk
    except OSError:
        shutil.copyfile(source, target)
    if image.label == "ng":
        write_mask(home / "ground_truth" / kind / f"{name.stem}_mask.png", image.mask)
