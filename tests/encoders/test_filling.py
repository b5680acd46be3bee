"""Tensors go into a network whole, or the refusal says which do not fit; equal networks have equal fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ad_dinov3.encoders.filling import fill, fingerprint
from ad_dinov3.errors import WeightsError

PATH = Path("weights.safetensors")


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in nn.Linear(3, 2).state_dict().items()}


def test_a_network_built_without_memory_computes_with_the_given_tensors_in_float32() -> None:
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    state = {name: tensor.half() for name, tensor in _state().items()}
    fill(module, state, PATH)
    inputs = torch.arange(6.0).reshape(2, 3)
    expected = inputs @ state["weight"].float().T + state["bias"].float()
    torch.testing.assert_close(module(inputs), expected)
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": None}, "1 missing: bias"),
        ({"extra": torch.zeros(1)}, "1 unknown: extra"),
        ({"weight": torch.zeros(3, 2)}, r"1 of another shape: weight \(3, 2\) instead of \(2, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named_with_the_file(change: dict[str, torch.Tensor | None], words: str) -> None:
    state = {name: tensor for name, tensor in {**_state(), **change}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=rf"weights\.safetensors: the tensors do not fit this model; {words}"):
        fill(nn.Linear(3, 2), state, PATH)


def test_a_refusal_leaves_the_network_as_it_was_and_counts_what_it_does_not_show() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(WeightsError, match=r"2 missing: bias, weight; 20 unknown: .* and 4 more"):
        fill(module, {f"other{index}": torch.zeros(1) for index in range(20)}, PATH)
    torch.testing.assert_close(module.weight.detach(), before)


def test_a_fingerprint_ignores_order_and_storage_and_follows_names_shapes_values_and_settings() -> None:
    state, settings = _state(), {"patch": 16}
    same = {name: state[name].double().clone() for name in reversed(list(state))}
    known = fingerprint(state, settings)
    assert fingerprint(same, settings) == known
    assert fingerprint({**state, "weight": state["weight"].T.contiguous().T}, settings) == known
    nudged = {**state, "bias": torch.nextafter(state["bias"], torch.tensor(9.0))}
    renamed = {"b" if name == "bias" else name: tensor for name, tensor in state.items()}
    reshaped = {**state, "weight": state["weight"].reshape(3, 2)}
    others = [fingerprint(other, settings) for other in (nudged, renamed, reshaped)]
    assert len({known, fingerprint(state, {"patch": 8}), *others}) == 5
