"""Where each image's files go: a folder of a disk, or a place in an object store, written to in the same way.

A run into an object store works in a folder of this machine, where its journals, tables and report are made. An object
cannot be appended to, so the journals' new lines are stored every half minute in parts, which a later run reads first;
at the end everything is stored whole, ``run.json`` last, and the parts are deleted. Of two runs into one place, on
whatever machines, the later one takes it over: each leaves its mark at its start, and one that finds another's mark
before it stores lines or its end stores nothing more.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from ad_dinov3.data.copies import cache_folder
from ad_dinov3.data.remote import fetch_file, is_uri, is_web, list_files, names_in, put_file, redacted, remove_file
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.files import held, write_text

JOURNALS = ("results.jsonl", ".thumbnails.jsonl")
_PARTS = ".journal"
_MARK = f"{_PARTS}/begun"
_LAST = ("run.json", "config.json")  # of a run and of a model
_EVERY_S = 30.0
_FOLDERS_KNOWN = 16  # whose names are in memory; images come folder by folder

T = TypeVar("T")


class Store(Protocol):
    """Where each image's files go, by their names below it."""

    def write(self, name: str, save: Callable[[Path], object]) -> None:
        """Have a file saved under a name, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """What is loaded from a file."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""
        ...


@dataclass(frozen=True)
class FolderStore:
    """A folder of a disk."""

    folder: Path

    def write(self, name: str, save: Callable[[Path], object]) -> None:
        """As `Store`; ``save`` replaces the file by itself."""
        save(self.folder / name)

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """As `Store`."""
        return load(self.folder / name)

    def has(self, name: str) -> bool:
        """As `Store`."""
        return (self.folder / name).is_file()

    def remove(self, name: str) -> None:
        """As `Store`."""
        (self.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class UriStore:
    """A place in an object store, and what a run keeps there beside the images' files.

    Attributes:
        uri: without a slash at its end.
    """

    uri: str

    def write(self, name: str, save: Callable[[Path], object]) -> None:
        """As `Store`: saved here, then put in one piece."""
        with tempfile.TemporaryDirectory(prefix="ad-dinov3-") as folder:
            path = Path(folder) / f"file{PurePosixPath(name).suffix}"
            save(path)
            put_file(path, f"{self.uri}/{name}")

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """As `Store`."""
        with tempfile.TemporaryDirectory(prefix="ad-dinov3-") as folder:
            path = Path(folder) / f"file{PurePosixPath(name).suffix}"
            fetch_file(f"{self.uri}/{name}", path)
            return load(path)

    def has(self, name: str) -> bool:
        """As `Store`; a folder is listed once for all its names."""
        folder, _, last = f"{self.uri}/{name}".rpartition("/")
        return last in _names(folder)

    def remove(self, name: str) -> None:
        """As `Store`."""
        remove_file(f"{self.uri}/{name}")

    @property
    def work_folder(self) -> Path:
        """Where a run into this place works on this machine: in the user's cache, with the place's last name."""
        return cache_folder("runs", self.uri)

    def put_all(self, folder: Path) -> None:
        """Store the files of a folder; last the one that says that all are there.

        Raises:
            DataError: the store cannot be written.
        """
        files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name in _LAST)
        try:
            self.remove("run.json")  # while the others change
            for path in files:
                put_file(path, f"{self.uri}/{path.name}")
        except OSError as error:
            raise _cannot_write(self.uri, error) from None


@dataclass(frozen=True)
class Place:
    """Where results go, as a user names it.

    Attributes:
        folder: where a run works.
        remote: the place in an object store that everything goes to; None: it stays in the folder.
    """

    folder: Path
    remote: UriStore | None = None

    @property
    def store(self) -> Store:
        """Where each image's files go."""
        return self.remote or FolderStore(self.folder)

    def leave(self) -> None:
        """Delete a folder whose files are in an object store by now."""
        if self.remote:
            shutil.rmtree(self.folder)


def open_place(place: str | Path) -> Place:
    """A folder, or a place in an object store.

    Raises:
        ConfigError: a web server, which takes no files.
    """
    if not is_uri(str(place)):
        return Place(Path(place))
    if is_web(str(place)):
        raise ConfigError(f"{redacted(str(place))}: results go to a folder or to s3://, gs:// or az://")
    remote = UriStore(str(place).rstrip("/"))
    return Place(remote.work_folder, remote)


def empty(folder: Path) -> None:
    """Delete what is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def written_into(place: str) -> Iterator[Path]:
    """A folder to write to: the place itself, or for a URI one of this machine, whose files are stored at the end.

    Raises:
        ConfigError: a web server, a place in an object store that is not empty, or another process is at it.
        DataError: the store cannot be read or written.
    """
    found = open_place(place)
    if found.remote is None:
        yield found.folder
        return
    if there := sorted(names_in(found.remote.uri)):
        raise ConfigError(f"{redacted(place)}: expected an empty place, found {there[0]}; name another, or delete it")
    with held(found.folder):
        empty(found.folder)
        try:
            yield found.folder
            found.remote.put_all(found.folder)
        finally:
            found.leave()


class Tenure:
    """A run's hold on its place in an object store: it brings what earlier runs have done, and leaves its mark.

    Args:
        store: the run's place.
        folder: where it works; what is in it is deleted first.
        forget: what earlier runs have done is deleted instead.

    Raises:
        DataError: the store cannot be read or written.
    """

    def __init__(self, store: UriStore, folder: Path, forget: bool) -> None:
        self.store, self._folder = store, folder
        self._mark = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4()}"
        _names.cache_clear()
        empty(folder)
        there = names_in(store.uri)
        try:
            for name in ("run.json", "missing.txt", *JOURNALS * forget):
                if name in there:
                    store.remove(name)
            if forget:
                _remove_parts(store)
            store.write(_MARK, lambda path: write_text(path, self._mark))
        except OSError as error:
            raise _cannot_write(store.uri, error) from None
        for name in () if forget else JOURNALS:
            if name in there:
                fetch_file(f"{store.uri}/{name}", folder / name)
            for part in sorted(names_in(f"{store.uri}/{_PARTS}/{name}")):
                new = store.read(f"{_PARTS}/{name}/{part}", Path.read_bytes)
                with (folder / name).open("ab") as whole:
                    whole.write(new)

    def check(self) -> None:
        """Go on only if no other run has begun there since.

        Raises:
            DataError: one has, on this machine or another.
        """
        is_there = PurePosixPath(_MARK).name in names_in(f"{self.store.uri}/{_PARTS}")
        mark = self.store.read(_MARK, lambda path: path.read_text(encoding="utf-8")).strip() if is_there else ""
        if mark != self._mark:
            raise DataError(
                f"{redacted(self.store.uri)}: another run{f' on {mark.split()[0]}' if mark else ''} has begun to write "
                "there, so this one stops; start it again when the other has ended, or give it another --out"
            )

    def end(self) -> None:
        """Store the folder's files, run.json last, and delete the journals' parts and the mark.

        Raises:
            DataError: the store cannot be written, or another run has begun there.
        """
        self.check()
        self.store.put_all(self._folder)
        _remove_parts(self.store)


class Parts:
    """Stores the new lines of a journal every half minute.

    Args:
        tenure: the run's hold on its place.
        journal: a file that only grows, until `keep` is called for the last time.
    """

    def __init__(self, tenure: Tenure, journal: Path) -> None:
        self._tenure, self._folder, self._journal = tenure, f"{_PARTS}/{journal.name}", journal
        there = names_in(f"{tenure.store.uri}/{self._folder}")
        self._number = max((int(Path(name).stem) for name in there), default=0)
        self._done = journal.stat().st_size if journal.exists() else 0
        self._last = time.monotonic()
        self._lock = threading.Lock()

    def keep(self, now: bool = False) -> None:
        """Store what is new, if it is time, or ``now``; threads may call it.

        Raises:
            DataError: the store cannot be written, or another run has begun there.
        """
        if not self._lock.acquire(blocking=now):
            return
        try:
            if now or time.monotonic() - self._last > _EVERY_S:
                self._keep_new_lines()
                self._last = time.monotonic()
        finally:
            self._lock.release()

    def _keep_new_lines(self) -> None:
        with self._journal.open("rb") as lines:
            lines.seek(self._done)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        if not whole:
            return
        self._tenure.check()
        store = self._tenure.store
        try:
            store.write(f"{self._folder}/{self._number + 1:09d}.jsonl", lambda path: path.write_bytes(whole))
        except OSError as error:
            raise _cannot_write(f"{store.uri}/{self._folder}", error) from None
        self._number, self._done = self._number + 1, self._done + len(whole)


def _remove_parts(store: UriStore) -> None:
    """Oldest first: what is left of them after a kill is then the newest."""
    for file in sorted(list_files(f"{store.uri}/{_PARTS}"), key=lambda file: file.name):
        remove_file(file.uri)


@lru_cache(maxsize=_FOLDERS_KNOWN)
def _names(uri: str) -> frozenset[str]:
    return names_in(uri)


def _cannot_write(uri: str, error: OSError) -> DataError:
    return DataError(f"{redacted(uri)}: cannot be written to ({error.strerror}); what is written stays, run again")
