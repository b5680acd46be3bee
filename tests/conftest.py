"""Small models and data sets that many tests share; everything is made here, deterministic and offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

# plain_clip, toy_detector, tiny_models, bench_toys, official_trees, live_service, images
sys.path += [
    str(Path(__file__).parent / room) for room in ("methods", "infer", "export", "bench", "data", "serve", "attack")
]
import plain_clip

torch.set_num_threads(1)
# The same examples in every run, and no clock: a loaded machine must not fail a test.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _no_user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a test lie in its temporary folder, and nothing is downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("AD_DINOV3_CACHE", "AD_DINOV3_WEIGHTS", "AD_DINOV3_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a random CLIP in OpenAI's layout."""
    folder = tmp_path_factory.mktemp("clip")
    plain_clip.save_clip(folder)
    return str(folder / "clip.pt")


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random 4-block DINOv3 ViT in the layout of Hugging Face: patch 8, 16 channels, 2 registers."""
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_register_tokens=2,
    )
    folder = tmp_path_factory.mktemp("tiny_vit")
    DINOv3ViTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random DINOv3 ConvNeXt in the layout of Hugging Face: widths 8, 12, 16, 20."""
    torch.manual_seed(0)
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    folder = tmp_path_factory.mktemp("tiny_convnext")
    DINOv3ConvNextModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in MVTec AD's shape: noise, and noise with a bright square; 4 normal and 6 anomalous images."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for index in range(10):
        image = rng.integers(60, 100, (40, 48, 3), dtype=np.uint8)
        defect = "good" if index < 4 else "square"
        folder = root / "tile" / "test" / defect
        folder.mkdir(parents=True, exist_ok=True)
        if defect == "square":
            top, left = rng.integers(4, 24, 2)
            mask = np.zeros((40, 48), np.uint8)
            mask[top : top + 12, left : left + 12] = 255
            image[mask > 0] = 230
            masks = root / "tile" / "ground_truth" / defect
            masks.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(masks / f"{index:03d}_mask.png")
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images with masks; tests that need it are skipped where it is absent."""
    named = os.environ.get("AD_DINOV3_TEST_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    if not Path(named).is_dir():
        pytest.skip(f"real images are absent: {named} (set AD_DINOV3_TEST_DATA)")
    return Path(named)
