"""Settings files of earlier layouts, brought to the present one.

Version 1 had AD-DINOv3's sections ``prompts``, ``method`` and ``loss`` in every file, and another method's settings
beside them as ``rival``. Version 2 has one section, ``method``, with the settings of the method that ``kind`` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FORMAT_VERSION: Final = 2
_SECTIONS_OF_1 = ("prompts", "method", "rival", "loss")


def upgraded(tree: Mapping[str, object]) -> dict[str, object]:
    """A settings tree of any version as one of the present version; what it does not know it leaves to validation."""
    if tree.get("format_version") != 1:
        return dict(tree)
    kept = {key: value for key, value in tree.items() if key not in _SECTIONS_OF_1}
    baseline, loss = tree.get("rival"), _section(tree, "loss")
    if isinstance(baseline, Mapping):
        method = dict(baseline)
        if "resolution" in loss and method.get("kind") != "winclip":  # WinCLIP is not trained, and has no loss
            method["loss_resolution"] = loss["resolution"]
    else:
        sections = {key: _section(tree, key) for key in ("prompts", "loss") if key in tree}
        method = {"kind": "ad_dinov3", **sections, **_section(tree, "method")}
    return kept | {"format_version": FORMAT_VERSION, "method": method}


def _section(tree: Mapping[str, object], key: str) -> dict[str, object]:
    section = tree.get(key)
    return dict(section) if isinstance(section, Mapping) else {}
