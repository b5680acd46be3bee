"""The images that a command is to go through, as they are named on its line."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.data.streams import ImageFile
    from ad_dinov3.predict.shards import Shard


@dataclass(frozen=True)
class ImagesToCome:
    """A run's images.

    Attributes:
        items: the images, read once.
        total: their number, None if it cannot be told without opening a video or waiting for stdin or a camera.
        stopped: set when no more are wanted.
    """

    items: Iterable[ImageFile]
    total: int | None
    stopped: Event = field(default_factory=Event)


def list_images(sources: Sequence[str], part: Shard, tell: Callable[[str], None]) -> ImagesToCome:
    """The images of a shard.

    Args:
        sources: as `find_images` takes them, or one camera.
        part: the shard.
        tell: told, in words, when a camera is away.

    Raises:
        ConfigError: none of the sources is there, or a camera is named beside others.
    """
    from ad_dinov3.data.remote import is_uri
    from ad_dinov3.data.streams import find_images

    if any(map(_is_camera, sources)):
        return _of_camera(sources, part, tell)
    if not any(
        source == "-" or is_uri(source) or glob.has_magic(source) or Path(source).exists() for source in sources
    ):
        raise ConfigError(f"there is nothing to score: no such file or folder: {', '.join(sources)}")
    found = (item for item in find_images(sources) if part.holds(item.name))
    if not all(map(_is_countable, sources)):
        return ImagesToCome(found, None)
    listed = list(found)
    return ImagesToCome(listed, len(listed))


def camera_is_away(why: str) -> str:
    """What is told of a camera that has ended or does not answer."""
    return f"the camera is away ({why}) and is asked again"


def _of_camera(sources: Sequence[str], part: Shard, tell: Callable[[str], None]) -> ImagesToCome:
    from ad_dinov3.data.cameras import camera_frames
    from ad_dinov3.data.remote import redacted

    if len(sources) > 1:
        raise ConfigError(f"a camera has no end: name it alone, not with others: {', '.join(map(redacted, sources))}")
    stopped = Event()
    frames = camera_frames(sources[0], lambda words: tell(camera_is_away(words)), stopped.is_set)
    return ImagesToCome((frame for frame in frames if part.holds(frame.name)), None, stopped)


def _is_camera(source: str) -> bool:
    """Whether a source is a camera; an address of the web is taken for a file there."""
    from ad_dinov3.data.cameras import is_camera
    from ad_dinov3.data.remote import is_uri

    return is_camera(source) and not is_uri(source) and (source.startswith("/dev/") or not Path(source).exists())


def _is_countable(source: str) -> bool:
    from ad_dinov3.data.decode import IMAGE_SUFFIXES

    path = Path(source)
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
