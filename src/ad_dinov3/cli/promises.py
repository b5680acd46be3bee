"""What is promised of false alarms, printed where a model with a calibration is used or made."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console


def print_promises(console: Console, promises: Mapping[str, str]) -> None:
    """One sentence for each class, and when it does not hold; nothing for a model without a calibration."""
    from ad_dinov3.references.conformal import VOID

    for name, words in promises.items():
        console.print(f"{name}: {words}", highlight=False)
    if promises:
        console.print(VOID, style="dim", highlight=False)
