"""Putting read tensors into networks that were built empty, and telling one filled network from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ad_dinov3.errors import WeightsError

_SHOWN = 16  # tensors of one kind that a message lists; a wrong model misses hundreds


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network, built on any device, as float32; every tensor must fit and none may be left over.

    Raises:
        WeightsError: tensors that are missing, left over or of another shape; it names ``path``.
    """
    try:
        checked = checked_state(str(path), state, module.state_dict())
    except WeightsError as error:
        raise WeightsError(
            f"{error}. Take config.json and weights from the same download, or remove config.json to have it inferred"
        ) from None
    module.load_state_dict({key: tensor.float() for key, tensor in checked.items()}, assign=True)


def checked_state(origin: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The found tensors in the wanted ones' types, after every name and shape was compared.

    Args:
        origin: the file, for messages.
        found: what it holds.
        wanted: what the model has, on any device.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted.keys() & found.keys()
        if wanted[key].shape != found[key].shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(wrong),
    }
    told = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise WeightsError(f"{origin}: the tensors do not fit this model; {'; '.join(told)}")
    return {key: tensor.to(wanted[key].dtype) for key, tensor in found.items()}


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def fingerprint(state: Mapping[str, Tensor], settings: Mapping[str, object]) -> str:
    """Hex sha256 over the tensors' names, shapes and float32 values and the settings; the file's layout has no say."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=list).encode())
    for key in sorted(state):
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
