"""From a name or a path to files on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.errors import WeightsError
from ad_dinov3.weights.table import NANO

_NANO_FOLDER = Path(__file__).parents[1] / "encoders" / "nano"


@dataclass(frozen=True)
class WeightSource:
    """Where one model's weights lie: its name, and a folder or a file."""

    name: str
    path: Path


def resolve_weights(name_or_path: str, *, offline: bool = False) -> WeightSource:
    """Find a model's weights."""
    if name_or_path == NANO:
        return WeightSource(NANO, _NANO_FOLDER)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return WeightSource(path.name, path)
    raise WeightsError(f"no weights at {name_or_path}")
