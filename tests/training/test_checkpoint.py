"""A checkpoint brings a run back to the bits it had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ad_dinov3.errors import TrainingError
from ad_dinov3.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ad_dinov3.training.output import CHECKPOINT


def _run(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return head, torch.optim.AdamW(head.parameters(), lr=0.1)


def _step(head: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    head(torch.arange(12.0).reshape(4, 3)).square().mean().backward()
    optimiser.step()


def test_a_resumed_run_takes_the_steps_that_the_first_one_takes(tmp_path: Path) -> None:
    head, optimiser = _run(0)
    for _ in range(3):
        _step(head, optimiser)
    write_checkpoint(tmp_path, Checkpoint(3, "settings"), head, optimiser)
    other, other_optimiser = _run(1)
    assert read_checkpoint(tmp_path, other, other_optimiser, "cpu") == Checkpoint(3, "settings")
    for _ in range(3):
        _step(head, optimiser)
        _step(other, other_optimiser)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_folder_without_a_checkpoint_has_none_and_the_head_stays(tmp_path: Path) -> None:
    head, optimiser = _run(0)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    assert read_checkpoint(tmp_path, head, optimiser, "cpu") is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_a_damaged_file_is_refused_with_its_name_and_a_way_out(tmp_path: Path) -> None:
    head, optimiser = _run(0)
    write_checkpoint(tmp_path, Checkpoint(1, ""), head, optimiser)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(TrainingError, match=rf"{CHECKPOINT}: cannot be resumed .*--overwrite in place of --resume"):
        read_checkpoint(tmp_path, head, optimiser, "cpu")


def test_the_checkpoint_of_another_head_is_refused(tmp_path: Path) -> None:
    head, optimiser = _run(0)
    write_checkpoint(tmp_path, Checkpoint(1, ""), head, optimiser)
    other = nn.Linear(3, 2)
    with pytest.raises(TrainingError, match="cannot be resumed"):
        read_checkpoint(tmp_path, other, torch.optim.AdamW(other.parameters()), "cpu")


def test_a_later_checkpoint_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    head, optimiser = _run(0)
    for epochs in (1, 2):
        _step(head, optimiser)
        write_checkpoint(tmp_path, Checkpoint(epochs, "settings"), head, optimiser)
    found = read_checkpoint(tmp_path, *_run(0), "cpu")
    assert found == Checkpoint(2, "settings")
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
