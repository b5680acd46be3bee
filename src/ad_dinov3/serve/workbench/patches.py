"""How alike the patches of an image are, and which patch of the good images is nearest (Figure 1 of AD-DINOv3).

The similarity is the cosine of comparison tokens, which are what images are compared by (`references.tokens`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.predict.memory import MEMORY_MB
from ad_dinov3.predict.results import Row
from ad_dinov3.references.tokens import Floats
from ad_dinov3.serve.judge import BusyError
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.teaching import MOST_GOOD

_KEPT = MOST_GOOD + 16  # images whose tokens are kept: at most 40 x 40 x 128 in half precision each, 90 MB in all
_WAITING = 4  # requests at once, so that others still find a thread


@dataclass(frozen=True)
class Cell:
    """A patch: its place (row, column) on a grid (h, w) over an image."""

    image: str
    place: tuple[int, int]
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Similar:
    """What a patch is like.

    Attributes:
        cell: the patch.
        map: (h, w) in [-1, 1], the cosine of each patch of its image with it.
        nearest: of the patches of good images the one with the largest cosine; None: there are no good images.
        cosine: of that one.
    """

    cell: Cell
    map: Floats
    nearest: Cell | None
    cosine: float | None


class Patches:
    """Compares patches by the tokens that a model tells, computed when they are first asked for.

    Args:
        model: tells them.
    """

    def __init__(self, model: BenchModel) -> None:
        self._model = model
        self._kept: OrderedDict[str, NDArray[np.float16]] = OrderedDict()
        self.waiting = 0
        """Requests that are being answered or wait."""
        self._counting = Lock()
        self._computing = Lock()

    def similar(self, row: Row, x: float, y: float, good: Sequence[Row]) -> Similar:
        """What the patch at a point is like.

        Args:
            row: of its image.
            x, y: the point in shares of width and height, in [0, 1].
            good: rows of the good images to look for the nearest patch in; the image itself is left out.

        Raises:
            BusyError: too many ask at once.
            ImageError: a file cannot be decoded.
            ConfigError: the model does not tell its tokens.
        """
        with self._counted(), self._computing:
            tokens = self._tokens(row)
            grid = tokens.shape[0], tokens.shape[1]
            place = min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)
            wanted = tokens[place]
            nearest, cosine = self._nearest(wanted, [one for one in good if one.image != row.image])
            return Similar(Cell(row.image, place, grid), np.clip(tokens @ wanted, -1, 1), nearest, cosine)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            if self.waiting == _WAITING:
                raise BusyError("as many patches are being compared as may be; try again")
            self.waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self.waiting -= 1

    def _nearest(self, wanted: Floats, good: Sequence[Row]) -> tuple[Cell | None, float | None]:
        found, most = None, None
        for row in good:
            cosines = self._tokens(row) @ wanted
            highest = float(cosines.max())
            if most is None or highest > most:
                height, width = cosines.shape
                line, column = divmod(int(cosines.argmax()), width)
                found, most = Cell(row.image, (line, column), (height, width)), highest
        return found, most

    def _tokens(self, row: Row) -> Floats:
        """Tokens (h, w, D) of an image."""
        key = row.key or row.path
        if key not in self._kept:
            image = ImageFile(Path(row.path), row.image).load_within(MEMORY_MB * 2**20)
            self._kept[key] = self._model.tokens(image.pixels, row.class_name or "object").astype(np.float16)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key].astype(np.float32)
