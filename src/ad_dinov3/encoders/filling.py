"""Putting read tensors into networks that were built empty, and telling one filled network from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ad_dinov3.errors import WeightsError


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network, built on any device, as float32; every tensor must fit and none may be left over.

    Raises:
        WeightsError: tensors that are missing, left over or of another shape; it names ``path``.
    """
    wanted = module.state_dict()
    problems = [f"{key} is missing" for key in wanted.keys() - state.keys()]
    problems += [f"{key} is not part of the model" for key in state.keys() - wanted.keys()]
    problems += [
        f"{key}: expected {tuple(wanted[key].shape)}, found {tuple(state[key].shape)}"
        for key in wanted.keys() & state.keys()
        if wanted[key].shape != state[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:4]) + ("; ..." if len(problems) > 4 else "")
        raise WeightsError(
            f"{path}: the tensors do not fit the model's configuration ({len(problems)} differences): {shown}. "
            f"Take config.json and weights from the same download, or remove config.json to have it inferred"
        )
    module.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)


def fingerprint(state: Mapping[str, Tensor], settings: Mapping[str, object]) -> str:
    """Hex sha256 over the tensors' names, shapes and float32 values and the settings; the file's layout has no say."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=list).encode())
    for key in sorted(state):
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
