"""Checkpoints in the format of the authors' code: a dictionary of three modules, each of fc1 and an unused fc2.

    {"patch_token_adapter": {"0.fc1.0.weight": (768, C), "0.fc2.0.weight": (C, 768), ...},   one pair per stage
     "cls_token_adapter": the same,
     "prompt_adapter": {"0.fc1.0.weight": (768, 768), ...}}                                  0 normal, 1 abnormal

That code keeps LeakyReLU(fc1 x) and drops what fc2 makes of it, so fc2 is checked, not kept, and written as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.methods.ad_dinov3 import AdDinoV3

_MODULES = {  # theirs -> ours
    "patch_token_adapter": "patch_adapters",
    "cls_token_adapter": "cls_adapters",
    "prompt_adapter": "text_adapters",
}


def load_released(head: AdDinoV3, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a released checkpoint into a head.

    Args:
        head: with linear adapters, as the preset ``released`` makes it.
        tensors: names joined by dots, such as ``patch_token_adapter.0.fc1.0.weight``.
        origin: the file, for messages.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
        ConfigError: the head has adapters that the format cannot hold.
    """
    wanted = {f"{module}.{name}": rows for module, part in to_released(head).items() for name, rows in part.items()}
    checked = checked_state(origin, tensors, wanted)
    # The prompts are not in their file: they stay as they were baked.
    adapters = {
        f"{ours}.{i}.first.weight": checked[f"{theirs}.{i}.fc1.0.weight"] for theirs, ours, i in _adapters(head)
    }
    head.load_state_dict(head.state_dict() | adapters)


def to_released(head: AdDinoV3) -> dict[str, dict[str, Tensor]]:
    """A head as the authors' code would save it; ``torch.save`` writes it.

    Raises:
        ConfigError: the head has adapters that the format cannot hold.
    """
    config = head.config
    if config.adapter != "linear" or config.residual or head.learned_prompts or config.stages == "last":
        raise ConfigError("the released format holds linear adapters of all stages on text prompts, without residual")
    state = head.state_dict()  # prompts are not in the format: the authors bake them anew at every start
    tree: dict[str, dict[str, Tensor]] = {name: {} for name in _MODULES}
    for theirs, ours, i in _adapters(head):
        first = state[f"{ours}.{i}.first.weight"].cpu()  # (768, C)
        tree[theirs] |= {
            f"{i}.fc1.0.weight": first.clone(),
            f"{i}.fc2.0.weight": torch.zeros_like(first.mT),
        }  # (C, 768)
    return tree


def _adapters(head: AdDinoV3) -> list[tuple[str, str, int]]:
    """(their module, ours, index) of each adapter."""
    return [(theirs, ours, i) for theirs, ours in _MODULES.items() for i in range(len(getattr(head, ours)))]
