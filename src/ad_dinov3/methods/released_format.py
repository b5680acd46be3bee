"""Checkpoints in the format of the authors' code: a dictionary of three modules, each of fc1 and an unused fc2.

    {"patch_token_adapter": {"0.fc1.0.weight": (768, C), "0.fc2.0.weight": (C, 768), ...},   one pair per stage
     "cls_token_adapter": the same,
     "prompt_adapter": {"0.fc1.0.weight": (768, 768), ...}}                                  0 normal, 1 abnormal

That code keeps LeakyReLU(fc1 x) and drops what fc2 makes of it, so fc2 is checked, not kept, and written as zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods.ad_dinov3 import AdDinoV3

_MODULES = {
    "patch_token_adapter": "patch_adapters",
    "cls_token_adapter": "cls_adapters",
    "prompt_adapter": "text_adapters",
}
_KEY = re.compile(r"(\w+)\.(\d+)\.(fc1|fc2)\.0\.weight")


def load_released(head: AdDinoV3, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a released checkpoint into a head.

    Args:
        head: with linear adapters, as the preset ``released`` makes it.
        tensors: names joined by dots, such as ``patch_token_adapter.0.fc1.0.weight``.
        origin: the file, for messages.

    Raises:
        WeightsError: names or shapes are not those of this head; all differences are listed.
    """
    wanted = {f"{theirs}.{i}.{part}.0.weight" for theirs, i, part in _parts(head)}
    if set(tensors) != wanted:
        raise WeightsError(
            f"{origin}: not a released AD-DINOv3 checkpoint for this encoder; "
            f"missing: {_names(wanted - set(tensors))}; unknown: {_names(set(tensors) - wanted)}"
        )
    state = head.state_dict()
    found = {
        f"{_MODULES[match[1]]}.{match[2]}.first.weight": tensor.float()
        for name, tensor in tensors.items()
        if (match := _KEY.fullmatch(name)) and match[3] == "fc1"
    }
    wrong = [
        f"{name}: expected {tuple(state[name].shape)}, found {tuple(tensor.shape)}"
        for name, tensor in found.items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise WeightsError(f"{origin}: shapes of another encoder: {'; '.join(wrong)}")
    head.load_state_dict(state | found)


def to_released(head: AdDinoV3) -> dict[str, dict[str, Tensor]]:
    """A head as the authors' code would save it; ``torch.save`` writes it.

    Raises:
        ConfigError: the head has adapters that the format cannot hold.
    """
    config = head.config
    if config.adapter != "linear" or config.residual or head.learned_prompts or config.stages == "last":
        raise ConfigError("the released format holds linear adapters of all stages on text prompts, without residual")
    state = head.state_dict()
    tree: dict[str, dict[str, Tensor]] = {name: {} for name in _MODULES}
    for theirs, i, part in _parts(head):
        first = state[f"{_MODULES[theirs]}.{i}.first.weight"].cpu()
        tree[theirs][f"{i}.{part}.0.weight"] = first.clone() if part == "fc1" else torch.zeros_like(first.mT)
    return tree


def _parts(head: AdDinoV3) -> list[tuple[str, int, str]]:
    counts = {theirs: len(getattr(head, ours)) for theirs, ours in _MODULES.items()}
    return [(theirs, i, part) for theirs, count in counts.items() for i in range(count) for part in ("fc1", "fc2")]


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
