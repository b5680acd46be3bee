"""The sink that notices images which are nearly normal ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ad_dinov3.data.near_copies import NearCopies, near_copy_words
from ad_dinov3.predict.types import Failure, Result


class NearCopySink:
    """Gathers near copies of normal images, and tells of them when a run is closed; a watch closes many.

    Args:
        normals: class name -> files of normal images.
        tell: told what a person should read, if there are any.
    """

    def __init__(self, normals: Mapping[str, Sequence[Path]], tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._by_class = {name: NearCopies(paths) for name, paths in normals.items()}
        self._copies: list[tuple[str, Path]] = []

    def write(self, result: Result) -> None:
        """Look at one image."""
        known = self._by_class.get(result.prediction.class_name)
        original = None if known is None else known.original(result.scored.image)
        if original is not None:
            self._copies.append((result.scored.item.name, original))

    def fail(self, failure: Failure) -> None:
        """An image that cannot be done is no copy."""

    def close(self) -> None:
        """Tell of those that have come since the last time."""
        if self._copies:
            self._tell(near_copy_words(sorted(self._copies)))
            self._copies.clear()
