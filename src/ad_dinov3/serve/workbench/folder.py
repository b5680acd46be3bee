"""What the workbench shows of an output folder of predict: rows, photographs, maps, and what folder names say."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ad_dinov3.data.decode import decode_within
from ad_dinov3.data.labels import folder_labels
from ad_dinov3.errors import ConfigError, ImageError
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.image_files import read_map, save_jpeg
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.memory import MEMORY_MB
from ad_dinov3.predict.report import Thumbnail
from ad_dinov3.predict.results import Row, command_again, read_rows
from ad_dinov3.predict.run_facts import read_run
from ad_dinov3.report.overlay import COOL, blend
from ad_dinov3.serve.normals import UnknownImageError

MAP_SIDE_PX = 1024
"""Longer side of the maps that browsers get; larger ones are sampled."""
_PICTURES = ".thumbnails.jsonl"
_THUMBNAIL = TypeAdapter(Thumbnail)
_SHOWN_AS_THEY_ARE = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")}


@dataclass(frozen=True, eq=False)
class Picture:
    """A file as a browser takes it: its content, or where it is."""

    content: bytes | Path
    kind: str


class Results:
    """An output folder, read once and again after each run into it.

    Args:
        folder: as `predict` writes it.

    Raises:
        ConfigError: there are no results in it.
        DataError: they are of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock, self._decoding = Lock(), Lock()
        self.read()

    def read(self) -> None:
        """Read the rows anew."""
        if not (self.folder / "results.jsonl").is_file():
            raise ConfigError(f"{self.folder}: no results.jsonl in it; score images first: ad-dinov3 predict")
        rows = {row.image: row for row in read_rows(self.folder)}
        run, pictures = read_run(self.folder), _places(self.folder / _PICTURES)
        labels = folder_labels(Path(row.path).parent for row in rows.values())
        with self._lock:
            self.rows: Mapping[str, Row] = rows
            self.run = run
            self._pictures = pictures
            self._labels = labels

    @property
    def threshold(self) -> float:
        """Where the run decided."""
        return next((row.threshold for row in self.rows.values() if row.threshold is not None), 0.5)

    @property
    def promises(self) -> Mapping[str, str]:
        """What the run's model promises of false alarms, in words, by class."""
        return self.run.promises

    @property
    def options(self) -> DriveOptions:
        """How the run decided; what it does not say is as by default."""
        options = self.run.options or DriveOptions()
        return replace(options, rule=replace(options.rule, threshold=self.threshold))

    @property
    def areas(self) -> Areas:
        """Where the run looked at images."""
        return self.options.rule.areas

    @property
    def command(self) -> str:
        """What scores these images in the same way once more, but for the threshold."""
        return command_again(self.rows.values(), str(self.folder), self.run.maker.words(self.options))

    def row(self, name: str) -> Row:
        """The row of an image.

        Raises:
            UnknownImageError: there is none.
        """
        if name not in self.rows:
            raise UnknownImageError(f"there is no image {name!r}")
        return self.rows[name]

    def folder_label(self, row: Row) -> bool | None:
        """Whether the name of an image's folder calls it anomalous; None: it does not say."""
        return self._labels.get(Path(row.path).parent)

    def smallest_region(self, row: Row) -> int:
        """The fewest px of the image that a region has."""
        rule = self.options.rule
        if rule.min_area_px is None and not all(row.grid):  # a row of an image that failed
            return 1
        return rule.area_of(row.grid, (row.height, row.width))

    def photo(self, name: str) -> Picture:
        """An image for a browser: its file where that can show it, else as JPEG.

        Raises:
            UnknownImageError: there is no such image.
            ImageError: its file is gone or cannot be decoded.
        """
        path = Path(self.row(name).path)
        try:
            with Image.open(path) as found:
                kind, mode, frames = found.format, found.mode, getattr(found, "n_frames", 1)
            if (kind, mode) in _SHOWN_AS_THEY_ARE and frames == 1:
                return Picture(path, f"image/{str(kind).lower()}")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # the decoder says what is wrong
        with self._decoding:  # one at a time, so that many who ask cannot take all memory
            return _jpeg(Image.fromarray(decode_within(path, MEMORY_MB * 2**20).pixels))

    def thumbnail(self, name: str, with_map: bool) -> Picture:
        """A small picture of an image, under its map or without it.

        Raises:
            UnknownImageError: there is no such image.
            ImageError: the run kept no picture of it.
        """
        kept = self._kept(name)
        photo = base64.b64decode(kept.photo)
        if not with_map:
            return Picture(photo, "image/jpeg")
        pixels = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
        return _jpeg(blend(pixels, upsample(_levels(kept), pixels.shape[:2]), COOL))

    def map(self, name: str) -> NDArray[np.float32]:
        """The anomaly map (h, w) in [0, 1] of an image, its longer side at most 1024 px.

        Where the run wrote no map, it is enlarged from the report's, which has 8 bit.

        Raises:
            UnknownImageError: there is no such image.
            ImageError: there is no map of it.
        """
        row = self.row(name)
        whole = _levels(self._kept(name)) if row.map is None else read_map(self.folder / row.map)
        return for_browsers(whole, row)

    def _kept(self, name: str) -> Thumbnail:
        self.row(name)
        found = self._picture(name)
        if found is None:  # a run has rewritten the file since it was read
            places = _places(self.folder / _PICTURES)
            with self._lock:
                self._pictures = places
            found = self._picture(name)
        if found is None:
            raise ImageError(Path(name), "the run kept no picture of it")
        return found

    def _picture(self, name: str) -> Thumbnail | None:
        with self._lock:
            place = self._pictures.get(name)
        if place is None:
            return None
        with (self.folder / _PICTURES).open("rb") as lines:
            lines.seek(place)
            try:
                found = _THUMBNAIL.validate_json(lines.readline())
            except ValidationError:
                return None
        return found if found.image == name else None


def for_browsers(anomaly_map: NDArray[np.float32], row: Row) -> NDArray[np.float32]:
    """A map (h, w) of an image at the image's own size, or sampled so that its longer side is at most 1024 px."""
    step = max(1.0, max(row.height, row.width) / MAP_SIDE_PX)
    return upsample(anomaly_map, (max(1, round(row.height / step)), max(1, round(row.width / step))))


def _places(path: Path) -> dict[str, int]:
    """Image -> where its last line begins in a file of thumbnails, which a run may be writing."""
    places, end = {}, 0
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                places[_THUMBNAIL.validate_json(line).image] = end
            end += len(line)
    return places


def _levels(kept: Thumbnail) -> NDArray[np.float32]:
    """The map of a thumbnail, (h, w) in [0, 1]."""
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(kept.patch_map))), np.float32)
    return levels / np.float32(255)


def _jpeg(picture: Image.Image) -> Picture:
    buffer = io.BytesIO()
    save_jpeg(buffer, picture)
    return Picture(buffer.getvalue(), "image/jpeg")
