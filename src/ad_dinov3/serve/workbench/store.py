"""workbench.sqlite: what people have decided about the images of a folder, in one file that other tools can read.

Every change is one transaction that is on the disk before it is answered, so that a killed server loses nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Literal

from ad_dinov3.errors import DataError

FILE = "workbench.sqlite"
FORMAT_VERSION = 2
Verdict = Literal["ok", "ng", "skip"]

_TABLES = """
CREATE TABLE IF NOT EXISTS reviews (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('ok', 'ng', 'skip')),
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS reviews_image ON reviews (image, number);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS good_images (image TEXT PRIMARY KEY, at TEXT NOT NULL);
"""  # what a file of an earlier version lacks is added


@dataclass(frozen=True)
class Review:
    """What a person said of an image.

    Attributes:
        id: made by who said it, so that a review that is sent twice counts once.
        image: its name in the run.
        verdict: ``ok`` for a good part, ``ng`` for a defect, ``skip`` for neither.
        at: when, in UTC, ISO 8601.
    """

    id: str
    image: str
    verdict: Verdict
    at: str


class Store:
    """The reviews and settings of an output folder.

    Args:
        folder: of the run's results; the file is made if it is missing.
        now: the clock.

    Raises:
        DataError: the file is of a later version, or no SQLite database.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = folder / FILE
        self._now = now
        self._lock = RLock()  # one connection for all threads
        try:
            self._open = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=10)
            self._open.execute("PRAGMA journal_mode = WAL")
            self._open.execute("PRAGMA synchronous = FULL")
            (version,) = self._open.execute("PRAGMA user_version").fetchone()
            if version > FORMAT_VERSION:
                raise DataError(f"{self.path}: made by a later version of ad-dinov3; update, or take another folder")
            self._open.executescript(_TABLES)
            self._open.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: cannot be used as SQLite database ({error}); move it away") from None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._open.close()

    @property
    def revision(self) -> int:
        """Another number after every change, by whichever process."""
        value = self.setting("revision", 0)
        return value if isinstance(value, int) else 0

    def add_review(self, review_id: str, image: str, verdict: Verdict) -> None:
        """Note what a person says of an image; the last word counts. One that is there already is left as it is."""
        at = self._time()
        with self.changing():
            self._open.execute(
                "INSERT INTO reviews (id, image, verdict, at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (review_id, image, verdict, at),
            )

    def take_back(self, review_id: str) -> None:
        """Forget a review, so that the one before it counts again; one that is not there is no error."""
        with self.changing():
            self._open.execute("DELETE FROM reviews WHERE id = ?", (review_id,))

    def reviews(self) -> list[Review]:
        """The last review of each image, in the order in which they were made."""
        last = "SELECT MAX(number) FROM reviews GROUP BY image"
        with self._lock:
            found = self._open.execute(
                f"SELECT id, image, verdict, at FROM reviews WHERE number IN ({last}) ORDER BY number"
            ).fetchall()
        return [Review(*row) for row in found]

    def verdicts(self) -> dict[str, Verdict]:
        """Image -> what was said of it last."""
        return {review.image: review.verdict for review in self.reviews()}

    def good(self) -> tuple[str, ...]:
        """Images that others are compared with, in the order in which they were chosen."""
        with self._lock:
            found = self._open.execute("SELECT image FROM good_images ORDER BY rowid").fetchall()
        return tuple(image for (image,) in found)

    def set_good(self, images: Iterable[str], is_good: bool) -> None:
        """Choose images to compare others with, or no longer do."""
        at = self._time()
        with self.changing():
            if is_good:
                rows = [(image, at) for image in images]
                self._open.executemany("INSERT INTO good_images VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
            else:
                self._open.executemany("DELETE FROM good_images WHERE image = ?", [(image,) for image in images])

    def _time(self) -> str:
        return self._now().isoformat(timespec="milliseconds")

    def setting(self, name: str, default: object) -> object:
        """A value that `set` has kept."""
        with self._lock:
            row = self._open.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set(self, name: str, value: object) -> None:
        """Keep a value that JSON can hold."""
        with self.changing():
            self._put(name, value)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Inside, changes are made together or not at all, and the revision goes up."""
        with self._lock:
            if self._open.in_transaction:
                yield
                return
            self._open.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._put("revision", self.revision + 1)
                self._open.execute("COMMIT")
            except BaseException:
                self._open.execute("ROLLBACK")
                raise

    def _put(self, name: str, value: object) -> None:
        self._open.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))
