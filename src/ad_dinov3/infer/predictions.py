"""Several images' predictions: as tables, as annotations, and for people to look at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ad_dinov3.data.pixels import ImageSource, as_rgb, check_several
from ad_dinov3.errors import MissingExtraError
from ad_dinov3.files import write_text
from ad_dinov3.infer.annotations import coco_tree, label_studio_tasks, write_yolo
from ad_dinov3.infer.arrow import arrow_table
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.prediction import Prediction, conclude
from ad_dinov3.infer.record import ImageRecord, Record, plain
from ad_dinov3.infer.scorer import Scorer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SHOWN = 24


class Predictions(list[Prediction]):
    """A list of predictions that becomes a table, annotations or a gallery.

    ``Predictions(detector.predict_many(files))`` collects a stream. Slices and sorted copies are plain lists; wrap them
    in the same way.
    """

    def to_dicts(self) -> list[Record]:
        """One dict for each image, ready for JSON, as `Prediction.to_dict` gives it."""
        return [one.to_dict() for one in self]

    def to_arrow(self) -> pa.Table:
        """An Arrow table of one row for each image, regions as a list of structs.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        return arrow_table(ImageRecord, self._records())

    def to_pandas(self) -> pd.DataFrame:
        """A data frame of one row for each image, regions as lists of dicts.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("pandas", "pandas") from error
        columns = list(ImageRecord.__dataclass_fields__)
        return pandas.DataFrame([plain(record) for record in self._records()], columns=columns)

    def save_coco(self, file: str | Path) -> Path:
        """Write the regions as COCO annotations; the file."""
        return _written(Path(file), coco_tree(self._records()))

    def save_label_studio(self, file: str | Path, image_prefix: str = "") -> Path:
        """Write Label Studio's tasks, predictions to correct included; the file.

        Args:
            file: to be imported into a project with the labelling interface `annotations.LABEL_STUDIO_CONFIG`.
            image_prefix: what makes an image's name the URL that Label Studio can open, such as
                ``/data/local-files/?d=photos/``.
        """
        return _written(Path(file), label_studio_tasks(self._records(), image_prefix))

    def save_yolo(self, folder: str | Path) -> Path:
        """Write the regions as a YOLO segmentation data set's ``labels/`` and ``data.yaml``; the data.yaml.

        Raises:
            DataError: two images differ in their suffix alone, so that YOLO would take one file for both.
        """
        return write_yolo(self._records(), Path(folder))

    def _records(self) -> Iterator[ImageRecord]:
        return (one.record() for one in self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first pictures side by side, and how many more there are."""
        more = f"<p>and {len(self) - _SHOWN} more</p>" if len(self) > _SHOWN else ""
        figures = "".join(one._repr_html_() for one in self[:_SHOWN])
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>{more}'


class Predictor(Protocol):
    """What gives predictions for a batch of images."""

    def predict_batch(self, images: Sequence[ImageSource], class_name: str) -> Predictions:
        """Predictions in the images' order."""
        ...


def predict_images(scorer: Scorer, images: Sequence[ImageSource], rule: DecisionRule, class_name: str) -> Predictions:
    """Predictions for images of any kinds and sizes, scored in one batch; each keeps its image.

    Raises:
        ImageError: a file cannot be decoded.
        ShapeError: an array or tensor has another shape or type.
        ScoreError: the model answers with NaN, infinity or a value outside [0, 1].
    """
    check_several(images)
    if not images:
        return Predictions()
    arrays = [as_rgb(image) if isinstance(image, str | Path | bytes) else as_rgb(image).copy() for image in images]
    raw = scorer.score(np.stack([scorer.prepare(array) for array in arrays]), [class_name] * len(arrays))
    return Predictions(
        conclude(raw.row(row), array.shape[:2], rule, _name(image, row), class_name).on(array)
        for row, (image, array) in enumerate(zip(images, arrays, strict=True))
    )


def predict_stream(
    predictor: Predictor, images: Iterable[ImageSource], class_name: str, batch_size: int, progress: bool
) -> Iterator[Prediction]:
    """Predictions one by one, in order; memory holds one batch."""
    check_several(images)
    stream = iter(_tracked(images) if progress else images)
    while batch := list(islice(stream, batch_size)):
        yield from predictor.predict_batch(batch, class_name)


def _tracked(images: Iterable[ImageSource]) -> Iterable[ImageSource]:
    from rich.progress import track  # a terminal's, or a notebook's

    return track(images, "scoring")


def _name(image: ImageSource, row: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {row}"


def _written(file: Path, tree: object) -> Path:
    write_text(file, json.dumps(tree))
    return file
