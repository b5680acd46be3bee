"""The stages that join a small backbone's own: filter responses against scipy, the half image against the backbone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbone_models import STAGE_WIDTHS, saved, tiny_convnext
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ad_dinov3.encoders.backbone import FrozenBackbone, load_backbone
from ad_dinov3.encoders.context import FILTER_WIDTH, ContextStages, FilterBank

NO_CHANGE = (0.0,) * 3, (1.0,) * 3
CELL = 8


def grainy(height: int, width: int) -> NDArray[np.float64]:
    """Smooth noise in [0, 1]."""
    noise = np.random.default_rng(3).random((height, width))
    return np.clip(ndimage.gaussian_filter(noise, 1) * 2 - 0.5, 0, 1)


def filtered(colour: NDArray[np.float64]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(colour).float().permute(2, 0, 1)[None]
    return FilterBank(*NO_CHANGE, CELL)(pixels)[0].numpy()


def cells(plane: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    return plane.reshape(plane.shape[0] // side, side, plane.shape[1] // side, side)


@pytest.fixture
def context_encoder(tmp_path: Path) -> FrozenBackbone:
    path = saved(tiny_convnext(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "grid_stride": CELL, "context": True}))
    return load_backbone(path)


@pytest.mark.parametrize(("scale", "shrink", "sigma"), [(0, 1, 1), (1, 1, 2), (2, 2, 2), (3, 4, 2)])
def test_filter_responses_equal_those_of_scipy(scale: int, shrink: int, sigma: int) -> None:
    grey = grainy(48, 64)
    level = cells(grey, shrink).mean((1, 3))
    mean, square = (ndimage.gaussian_filter(x, sigma, mode="nearest", truncate=3) for x in (level, level**2))
    rows, columns = (ndimage.correlate1d(mean, [-0.5, 0, 0.5], axis=axis, mode="nearest") for axis in (0, 1))
    laplacian = ndimage.laplace(mean, mode="nearest")
    expected = [mean, np.hypot(rows, columns), laplacian, np.sqrt(np.maximum(square - mean**2, 0))]
    found = filtered(np.repeat(grey[..., None], 3, 2))
    for index, plane in enumerate(expected):
        np.testing.assert_allclose(found[..., 4 * scale + index], cells(plane, CELL // shrink).mean((1, 3)), atol=2e-5)
    if scale < 3:
        largest = cells(np.abs(laplacian), CELL // shrink).max((1, 3))
        np.testing.assert_allclose(found[..., 16 + 2 * scale + 1], largest, atol=2e-5)


def test_grey_images_have_no_colour_responses_and_coloured_ones_do() -> None:
    grey = np.repeat(grainy(32, 32)[..., None], 3, 2)
    assert not filtered(grey)[..., -2:].any()
    red = grey.copy()
    red[8:16, 8:16, 0] += 0.3
    assert (np.abs(filtered(red)[1, 1, -2:]) > 0.1).all()


def test_context_stages_are_filters_then_the_image_then_its_half(context_encoder: FrozenBackbone) -> None:
    module = context_encoder.module
    assert isinstance(module, ContextStages)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    features = context_encoder.encode(images)
    assert context_encoder.spec.widths == (FILTER_WIDTH, *STAGE_WIDTHS, *STAGE_WIDTHS[2:])
    assert features.grid == (8, 12)
    pixels = context_encoder.normalise(images)
    with torch.no_grad():
        own, half = module.staged(pixels), module.staged(F.avg_pool2d(pixels, 2))
        filters = module.filters(pixels)
    torch.testing.assert_close(features.patch_tokens[0], filters)
    for found, expected in zip(features.patch_tokens[1:5], own.patch_tokens, strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(features.patch_tokens[5:], half.patch_tokens[2:], strict=True):
        torch.testing.assert_close(found, enlarged(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (24, 56), (40, 8)])
def test_context_takes_any_multiple_of_the_cell(context_encoder: FrozenBackbone, size: tuple[int, int]) -> None:
    features = context_encoder.encode(torch.zeros(1, 3, *size, dtype=torch.uint8))
    assert features.grid == (size[0] // CELL, size[1] // CELL)
    assert all(torch.isfinite(tokens).all() for tokens in features.patch_tokens)


def test_context_changes_the_fingerprint(context_encoder: FrozenBackbone, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "context": False}))
    plain = load_backbone(str(tmp_path))
    assert plain.spec.fingerprint != context_encoder.spec.fingerprint
    assert len(plain.spec.widths) == len(STAGE_WIDTHS)


def enlarged(tokens: Tensor) -> Tensor:
    """Twice the grid, bilinear, by scipy."""
    size = (2 * tokens.shape[1], 2 * tokens.shape[2])
    plane = tokens.permute(0, 3, 1, 2)
    rows, columns = ((np.arange(n) + 0.5) / 2 - 0.5 for n in size)
    at = np.meshgrid(rows, columns, indexing="ij")
    maps = [ndimage.map_coordinates(c.numpy(), at, order=1, mode="nearest") for c in plane.flatten(0, 1)]
    return torch.from_numpy(np.stack(maps)).reshape(*plane.shape[:2], *size).permute(0, 2, 3, 1)
