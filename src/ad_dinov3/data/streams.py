"""What people name on a command line -> a stream of images: files, folders, globs, a list on stdin, videos.

Nothing is decoded here and nothing stops the stream: a path that leads nowhere becomes an item whose ``load`` says why.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.decode import (
    IMAGE_SUFFIXES,
    DecodedImage,
    check_size,
    decode_within,
    image_header,
)
from ad_dinov3.data.header import ImageHeader, header_of
from ad_dinov3.data.image_list import is_image_list, read_image_list
from ad_dinov3.data.pairing import natural_key
from ad_dinov3.data.remote import Version, is_uri, list_images, read_bytes, redacted, remote_version, uri_path
from ad_dinov3.errors import ImageError, MissingExtraError
from ad_dinov3.files import utf8

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})


@dataclass(frozen=True)
class ImageFile:
    """One image to come.

    Attributes:
        path: the file, or what the user named.
        name: unique in the stream, relative, with forward slashes and the suffix; outputs are named after it. Bytes
            that are not UTF-8 are written as ``\\xff``.
        problem: why there is no image, if that is known without opening it.
        frame: the pixels (H, W, 3) uint8 of a video's frame.
        class_name: what it shows, for the prompts; None: what the run says.
        data: the file's content, if it is in memory.
        uri: where the file is, if it is not on a disk; ``path`` is for people then.
        listed: the version of that file, if a listing gave it.
        taken_at: when a camera took it, in UTC, as ISO 8601 has it.
        video_s: seconds from the start of its video.
    """

    path: Path
    name: str
    problem: str | None = None
    frame: NDArray[np.uint8] | None = None
    class_name: str | None = None
    data: bytes | None = field(default=None, repr=False)
    uri: str | None = field(default=None, repr=False)
    listed: Version | None = None
    taken_at: str | None = None
    video_s: float | None = None

    @property
    def where(self) -> str:
        """Where it is, for people: an address is without logins and signatures."""
        return utf8(str(self.path)) if self.uri is None else redacted(self.uri)

    def version(self) -> tuple[object, ...]:
        """Another one if the content may have changed.

        Raises:
            OSError: the file cannot be asked.
            ImageError: neither can the store.
        """
        if self.data is not None:
            return (hashlib.sha256(self.data).hexdigest(),)
        if self.uri is not None:
            version = self.listed if self.listed and self.listed.stamp else remote_version(self.uri)
            return version.size, version.stamp
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    def header(self) -> ImageHeader | None:
        """What the file says of the image before it is decoded; None where it would have to be fetched first.

        Raises:
            ImageError: there is none, or its header is broken.
        """
        if self.problem is not None:
            raise ImageError(self.path, self.problem)
        if self.frame is not None:
            return header_of(self.frame)
        return None if self.uri is not None else image_header(self.path, self.data)

    def load_within(self, in_hand: int) -> DecodedImage:
        """The image, reduced where the whole would take more bytes than ``in_hand`` until its results are written.

        Raises:
            ImageError: there is none, it cannot be decoded, or takes too much even reduced.
        """
        if self.problem is not None:
            raise ImageError(self.path, self.problem)
        if self.frame is not None:
            header = header_of(self.frame)
            check_size(self.path, header, header.bytes_in_hand, in_hand)
            return DecodedImage(self.frame, 1)
        data = self.data if self.uri is None else read_bytes(self.uri, self.listed)
        return decode_within(self.path, in_hand, data)


def find_images(sources: Sequence[str], stdin: TextIO | None = None) -> Iterator[ImageFile]:
    """Yield each image that the sources name, once, in the order named; folders recursively and in natural order.

    A source is a file (whatever its suffix), a folder (images by suffix; hidden entries are skipped, and so is
    ``ground_truth`` beside ``test``, where data sets keep their masks), a pattern with ``*``, ``?`` or ``[``, a video,
    a URI of such a file or folder (s3, gs, az, http, https), a list of images (``.csv``, ``.jsonl``, ``.parquet``), or
    ``-`` for one source per line of ``stdin``.

    Raises:
        DataError: a URI cannot be listed, or a list of images cannot be read.
        MissingExtraError: a package for videos, for a URI's scheme or for Parquet is not installed.
    """
    seen: set[Path | str] = set()
    names: set[str] = set()
    for item in _expand(sources, sys.stdin if stdin is None else stdin):
        if item.frame is None:
            where = item.uri or item.path.absolute()
            if where in seen:
                continue
            seen.add(where)
        name = _unique(item, names)
        names.add(name)
        yield replace(item, name=name)


def _unique(item: ImageFile, names: set[str]) -> str:
    """The item's name in UTF-8, with its folder's name in front or a number behind if another item has it."""
    plain = Path(utf8(item.name))
    candidates = chain(
        [str(plain), utf8(f"{item.path.absolute().parent.name}/{item.name}")],
        (plain.with_name(f"{plain.stem}~{number}{plain.suffix}").as_posix() for number in count(2)),
    )
    return next(name for name in candidates if name not in names)


def _expand(sources: Sequence[str], stdin: TextIO | None) -> Iterator[ImageFile]:
    for source in sources:
        if source == "-" and stdin is not None:
            for line in stdin:
                if line.strip():
                    yield from _expand([line.rstrip("\r\n")], None)
            continue
        if is_image_list(source):
            yield from _listed(source)
            continue
        if is_uri(source):
            yield from (_remote(file.uri, file.name, file.version) for file in list_images(source))
            continue
        path = Path(source)
        if glob.has_magic(source) and not os.path.lexists(source):
            matches = sorted(glob.glob(source, recursive=True), key=natural_key)
            if not matches:
                yield ImageFile(path, path.name, "no file matches this pattern")
            for match in matches:
                yield from _one(Path(match))
        else:
            yield from _one(path)


def _listed(source: str) -> Iterator[ImageFile]:
    """The images of a list; their names are their whole places, as they may come from many folders."""
    for place, class_name in read_image_list(source):
        if is_uri(place):
            yield replace(_remote(place, str(uri_path(place)), None), class_name=class_name)
        else:
            path = Path(place)
            name = "/".join(part for part in path.parts if part not in (path.anchor, ".."))
            yield ImageFile(path, name, class_name=class_name)


def _remote(uri: str, name: str, version: Version | None) -> ImageFile:
    return ImageFile(Path(uri_path(uri)), name, uri=uri, listed=version)


def _one(path: Path) -> Iterator[ImageFile]:
    try:
        if path.is_dir():
            yield from _walk(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():  # a pipe would be waited for
            yield from _frames(path)
        else:
            yield ImageFile(path, path.name)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        yield ImageFile(path, path.name, _unreadable(error))


def _walk(root: Path) -> Iterator[ImageFile]:
    """Images below a folder in natural order; linked folders come last, and each real folder is visited once."""
    seen: set[tuple[int, int]] = set()
    linked = deque([root])
    while linked:
        stack = [_contents(root, linked.popleft(), seen, linked)]  # not Python's own, for very deep trees
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, ImageFile):
                yield found
            else:
                stack.append(_contents(root, found, seen, linked))


def _contents(root: Path, folder: Path, seen: set[tuple[int, int]], linked: deque[Path]) -> Iterator[ImageFile | Path]:
    """The images and the folders in a folder that is not in ``seen``; links to folders go to ``linked``."""
    try:
        place = folder.stat()
        if (place.st_dev, place.st_ino) in seen:
            return
        seen.add((place.st_dev, place.st_ino))
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        yield ImageFile(folder, _relative(folder, root), f"cannot list this folder ({error.strerror or error})")
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        try:
            is_folder, is_linked = entry.is_dir(), entry.is_symlink()
        except OSError as error:
            yield ImageFile(path, _relative(path, root), _unreadable(error))
            continue
        if not is_folder:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield ImageFile(path, _relative(path, root))
        elif is_linked and path.resolve().is_relative_to("/proc"):
            yield ImageFile(path, _relative(path, root), "a link into /proc, which has no end, is not followed")
        elif entry.name == "ground_truth" and (folder / "test").is_dir():
            continue
        elif is_linked:
            linked.append(path)
        else:
            yield path


def _unreadable(error: Exception) -> str:
    return "no permission to read it" if isinstance(error, PermissionError) else str(error)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.absolute().name


def _frames(path: Path) -> Iterator[ImageFile]:
    """The frames of a video as items ``clip.mp4/000012.png``; a video that breaks off ends in an item that says so."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video") from error
    index = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                yield ImageFile(path, f"{path.name}/{index:06d}.png", frame=pixels, video_s=frame.time)
                index += 1
    except (av.FFmpegError, IndexError, OSError) as error:
        yield ImageFile(path, f"{path.name}/{index:06d}.png", f"the video cannot be decoded further ({error})")
