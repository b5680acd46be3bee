"""A file of JSON lines that only grows while a run lasts, so that a killed run can go on where it was.

A later entry replaces an earlier one of the same image. Of the entries only their places are kept in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from ad_dinov3.data.pairing import natural_key
from ad_dinov3.errors import DataError
from ad_dinov3.files import replacing
from ad_dinov3.predict.store import Parts


class _Entry(Protocol):
    @property
    def image(self) -> str: ...


E = TypeVar("E", bound=_Entry)


class Journal(Generic[E]):
    """Entries by image name, on disk.

    Args:
        path: the file; made if it is not there. A last line that a kill cut short is dropped.
        kind: the entries' dataclass; it has an attribute ``image``.
        parts: where its new lines are stored, too.

    Raises:
        DataError: a whole line is not such an entry: the file is not ours to rewrite.
    """

    def __init__(self, path: Path, kind: type[E], parts: Parts | None = None) -> None:
        self.path = path
        self._parts = parts
        self._adapter = TypeAdapter(kind)
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._place = {}
        end = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    self._place[self._parse(line, number).image] = end
                    end += len(line)
        self._file = path.open("r+b")
        self._file.truncate(end)
        self._file.seek(end)

    _place: dict[str, int]

    def append(self, entry: E) -> None:
        """Add an entry; it is handed to the operating system before this returns. Threads may call it."""
        line = self._adapter.dump_json(entry) + b"\n"
        with self._lock:
            place = self._file.tell()
            self._file.write(line)
            self._file.flush()
            self._place[entry.image] = place
        if self._parts:
            self._parts.keep()

    def get(self, image: str) -> E | None:
        """The last entry of an image, None if there is none."""
        if image not in self._place:
            return None
        with self.path.open("rb") as lines:
            lines.seek(self._place[image])
            return self._adapter.validate_json(lines.readline())

    def __iter__(self) -> Iterator[E]:
        """The last entry of each image in natural order of the names, one at a time."""
        with self.path.open("rb") as lines:
            for image in sorted(self._place, key=natural_key):
                lines.seek(self._place[image])
                yield self._adapter.validate_json(lines.readline())

    def close(self) -> None:
        """Rewrite the file without replaced entries, in natural order of the names, and let go of it."""
        if self._parts:
            self._parts.keep(now=True)
        place = {}
        with replacing(self.path) as unfinished, unfinished.open("wb") as tidy:
            for entry in self:
                place[entry.image] = tidy.tell()
                tidy.write(self._adapter.dump_json(entry) + b"\n")
        self._file.close()
        self._place = place

    def _parse(self, line: bytes, number: int) -> E:
        try:
            return self._adapter.validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{self.path}: line {number} was not written by this version of ad-dinov3; "
                "choose another output folder, or replace this one's contents with --overwrite"
            ) from error
