"""Files in object stores and on web servers: listed, asked for their version, read and written whole.

Every request is repeated when it fails for a passing reason, and no message holds a credential. Credentials come from
where each store's own library finds them (environment, profile, instance role), never from here.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

from ad_dinov3.data.decode import IMAGE_SUFFIXES, MAX_MEMORY
from ad_dinov3.data.pairing import natural_key
from ad_dinov3.errors import DataError, ImageError, MissingExtraError
from ad_dinov3.files import replacing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# scheme -> what fsspec needs to open it
_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
_WEB = ("http", "https")
_URI = re.compile(rf"({'|'.join(_PACKAGES)})://[^/]", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\")]*")
_STAMPS = ("ETag", "etag", "generation", "LastModified", "last_modified", "Last-Modified", "mtime")
_PAUSES_S = (0.1, 0.4, 1.6, 6.4)
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)

_CHOICES = {"s3": {"max_concurrency": 1}}  # else it asks for each file's size before it reads it
_OPENING = Lock()  # fsspec imports a scheme's module at its first use, and threads may meet it half imported

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """What changes with a file's content: bytes (None: not said) and the store's own mark, "" without one."""

    size: int | None
    stamp: str


@dataclass(frozen=True)
class RemoteFile:
    """A file of a listing, its place below what was listed, and its version."""

    uri: str
    name: str
    version: Version


def is_uri(text: str) -> bool:
    """Whether a text names a file or folder of an object store or web server: s3, gs, az, abfs, http, https."""
    return _URI.match(text) is not None


def is_web(text: str) -> bool:
    """Whether a text names a file on a web server, which cannot list its files and takes none."""
    return is_uri(text) and urlsplit(text).scheme.lower() in _WEB


def redacted(text: str) -> str:
    """A text without the logins and queries of the addresses in it, where passwords and signatures stand."""
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


def uri_path(uri: str) -> PurePosixPath:
    """Bucket or host, and path, without login and query."""
    parts = urlsplit(uri)
    path = PurePosixPath(parts.netloc.rpartition("@")[2] + parts.path)
    return PurePosixPath(*(part for part in path.parts if part != ".."))


def list_images(uri: str) -> Iterator[RemoteFile]:
    """Image files below a URI, recursively, in natural order of the names in each folder; or the file that it names.

    As in local folders hidden entries are skipped, and ``ground_truth`` beside ``test``.

    Raises:
        DataError: it cannot be listed.
        MissingExtraError: the scheme's package is not installed.
    """
    if uri_path(uri).suffix.lower() in IMAGE_SUFFIXES or is_web(uri):
        yield RemoteFile(uri, uri_path(uri).name, Version(None, ""))
        return
    system, root = _open_system(uri)
    scheme = urlsplit(uri).scheme
    folders = [root.rstrip("/")]
    while folders:
        folder = folders.pop()
        entries = _listed(system, folder, uri)
        names = {_last(entry): entry for entry in entries if not _last(entry).startswith(".")}
        deeper = []
        for name in sorted(names, key=natural_key):
            entry, place = names[name], f"{folder}/{name}"
            if entry["type"] == "directory":
                if not (name == "ground_truth" and "test" in names):
                    deeper.append(place)
            elif PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                yield RemoteFile(f"{scheme}://{place}", place[len(root.rstrip("/")) + 1 :], _version(entry))
        folders += reversed(deeper)


def read_bytes(uri: str, version: Version | None = None) -> bytes:
    """A file's content.

    Args:
        uri: where it is.
        version: as a listing gave it; None: it is asked for.

    Raises:
        ImageError: it is not there, is too large, or cannot be read after several tries.
    """
    known = version if version is not None and version.stamp else remote_version(uri)
    if known.size is not None and known.size > MAX_MEMORY:
        size, limit = known.size / 1e9, MAX_MEMORY / 1e9
        raise ImageError(redacted(uri), f"is a file of {size:.1f} GB, more than the limit of {limit:.1f} GB")
    system, path = _open_system(uri)
    return _image_request(uri, lambda: bytes(system.cat_file(path)))


@lru_cache(maxsize=4096)
def remote_version(uri: str) -> Version:
    """A file's version; asked once in a while.

    Raises:
        ImageError: it is not there, or cannot be asked after several tries.
    """
    system, path = _open_system(uri)
    return _image_request(uri, lambda: _version(system.info(path)))


def open_remote(uri: str) -> BinaryIO:
    """A file to be read, such as a list of images.

    Raises:
        DataError: it is not there, or cannot be opened after several tries.
    """
    system, path = _open_system(uri)
    try:
        opened: BinaryIO = _repeated(lambda: system.open(path, "rb"))
    except Exception as error:
        raise DataError(f"{redacted(uri)}: {_words(error)}") from None
    return opened


def list_files(uri: str) -> Iterator[RemoteFile]:
    """All files below a URI, recursively; none if it is a file's or there is nothing.

    Raises:
        DataError: it cannot be listed.
        MissingExtraError: the scheme's package is not installed.
    """
    system, root = _open_system(uri)
    root, scheme = root.rstrip("/"), urlsplit(uri).scheme
    folders = [root]
    while folders:
        folder = folders.pop()
        for entry in _listed(system, folder, uri, allow_absent=True):
            place = f"{folder}/{_last(entry)}"
            if entry["type"] == "directory":
                folders.append(place)
            else:
                yield RemoteFile(f"{scheme}://{place}", place[len(root) + 1 :], _version(entry))


def names_in(uri: str) -> frozenset[str]:
    """Names of the files and folders right below a URI.

    Raises:
        DataError: it cannot be listed.
    """
    system, folder = _open_system(uri)
    return frozenset(map(_last, _listed(system, folder.rstrip("/"), uri, allow_absent=True)))


def fetch_file(uri: str, path: Path) -> None:
    """Copy a remote file to a path, whole or not at all.

    Raises:
        DataError: it is not there, or cannot be read after several tries.
    """
    system, remote = _open_system(uri)
    with replacing(path) as unfinished:
        try:
            _repeated(lambda: system.get_file(remote, str(unfinished)))
        except Exception as error:
            raise DataError(f"{redacted(uri)}: {_words(error)}") from None


def put_file(path: Path, uri: str) -> None:
    """Copy a file to a URI, where it appears whole or not at all.

    Raises:
        OSError: it cannot be written after several tries.
    """
    system, remote = _open_system(uri)
    _written(uri, lambda: system.put_file(str(path), remote))


def remove_file(uri: str) -> None:
    """Delete a remote file; nothing happens if there is none.

    Raises:
        OSError: it cannot be deleted.
    """
    system, remote = _open_system(uri)
    with suppress(FileNotFoundError):
        _written(uri, lambda: system.rm_file(remote))


def _written(uri: str, request: Callable[[], object]) -> None:
    try:
        _repeated(request)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such bucket or file", redacted(uri)) from None
    except Exception as error:
        raise OSError(errno.EIO, _words(error), redacted(uri)) from None


def _listed(system: AbstractFileSystem, folder: str, uri: str, allow_absent: bool = False) -> list[dict[str, object]]:
    try:
        found: list[dict[str, object]] = _repeated(lambda: system.ls(folder, detail=True, refresh=True))
    except Exception as error:
        if allow_absent and isinstance(error, FileNotFoundError):
            return []  # as object stores know no empty folders
        raise DataError(f"{redacted(uri)}: cannot list {folder} ({_words(error)})") from None
    return [entry for entry in found if str(entry["name"]).strip("/") != folder.strip("/")]


def _last(entry: dict[str, object]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _version(entry: dict[str, object]) -> Version:
    size = entry.get("size")
    stamp = next((str(entry[name]) for name in _STAMPS if entry.get(name)), "")
    return Version(size if isinstance(size, int) else None, stamp)


def _open_system(uri: str) -> tuple[AbstractFileSystem, str]:
    scheme = urlsplit(uri).scheme.lower()
    try:
        with _OPENING:
            from fsspec.core import url_to_fs

            system, path = url_to_fs(uri, use_listings_cache=False, **_CHOICES.get(scheme, {}))
    except ImportError as error:
        raise MissingExtraError(_PACKAGES[scheme], "cloud") from error
    return system, path


def _image_request(uri: str, request: Callable[[], T]) -> T:
    try:
        return _repeated(request)
    except Exception as error:
        raise ImageError(redacted(uri), _words(error)) from None


def _repeated(request: Callable[[], T]) -> T:
    """What a request gives, which is made up to five times unless its answer is final."""
    for pause in _PAUSES_S:
        try:
            return request()
        except Exception as error:
            if isinstance(error, _FINAL) or 400 <= getattr(error, "status", 500) < 500:
                raise
            time.sleep(pause)
    return request()


def _words(error: Exception) -> str:
    """What went wrong in words without addresses' secrets."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return redacted(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
