"""What the images in hand may take together: each takes its part before decoding, and gives it back when written.

One that would take more than all of it is decoded reduced where its format lets that be, and is refused otherwise.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ImageError

MEMORY_MB = 900
"""For the images in hand of a run, in MiB."""


@dataclass(frozen=True)
class MakeRoom:
    """Comes along with images: the next one waits until one of those before it is finished."""


MAKE_ROOM = MakeRoom()


class Memory:
    """The memory of a run.

    Args:
        limit_mb: for all images in hand, in MiB.

    Attributes:
        limit: the same in bytes.
    """

    def __init__(self, limit_mb: int) -> None:
        self.limit = limit_mb * 2**20
        self._lock = threading.Lock()
        self._parts: dict[int, int] = {}  # bytes by the items' identities; items live longer than their parts

    def take(self, item: ImageFile) -> bool:
        """Whether there is room for an item, which then has it; one that takes more than there is takes nothing."""
        needed = self._needed(item)
        with self._lock:
            if self._parts and self.limit >= needed > self.limit - sum(self._parts.values()):
                return False
            if needed <= self.limit:
                self._parts[id(item)] = needed
            return True

    def give_back(self, item: ImageFile) -> None:
        """Let others have an item's part."""
        with self._lock:
            self._parts.pop(id(item), None)

    def _needed(self, item: ImageFile) -> int:
        """What an image takes at most, from decoding to written results; 0 where its header is broken."""
        try:
            header = item.header()
        except ImageError:  # decoding will say it, too
            return 0
        return self.limit // 4 if header is None else header.within(self.limit).bytes_in_hand
