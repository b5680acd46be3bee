"""AnomalyDINO against a loop over patches, on random encoders, and as a method behind every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.methods.rotations import rotated
from ad_dinov3.model import Model, new_model, with_normals


def model(encoder: Path, side: int = 32) -> Model:
    small = {"encoder": str(encoder), "input.height": side, "input.width": side, "method.sigma_px": 1.5}
    return new_model(PRESETS["anomalydino"].with_settings(small), offline=True)


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def patches(encoder: Path, image: torch.Tensor, joined: bool) -> list[torch.Tensor]:
    """The patches of one image, row by row: of the last stage, or of all stages at unit length."""
    stages = load_backbone(str(encoder), offline=True).encode(image[None]).patch_tokens
    rows, columns = stages[0].shape[1:3]
    found = []
    for row in range(rows):
        for column in range(columns):
            each = [unit(stage[0, row, column]) for stage in stages]
            found.append(unit(torch.cat(each)) if joined else each[-1])
    return found


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_map_and_score_equal_a_loop_over_patches(kind: str, request: pytest.FixtureRequest) -> None:
    encoder, side = request.getfixturevalue(f"tiny_{kind}"), 32 if kind == "vit" else 192
    image, normals = plain.images(1, side, side), plain.images(2, side, side, seed=7)
    found = with_normals(model(encoder, side), "tile", normals).score(image, ["tile"])

    copies = [turned for normal in normals for turned in rotated(normal[None], [45 * turn for turn in range(8)])]
    bank = [patch for copy in copies for patch in patches(encoder, copy, kind == "convnext")]
    far = [min((1 - float(patch @ one)) / 2 for one in bank) for patch in patches(encoder, image[0], kind != "vit")]
    assert float(found.image_score[0]) == pytest.approx(max(far), abs=1e-5)  # one per cent of so few patches is one
    cells = int(len(far) ** 0.5)
    grid = torch.tensor(far).reshape(1, 1, cells, cells)
    full = F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(found.patch_map[0].numpy(), gaussian_filter(full, 1.5), atol=1e-5)


def test_score_is_the_mean_of_the_most_distant_patches(tiny_vit: Path) -> None:
    config = {"method.top_fraction": 0.25}
    settings = model(tiny_vit).config.with_settings(config)
    few_shot = with_normals(new_model(settings, offline=True), "tile", plain.images(1, 32, 32, seed=3))
    image = plain.images(1, 32, 32)
    tokens = few_shot.head.tokens(few_shot.encoder.encode(image)).flatten(1, 2)  # type: ignore[operator]
    far = few_shot.head.references.distances([tokens], ["tile"])[0][0] / 2  # type: ignore[union-attr, operator]
    expected = far.sort().values[-4:].mean()
    assert float(few_shot.score(image, ["tile"]).image_score[0]) == pytest.approx(float(expected), abs=1e-6)


def test_a_turned_normal_image_is_at_distance_zero_and_without_copies_it_is_not(tiny_vit: Path) -> None:
    normal = plain.images(1, 32, 32)
    turned = normal.rot90(1, (2, 3))
    plain_settings = model(tiny_vit).config.with_settings({"method.rotations": 1})
    maps = [
        with_normals(each, "tile", normal).score(turned, ["tile"]).patch_map.max()
        for each in (model(tiny_vit), new_model(plain_settings, offline=True))
    ]
    assert float(maps[0]) < 1e-6 < float(maps[1])


def test_it_says_what_it_needs_before_it_has_normal_images(tiny_vit: Path) -> None:
    with pytest.raises(ConfigError, match="no reference images of tile; give normal images with --normals"):
        model(tiny_vit).score(plain.images(1, 32, 32), ["tile"])


def test_it_borrows_the_embedded_encoder_is_calibrated_saved_and_opened_by_either_name(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    photos = [draw.integers(90, 110, (48, 48, 3)).astype(np.uint8) for _ in range(4)]
    odd = photos[0].copy()
    odd[10:30, 10:30] = (250, 20, 20)
    detector = load("embedded", method="anomalydino", offline=True)
    assert (detector.config.encoder, detector.config.input.size) == ("lite0", (256, 256))  # type: ignore[union-attr]

    promise = detector.remember(photos[1:])

    assert promise is not None
    assert "with your 3 good images about 1 good part in 4 will be flagged" in promise
    assert detector.threshold == 0.5
    found = detector.predict(odd)
    assert found.is_anomalous
    assert found.p_value == 0.25
    assert not detector.predict(photos[2]).is_anomalous
    detector.save_pretrained(tmp_path / "line")
    for method in (None, "anomalydino"):
        again = load(tmp_path / "line", method=method, offline=True)
        assert again.fingerprint == detector.fingerprint
        assert again.predict(odd).score == found.score
    other = load(tmp_path / "line", method="dinov3_plain", offline=True)
    assert other.normal_classes == ()
    assert other.promises == {}


def test_calibration_scores_are_those_of_models_without_the_image(tiny_vit: Path) -> None:
    photos = [plain.images(1, 32, 32, seed=seed)[0].permute(1, 2, 0).numpy() for seed in range(3)]
    detector = Detector(model(tiny_vit), offline=True)
    detector.remember([*photos, photos[0]])  # a copy is no further evidence
    found = detector.references.calibrations["object"]
    for index, photo in enumerate(photos):
        other = Detector(model(tiny_vit), offline=True)
        other.remember([one for place, one in enumerate(photos) if place != index])
        raw = other.zero_shot(other.prepare(photo)[None], ["object"])
        assert found.scores[index] == pytest.approx(float(raw.scores[0]), abs=1e-6)
        assert found.peaks[index] == pytest.approx(float(raw.maps.max()), abs=1e-6)
