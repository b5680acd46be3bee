"""SubspaceAD against numpy's principal components, patch by patch, on random encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.backbone import load_backbone, middle
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.methods.rotations import rotated
from ad_dinov3.methods.subspacead import blurred
from ad_dinov3.model import Model, load_model, new_model, save_model, with_normals

COPIES = 3


def model(encoder: Path, side: int = 32, energy: float = 0.9) -> Model:
    small = {"encoder": str(encoder), "input.height": side, "input.width": side}
    settings = {**small, "method.copies": COPIES, "method.energy": energy}
    return new_model(PRESETS["subspacead"].with_settings(settings), offline=True)


def patches(few: Model, image: torch.Tensor) -> NDArray[np.float64]:
    """The patches (T, C) of one image: means of the stages, or stages of unit length side by side."""
    stages = [stage[0].flatten(0, 1).double().numpy() for stage in few.encoder.encode(image[None]).patch_tokens]
    if len({stage.shape[1] for stage in stages}) == 1:
        return np.mean(stages, axis=0)
    return np.concatenate([stage / np.linalg.norm(stage, axis=1, keepdims=True) for stage in stages], axis=1)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_map_and_score_equal_principal_components_of_numpy(kind: str, request: pytest.FixtureRequest) -> None:
    side = 32 if kind == "vit" else 192
    few = model(request.getfixturevalue(f"tiny_{kind}"), side)
    image, normals = plain.images(1, side, side), plain.images(2, side, side, seed=7)
    found = with_normals(few, "tile", normals).score(image, ["tile"])

    angles = [0.0, *np.random.default_rng(0).uniform(0, 345, COPIES)]
    copies = [copy for normal in normals for copy in rotated(normal[None], angles, "nearest", "zeros")]
    known = np.concatenate([patches(few, copy) for copy in copies])
    mean = known.mean(axis=0)
    _, lengths, directions = np.linalg.svd(known - mean, full_matrices=False)
    share = np.cumsum(lengths**2) / np.sum(lengths**2)
    basis = directions[: int(np.searchsorted(share, 0.9)) + 1]

    def residuals(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        found = [token - mean - sum((token - mean) @ one * one for one in basis) for token in tokens]
        return np.array([one @ one for one in found])

    usual = residuals(known).sum() / (len(known) - 1)
    far = torch.tensor(residuals(patches(few, image[0])) / usual)
    cells = int(len(far) ** 0.5)
    full = F.interpolate(far.reshape(1, 1, cells, cells), (side, side), mode="bilinear", align_corners=False)[:, 0]
    full = blurred(full.float())[0]
    torch.testing.assert_close(found.patch_map[0], full / (full + 1), atol=2e-3, rtol=0)
    top = float(full.flatten().sort().values[-round(0.01 * side * side) :].mean())
    assert float(found.image_score[0]) == pytest.approx(top / (top + 1), abs=2e-3)


def test_blur_is_a_gaussian_of_three_taps_with_mirrored_borders() -> None:
    maps = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0))
    weight = float(np.exp(-1 / 32))
    for y in range(4):
        for x in range(5):
            total = weights = 0.0
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    row, column = abs(y + down), abs(x + right)
                    row, column = min(row, 6 - row), min(column, 8 - column)
                    total += float(maps[0, row, column]) * weight ** (abs(down) + abs(right))
                    weights += weight ** (abs(down) + abs(right))
            assert float(blurred(maps)[0, y, x]) == pytest.approx(total / weights, abs=1e-6)


def test_a_vits_middle_blocks_are_taken_without_the_final_norm(tiny_vit: Path) -> None:
    assert (middle(24), middle(40)) == (tuple(range(14, 19)), tuple(range(23, 30)))
    assert (middle(12), middle(4), middle(1)) == ((7, 8, 9), (2, 3), (1,))
    few = model(tiny_vit)
    normed = load_backbone(str(tiny_vit), stages=(2, 3), offline=True)
    image = plain.images(1, 32, 32)
    raw, after = (each.encode(image).patch_tokens[0] for each in (few.encoder, normed))
    torch.testing.assert_close(normed.module.norm(raw), after)  # type: ignore[operator]
    assert few.encoder.spec.fingerprint != normed.spec.fingerprint


def test_all_variance_leaves_nothing_outside_and_a_flat_image_is_finite(tiny_vit: Path) -> None:
    normal = plain.images(1, 32, 32)
    flat = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    full = with_normals(model(tiny_vit, energy=1.0), "tile", normal)
    _, basis, _ = full.head.references.of("tile")  # type: ignore[union-attr, operator]
    assert basis.shape == (16, 16)
    for normals in (normal, flat):
        for one in (normal, flat):
            scores = with_normals(model(tiny_vit), "tile", normals).score(one, ["tile"])
            assert scores.patch_map.isfinite().all()
            assert 0 <= float(scores.image_score[0]) <= 1


def test_memory_is_small_and_the_same_in_any_order_and_after_saving(tiny_vit: Path, tmp_path: Path) -> None:
    normals = plain.images(3, 32, 32, seed=7)
    image = plain.images(1, 32, 32)
    few = with_normals(model(tiny_vit), "tile", normals)
    turned_round = with_normals(model(tiny_vit), "tile", normals.flip(0)).score(image, ["tile"])
    torch.testing.assert_close(few.score(image, ["tile"]).patch_map, turned_round.patch_map, atol=1e-4, rtol=0)
    save_model(few, tmp_path / "line")
    again = load_model(tmp_path / "line", offline=True)
    assert torch.equal(again.score(image, ["tile"]).patch_map, few.score(image, ["tile"]).patch_map)
    assert (tmp_path / "line" / "memory.safetensors").stat().st_size < 3000
    with pytest.raises(ConfigError, match="no reference images of nut; there are tile"):
        again.score(image, ["nut"])


def test_on_the_embedded_encoder_it_finds_a_spot_and_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    photos = [draw.integers(90, 110, (48, 48, 3)).astype(np.uint8) for _ in range(3)]
    odd = photos[0].copy()
    odd[10:30, 10:30] = (250, 20, 20)
    borrowed = load("embedded", method="subspacead", offline=True)
    assert isinstance(borrowed, Detector)
    settings = borrowed.config.with_settings({"method.copies": 2, "input.height": 128, "input.width": 128})
    detector = Detector(new_model(settings, offline=True), offline=True)
    assert "1 good part in 3" in str(detector.remember(photos[1:]))
    found = detector.predict(odd)
    assert found.is_anomalous
    assert found.anomaly_map[14:26, 14:26].mean() > found.anomaly_map[34:, 34:].mean()
