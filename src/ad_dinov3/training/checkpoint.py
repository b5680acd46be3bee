"""The state of a training run at the end of an epoch, as safetensors: no pickle is read or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ad_dinov3.errors import TrainingError
from ad_dinov3.training.output import CHECKPOINT
from ad_dinov3.weights.tensors import write_tensors

_HEAD, _OPTIMISER = "head/", "optimiser/"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its run.

    Attributes:
        epochs: how many are complete.
        identity: settings and data; only an equal run may go on from it.
    """

    epochs: int
    identity: str


def write_checkpoint(folder: Path, checkpoint: Checkpoint, head: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Replace the folder's checkpoint by this one; a kill leaves the old or the new one whole."""
    tensors = {f"{_HEAD}{name}": tensor for name, tensor in head.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMISER}{index}/{name}": value for name, value in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"epochs": str(checkpoint.epochs), "identity": checkpoint.identity}
    write_tensors(folder / CHECKPOINT, tensors, metadata)


def read_checkpoint(folder: Path, head: nn.Module, optimiser: torch.optim.Optimizer, device: str) -> Checkpoint | None:
    """Put the folder's checkpoint into head and optimiser; None if there is none.

    Raises:
        TrainingError: the file is damaged or of another head.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head.load_state_dict({k.removeprefix(_HEAD): v for k, v in tensors.items() if k.startswith(_HEAD)})
    except (SafetensorError, RuntimeError, OSError, KeyError) as error:
        raise TrainingError(
            f"{path}: cannot be resumed ({error}); give --overwrite in place of --resume to start anew"
        ) from None
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMISER):
            index, _, key = name.removeprefix(_OPTIMISER).partition("/")
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return Checkpoint(int(metadata["epochs"]), metadata["identity"])
