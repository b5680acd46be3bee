"""What the images in hand may take together: each takes its part before decoding, and gives it back when written."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ImageError


@dataclass(frozen=True)
class MakeRoom:
    """Comes along with images: the next one waits until one of those before it is finished."""


MAKE_ROOM = MakeRoom()


class Memory:
    """The memory of a run.

    Args:
        limit_mb: for all images in hand, in MiB.
    """

    def __init__(self, limit_mb: int) -> None:
        self._limit = limit_mb * 2**20
        self._lock = threading.Lock()
        # bytes by the items' identities; items live longer than their parts
        self._parts: dict[int, int] = {}
        self._too_large: dict[int, int] = {}

    def take(self, item: ImageFile) -> bool:
        """Whether there is room for an item, which then has it; one that takes more than there is takes nothing."""
        needed = bytes_in_hand(item, unknown=self._limit // 4)
        with self._lock:
            if needed > self._limit:
                self._too_large[id(item)] = needed
            elif self._parts and sum(self._parts.values()) + needed > self._limit:
                return False
            else:
                self._parts[id(item)] = needed
            return True

    def check(self, item: ImageFile) -> None:
        """Refuse an item that takes more than there is.

        Raises:
            ImageError: it does.
        """
        needed = self._too_large.pop(id(item), 0)
        if needed:
            raise ImageError(
                item.where,
                f"takes {needed / 1e9:.1f} GB to decode and judge, more than the limit of {self._limit / 1e9:.1f} GB; "
                "a decompression bomb, or an image to cut into tiles first",
            )

    def give_back(self, item: ImageFile) -> None:
        """Let others have an item's part."""
        with self._lock:
            self._parts.pop(id(item), None)


def bytes_in_hand(item: ImageFile, unknown: int) -> int:
    """What an image takes at most, from decoding to written results; 0 where its header is broken."""
    try:
        header = item.header()
    except ImageError:  # decoding will say it, too
        return 0
    if header is None:
        return unknown
    return header.bytes_in_hand
