"""What is promised of false alarms, printed where a model with a calibration is used or made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console


def print_promises(
    console: Console, promises: Mapping[str, str], normals: Mapping[str, Sequence[Path]] | None = None
) -> None:
    """One sentence for each class, and when it does not hold; also which normal images promise nothing."""
    from ad_dinov3.references.conformal import VOID

    for name, words in promises.items():
        console.print(f"{name}: {words}", highlight=False)
    for name, paths in (normals or {}).items():
        if name not in promises:
            count = f"{len(paths)} good image{'' if len(paths) == 1 else 's'}"
            console.print(f"{name}: compared with {count}, which promise nothing of false alarms", highlight=False)
    if promises:
        console.print(VOID, style="dim", highlight=False)
