"""What is said where a model is made or used: what it promises of false alarms, and the command that uses it."""

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


def print_use(console: Console, what: str, model: object) -> None:
    """What has been made, and the command that uses the model, in one line to be copied."""
    console.print(f"{what}; use it: ad-dinov3 predict IMAGES -o OUT --model {model}", highlight=False, soft_wrap=True)
