"""A folder that fills up: which of its images are whole, and new."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ad_dinov3.data.streams import ImageFile, find_images


@dataclass
class _Seen:
    version: tuple[object, ...]
    since: float
    is_taken: bool = False


@dataclass(eq=False)
class Arrivals:
    """The images of a folder, each once as soon as nobody writes to it any more, and again when it has changed.

    The folder is looked through anew each time, so that new sub-folders, network drives and files that were moved there
    are no special cases.

    Args:
        folder: searched recursively, as `find_images` does.
        quiet_s: a file whose size and time of change have stayed for so many seconds is whole.
        clock: seconds.
    """

    folder: Path
    quiet_s: float = 0.5
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Path, _Seen] = field(init=False, default_factory=dict)

    def settled(self) -> list[ImageFile]:
        """What is whole now and has not been given before, in natural order; nothing while the folder is away."""
        if not self.folder.is_dir():
            return []
        now, found, there = self.clock(), [], set()
        for item in find_images([str(self.folder)]):
            there.add(item.path)
            try:
                version = item.version()
            except OSError:
                continue  # it is gone again, or cannot be asked yet
            seen = self._seen.get(item.path)
            if seen is None or seen.version != version:
                self._seen[item.path] = seen = _Seen(version, now)
            if not seen.is_taken and now - seen.since >= self.quiet_s:
                seen.is_taken = True
                found.append(item)
        self._seen = {path: seen for path, seen in self._seen.items() if path in there}
        return found
