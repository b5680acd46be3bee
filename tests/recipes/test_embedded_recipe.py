"""The recipe of the embedded model: resumable to the bit, and what it packages computes what it trained."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ad_dinov3.model import load_model


@pytest.fixture
def pretrain() -> ModuleType:
    return importlib.import_module("recipes.embedded.pretrain")


def trained(pretrain: ModuleType, out: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The averaged weights of four steps, interrupted after each of ``stops``."""
    out.mkdir(exist_ok=True)
    recipe = pretrain.Recipe("none", 4, size_px=64, fresh=1, replayed=1, memory=2, mix=(0.0, 0.0, 1.0))
    source = pretrain.Source([], recipe.size_px, recipe.mix, recipe.materials)
    for stop in (*stops, recipe.steps):
        run = pretrain.Run(recipe, None)
        run.resume(out)
        for images, masks in pretrain.batches(source, recipe, run.step):
            run.advance(images, masks)
            if run.step == stop:
                break
        run.save(out)
    run.export(out)
    state: dict[str, torch.Tensor] = run.average.state_dict()
    return state


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(pretrain: ModuleType, tmp_path: Path) -> None:
    unbroken, resumed = trained(pretrain, tmp_path / "a", ()), trained(pretrain, tmp_path / "b", (1, 3))
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_frozen_backbone_stays_as_it_started(pretrain: ModuleType) -> None:
    recipe = pretrain.Recipe("none", 2, size_px=64, frozen=True)
    run = pretrain.Run(recipe, None)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, 0, 8:24, 8:24] = 1
    run.advance(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), masks)
    changed = {name for name, tensor in run.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_the_packaged_model_gives_the_map_that_was_trained(
    pretrain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = importlib.import_module("recipes.embedded.package")

    trained(pretrain, tmp_path / "run", ())
    places = ["--backbone", tmp_path / "nano", "--model", tmp_path / "model"]
    arguments = ["--run", tmp_path / "run", "--data", tmp_path, *places, "--input", "64"]
    monkeypatch.setattr(sys, "argv", ["package.py", *map(str, arguments)])
    package.main()
    model = load_model(tmp_path / "model", offline=True)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    run = pretrain.Run(pretrain.Recipe("none", 4, size_px=64), None)
    run.resume(tmp_path / "run")
    run.average.backbone.half().float()  # as on disk
    with torch.no_grad():
        outputs = run.average(images / 255)
        expected = torch.stack([out.patch_logits[:, 1] - out.patch_logits[:, 0] for out in outputs]).mean(0).sigmoid()
    found = model.head.score(model.encoder.encode(images), ["object"] * 2).patch_map
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
