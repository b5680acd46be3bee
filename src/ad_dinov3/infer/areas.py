"""Where in its images a product is looked at: polygons to inspect and to ignore, kept beside a model or its results.

Burnt-in text, the edge of a tray or a label is strange to every model and no defect. What is ignored takes part in no
decision, mask or region; the anomaly map itself stays as the model gave it, so that other areas need no new scoring.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ad_dinov3.errors import ConfigError
from ad_dinov3.files import write_text

AREAS_FILE = "areas.json"
_FORMAT_VERSION = 1
_LEAST_CHANCE = 1e-6
Share = Annotated[float, Field(ge=0, le=1)]
Polygon = Annotated[tuple[tuple[Share, Share], ...], Field(min_length=3, max_length=1000)]
Polygons = Annotated[tuple[Polygon, ...], Field(max_length=1000)]


@dataclass(frozen=True)
class Areas:
    """Polygons as corners (x, y) in shares of an image's width and height, so that they hold at every size.

    Attributes:
        inspect: what is looked at; if there is none, all of the image is.
        ignore: what is not, inside of ``inspect`` too.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    inspect: Polygons = ()
    ignore: Polygons = ()

    @property
    def is_empty(self) -> bool:
        """Whether all of every image is looked at."""
        return not self.inspect and not self.ignore

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels (H, W) of an image of ``size`` that are looked at: those whose centre lies inside."""
        looked_at = _inside_any(self.inspect, size) if self.inspect else np.ones(size, bool)
        return looked_at & ~_inside_any(self.ignore, size) if self.ignore else looked_at


ALL_OF_IT = Areas()
"""All of every image is looked at."""


def _inside_any(polygons: Sequence[Polygon], size: tuple[int, int]) -> NDArray[np.bool_]:
    inside = np.zeros(size, bool)
    for polygon in polygons:
        inside |= _inside(polygon, size)
    return inside


def _inside(polygon: Polygon, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre has an odd number of the polygon's edges to its left."""
    height, width = size
    corners = np.array(polygon, np.float64) * (width, height)
    turns = np.zeros((height, width + 1), bool)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
        crossing = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0) if rows.size else centres[:0]
        turns[rows, np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)] ^= True
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(turns, axis=1)[:, :width]
    return inside


def score_within(score: float, anomaly_map: NDArray[np.float32], looked_at: NDArray[np.bool_]) -> float:
    """The image score that counts where only a part of the image is looked at.

    It falls, in log odds, by as much as the map's peak does; a peak inside the part leaves it as it is. So it never
    rises, and a promise of false alarms goes on to hold; for models whose score is the map's peak it is the part's.

    Args:
        score: of the whole image, in [0, 1].
        anomaly_map: (H, W) in [0, 1].
        looked_at: (H, W).
    """
    peak, inside = float(anomaly_map.max()), float(anomaly_map.max(where=looked_at, initial=0.0))
    if inside >= peak:
        return score
    odds = _log_odds(score) - _log_odds(peak) + _log_odds(inside)
    return min(score, 1 / (1 + math.exp(-odds)))


def _log_odds(chance: float) -> float:
    kept = min(max(chance, _LEAST_CHANCE), 1 - _LEAST_CHANCE)
    return math.log(kept / (1 - kept))


def read_areas(folder: Path) -> Areas | None:
    """The areas of a model or of results; None if the folder says nothing of them.

    Raises:
        ConfigError: the file cannot be read as areas.
    """
    file = folder / AREAS_FILE
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        version = tree.pop("format_version")
        if version != _FORMAT_VERSION:
            raise ValueError(f"version {version}, expected {_FORMAT_VERSION}")
        return TypeAdapter(Areas).validate_python(tree)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise ConfigError(f"{file}: not polygons in shares of width and height ({wrong})") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read as areas ({error}); draw them again in the workbench") from None


def write_areas(folder: Path, areas: Areas, *, keep_empty: bool = False) -> None:
    """Write a folder's areas.json; if all of every image is looked at, it is removed, unless it is to say just that."""
    if areas.is_empty and not keep_empty:
        (folder / AREAS_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / AREAS_FILE, json.dumps({"format_version": _FORMAT_VERSION, **asdict(areas)}))
