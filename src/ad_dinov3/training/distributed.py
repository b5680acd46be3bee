"""Training by several processes that ``torchrun`` starts: each takes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among all: ``rank`` of ``world``; ``is_ours`` if `join` connected them, and not the caller."""

    rank: int = 0
    world: int = 1
    is_ours: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, images: int) -> slice:
        """This process's part of a step's images; where there are too few, the first one, without weight."""
        return slice(self.rank, None, self.world) if self.rank < images else slice(0, 1)

    def weight(self, images: int) -> int:
        """How many of a step's images count as this process's."""
        return len(range(self.rank, images, self.world))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Wait for all processes, then end what `join` began: a process that exits alone can break the others off."""
        self.wait()
        if self.is_ours:
            dist.destroy_process_group()


def join(device: str) -> Ranks:
    """Join the processes that ``torchrun`` started; alone without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    is_ours = not dist.is_initialized()
    if is_ours:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), is_ours)


def average_gradients(module: nn.Module, ranks: Ranks, images: int) -> None:
    """Replace each gradient by its mean over the images of all processes: the losses are means over images.

    Args:
        module: every process holds the same parameters.
        ranks: this process among all.
        images: how many images this process's gradients are a mean of.
    """
    if ranks.world == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    total = torch.tensor(float(images), device=gradients[0].device)
    dist.all_reduce(total)
    for gradient in gradients:
        gradient.mul_(images / total)
        dist.all_reduce(gradient)


def average_losses(losses: Mapping[str, Tensor], ranks: Ranks, images: int) -> dict[str, float]:
    """The mean of each term over the images of all processes; arguments as in `average_gradients`."""
    values = torch.stack([value.detach().double() for value in losses.values()])
    if ranks.world > 1:
        weighted = torch.cat([values * images, values.new_tensor([images])])
        dist.all_reduce(weighted)
        values = weighted[:-1] / weighted[-1]
    return dict(zip(losses, values.tolist(), strict=True))
