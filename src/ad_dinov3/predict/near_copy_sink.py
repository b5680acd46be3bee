"""The sink that notices images which are nearly normal ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ad_dinov3.data.near_copies import NearCopies, near_copy_words
from ad_dinov3.predict.types import Failure, Result


class NearCopySink:
    """Gathers near copies of normal images, and tells of them when a run is closed; a watch closes many.

    Args:
        normals: class name -> files of normal images.
        tell: told what a person should read, if there are any.

    Attributes:
        known: class name -> what finds near copies of its normal images.
    """

    def __init__(
        self,
        normals: Mapping[str, Sequence[Path]] = MappingProxyType({}),
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._tell = tell
        self.known = {name: NearCopies(paths) for name, paths in normals.items()}
        self._copies: list[tuple[str, Path]] = []

    def write(self, result: Result) -> None:
        """Look at one image."""
        self.note(result.scored.item.name, original_of(result, self.known))

    def note(self, name: str, original: Path | None) -> None:
        """Take down which normal image an image is a near copy of, if it is one."""
        if original is not None:
            self._copies.append((name, original))

    def fail(self, failure: Failure) -> None:
        """An image that cannot be done is no copy."""

    def close(self) -> None:
        """Tell of those that have come since the last time."""
        if self._copies:
            self._tell(near_copy_words(sorted(self._copies)))
            self._copies.clear()


def original_of(result: Result, known: Mapping[str, NearCopies]) -> Path | None:
    """The normal image of an image's own class that it is a near copy of, if there is one."""
    copies = known.get(result.prediction.class_name)
    return None if copies is None else copies.original(result.scored.image)
