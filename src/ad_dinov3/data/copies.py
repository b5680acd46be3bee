"""Copies of remote folders on this machine, for what is read as a whole: data sets, normal images, models."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ad_dinov3.data.remote import RemoteFile, fetch_file, is_uri, is_web, list_files, redacted, uri_path
from ad_dinov3.errors import DataError
from ad_dinov3.files import held, parse_json, user_cache, write_text

_INDEX = ".versions.json"
_THREADS = 16


def here(place: str | Path) -> Path:
    """A path as it is; of a URI the copy in the user's cache, brought up to date first.

    A file that has the size and mark (ETag) of its copy is not fetched again, and what is not there any more is
    deleted. Of a file's URI the whole folder that holds it is copied, since a manifest points to what lies beside it.

    Raises:
        DataError: there is nothing, or it cannot be read; a web server cannot list its files.
        MissingExtraError: the scheme's package is not installed.
    """
    if not is_uri(str(place)):
        return Path(place)
    uri = str(place).rstrip("/")
    if is_web(uri):
        raise DataError(f"{redacted(uri)}: expected a folder here or of an object store (s3://, gs://, az://)")
    name = PurePosixPath(uri_path(uri)).name
    if files := list(list_files(uri)):
        return _brought_up_to_date(uri, files)
    parent = uri.rpartition("/")[0]
    files = list(list_files(parent))
    if name not in {file.name for file in files}:
        raise DataError(f"{redacted(uri)}: there is no such folder or file")
    return _brought_up_to_date(parent, files) / name


def cache_folder(kind: str, uri: str) -> Path:
    """A folder of the user's cache for a URI, with the last part of its path as name."""
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return user_cache(kind) / digest / PurePosixPath(uri_path(uri)).name


def _brought_up_to_date(uri: str, files: list[RemoteFile]) -> Path:
    """The copy of a folder that holds these files; processes that want the same one wait for each other.

    What is fetched is at least as new as the listing, and so is each file as the version that the index claims for it.
    """
    folder = cache_folder("copies", uri)
    index = folder.parent / _INDEX
    versions = {file.name: [file.version.size, file.version.stamp] for file in files if _is_below(file.name)}
    with held(folder.parent, wait=True):
        known = parse_json(index.read_text(encoding="utf-8")) if index.is_file() else {}
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            name = path.relative_to(folder).as_posix()
            if name not in versions or known.get(name) != versions[name]:
                path.unlink()
        missing = [file for file in files if file.name in versions and not (folder / file.name).is_file()]
        write_text(index, json.dumps(versions))
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda file: fetch_file(file.uri, folder / file.name), missing))
    return folder


def _is_below(name: str) -> bool:
    """Whether a name leads nowhere but below its folder; object stores take any."""
    return bool(name) and not {"", ".", ".."} & set(name.split("/"))
