"""The files of each image: overlay, anomaly map, mask."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from ad_dinov3.infer.image_files import write_jpeg, write_map_png16, write_map_tiff, write_mask
from ad_dinov3.predict.store import Store
from ad_dinov3.predict.types import Failure, Result

_MAX_NAME_BYTES = 220  # file systems take 255, of which a suffix and the name of an unfinished file take their part
_SUFFIXES = (".jpg", ".png", ".tiff")  # a folder of such a name could be in the way of an image's file
MapFormat = Literal["tiff", "png16", "none"]


@dataclass(frozen=True)
class Outputs:
    """Which files each image gets, and their names below the output folder.

    A name is the image's own, suffix included, plus a suffix: ``x.png`` and ``x.jpg`` never meet. What is too
    long for a file, and a folder that could be in the way of one, ends in a digest of its name instead.
    """

    overlays: bool = True
    masks: bool = True
    maps: MapFormat = "tiff"

    def overlay(self, image: str) -> str | None:
        """Name of the overlay, None if there is none."""
        return f"overlays/{_file_name(image)}.jpg" if self.overlays else None

    def mask(self, image: str) -> str | None:
        """Name of the mask, None if there is none."""
        return f"masks/{_file_name(image)}.png" if self.masks else None

    def map(self, image: str) -> str | None:
        """Name of the anomaly map, None if there is none."""
        suffix = {"tiff": ".tiff", "png16": ".png", "none": None}[self.maps]
        return f"maps/{_file_name(image)}{suffix}" if suffix else None

    def files(self, image: str) -> list[str]:
        """Names of all files of an image."""
        return [name for name in (self.overlay(image), self.map(image), self.mask(image)) if name]


@lru_cache(maxsize=256)
def _file_name(image: str) -> str:
    """The image's name in parts that a file system takes; asked for each of its files and for its row."""
    *folders, name = image.split("/")
    parts = [*(_shortened(folder) if folder.endswith(_SUFFIXES) else folder for folder in folders), name]
    return "/".join(part if len(part.encode()) <= _MAX_NAME_BYTES else _shortened(part) for part in parts)


def _shortened(name: str) -> str:
    """The start of a name, and a digest of all of it."""
    start = name.encode()[: _MAX_NAME_BYTES - 20].decode("utf-8", "ignore")
    return f"{start}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class FileSink:
    """Writes each image's overlay, anomaly map and mask into a store."""

    def __init__(self, store: Store, outputs: Outputs) -> None:
        self._store = store
        self._outputs = outputs

    def write(self, result: Result) -> None:
        """Write the files of one image."""
        name, prediction = result.scored.item.name, result.prediction
        if overlay := self._outputs.overlay(name):
            self._store.write(overlay, partial(write_jpeg, picture=prediction.overlay(result.scored.picture)))
        if mask := self._outputs.mask(name):
            self._store.write(mask, partial(write_mask, mask=prediction.mask()))
        if (anomaly_map := self._outputs.map(name)) and not result.scored.is_stored:
            write_map = write_map_tiff if self._outputs.maps == "tiff" else write_map_png16
            self._store.write(anomaly_map, partial(write_map, anomaly_map=prediction.anomaly_map))

    def fail(self, failure: Failure) -> None:
        """Remove what an earlier run wrote for an image that cannot be done any more."""
        for name in self._outputs.files(failure.item.name):
            with suppress(OSError):  # the name may be a folder's, or too long for a file
                self._store.remove(name)

    def close(self) -> None:
        """Nothing is left to write."""
