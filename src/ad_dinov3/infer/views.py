"""How a model looks at an image: whole and squashed to its input, in tiles, or whole with its aspect kept."""

from __future__ import annotations

from dataclasses import dataclass

from ad_dinov3.data.transforms import Interpolation
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.infer.tiles import Fitted, Tiled


@dataclass(frozen=True)
class View:
    """A way to look at an image.

    Attributes:
        tile_px: longer side of a tile in px of the image; None: no tiles.
        overlap: share of a tile that it has in common with the next one, in [0, 0.9].
        keep_aspect: fit the image into the input without changing its aspect; tiles keep it anyway.
    """

    tile_px: int | None = None
    overlap: float = 0.25
    keep_aspect: bool = False

    @property
    def words(self) -> str:
        """The view in words; empty for the whole image, squashed."""
        if self.tile_px is not None:
            return f"in tiles of {self.tile_px} px, overlap {self.overlap}"
        return "with its aspect kept" if self.keep_aspect else ""

    def of(self, scorer: Scorer, size: tuple[int, int], interpolation: Interpolation) -> Scorer:
        """A scorer that looks in this way.

        Args:
            scorer: takes inputs of ``size`` (h, w) px.
            size: of its input.
            interpolation: antialiased filter of the resize.

        Raises:
            ConfigError: tiles of less than 16 px, or an overlap out of range.
        """
        if self.tile_px is not None:
            return Tiled(scorer, size, self.tile_px, self.overlap)
        return Fitted(scorer, size, interpolation) if self.keep_aspect else scorer


WHOLE = View()
"""The whole image, squashed to the input."""
