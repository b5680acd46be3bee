"""Writing files so that nobody ever sees half of one, and where what can be made again is kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from ad_dinov3.errors import ConfigError, DataError

# On Windows two runs into one folder are not told apart.
_fcntl: ModuleType | None = importlib.import_module("fcntl") if os.name == "posix" else None

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PART = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.part")
_ABANDONED_S = 24 * 3600  # no file is being written for so long without a change
_SEEN_IMAGES = "training_images.txt"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; at the end it takes the place of ``path``, on an error it is deleted.

    Missing folders are made.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.chmod(0o644)  # some writers make files that only their owner may read
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):  # of two errors the first one tells what went wrong
            unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Delete what runs that were killed have left of `replacing` below a folder.

    Another machine's processes cannot be asked for here: its files are kept until they have not changed for a day.
    """
    for path in folder.rglob(".*.part"):
        found = _PART.fullmatch(path.name)
        with suppress(OSError):
            if found and _is_abandoned(path, found["host"], found["pid"]):
                path.unlink()


def _is_abandoned(part: Path, host: str, pid: str) -> bool:
    if host == _HOST:
        return not Path("/proc", pid).exists()
    return time.time() - part.stat().st_mtime > _ABANDONED_S


@contextmanager
def held(folder: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Inside, no other run writes into the folder, which is made if it is missing; what killed ones left is deleted.

    Args:
        folder: of the run's results.
        shared: runs that divide their work let each other in, and delete nothing.
        wait: until the other run is done, instead of refusing.

    Raises:
        ConfigError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)  # the folder itself, so that no file is left; a killed run's lock is gone
    try:
        _fcntl.flock(lock, (_fcntl.LOCK_SH if shared else _fcntl.LOCK_EX) | (0 if wait else _fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(lock)
        raise ConfigError(f"{folder}: another run is writing there; wait for it, or take another --out") from None
    try:
        if not shared:
            remove_unfinished(folder)
        yield
    finally:
        os.close(lock)


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def utf8(name: str) -> str:
    """A file name as text that every format can hold: bytes that are not UTF-8 are written as ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not name.isascii() else name


def user_cache(name: str) -> Path:
    """ad-dinov3/NAME in the user's cache folder (XDG_CACHE_HOME, else ~/.cache); not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ad-dinov3" / name


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file that ends in a newline."""
    with replacing(path) as unfinished:
        unfinished.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def file_hash(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_seen_images(folder: Path) -> frozenset[str]:
    """sha256 of the images that the model or backbone in a folder has seen, as far as it says.

    Raises:
        DataError: the list is not a text file.
    """
    file = folder / _SEEN_IMAGES
    try:
        return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None


def write_seen_images(folder: Path, hashes: frozenset[str]) -> None:
    """Write what `read_seen_images` reads, one a line."""
    write_text(folder / _SEEN_IMAGES, "\n".join(sorted(hashes)))
