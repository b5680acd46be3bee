"""UniADet against loops over stages and patches: zero-shot, with normal images, its losses, and trained for real."""

from __future__ import annotations

import math
from pathlib import Path

import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F

from ad_dinov3.config import PRESETS
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.errors import ShapeError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.losses import focal_dice
from ad_dinov3.methods.uniadet import UniADet, late
from ad_dinov3.model import Model, load_model, new_model, with_normals
from ad_dinov3.training.loop import learning_rate, train
from ad_dinov3.types import Features


def model(encoder: Path) -> Model:
    small = {"encoder": str(encoder), "input.height": 32, "input.width": 32, "train.batch_size": 4, "train.epochs": 3}
    return new_model(PRESETS["uniadet"].with_settings(small), offline=True)


def parts(own: Model, seed: int = 0, count: int = 2) -> tuple[UniADet, Features]:
    assert isinstance(own.head, UniADet)
    return own.head, own.encoder.encode(plain.images(count, 32, 32, seed=seed))


def abnormal(token: torch.Tensor, vectors: torch.Tensor) -> float:
    """The softmax of two cosines over 0.07."""
    normal, other = (math.exp(float(F.cosine_similarity(token, one, dim=0)) / 0.07) for one in vectors)
    return other / (normal + other)


def test_zero_shot_scores_equal_a_loop_over_stages_and_patches(tiny_vit: Path) -> None:
    head, features = parts(model(tiny_vit))
    found = head.score(features, ["a", "b"])
    for image in range(2):
        maps = [
            [[abnormal(token, vectors) for token in row] for row in stage[image]]
            for stage, vectors in zip(features.patch_tokens, head.of_patches, strict=True)
        ]
        torch.testing.assert_close(found.patch_map[image], torch.tensor(maps).mean(0), atol=1e-5, rtol=0)
        scores = [
            0.5 * abnormal(cls[image], vectors) + 0.5 * max(max(row) for row in one)
            for cls, vectors, one in zip(features.cls_tokens, head.of_image, maps, strict=True)
        ]
        assert float(found.image_score[image]) == pytest.approx(sum(scores) / len(scores), abs=1e-5)


def test_few_shot_scores_average_with_the_distance_from_normal_patches(tiny_vit: Path) -> None:
    own = model(tiny_vit)
    head, features = parts(own, count=1)
    zero_shot = head.score(features, ["tile"])
    few = with_normals(own, "tile", plain.images(2, 32, 32, seed=5))
    found = few.head.score(features, ["tile"])
    known = own.encoder.encode(plain.images(2, 32, 32, seed=5))
    far = torch.zeros(4, 4)
    for stage, bank in zip(features.patch_tokens, known.patch_tokens, strict=True):
        for row in range(4):
            for column in range(4):
                cosines = [F.cosine_similarity(stage[0, row, column], one, dim=0) for one in bank.flatten(0, 2)]
                far[row, column] += min(1.0, 1 - float(max(cosines))) / len(features.patch_tokens)
    expected = (zero_shot.patch_map[0] + far) / 2
    torch.testing.assert_close(found.patch_map[0], expected, atol=1e-5, rtol=0)
    pairs = zip(features.cls_tokens, head.of_image, strict=True)
    image = [abnormal(cls[0], vectors) for cls, vectors in pairs]
    score = 0.5 * sum(image) / len(image) + 0.5 * float(expected.max())
    assert float(found.image_score[0]) == pytest.approx(score, abs=1e-5)


def test_losses_equal_a_loop_over_stages(tiny_vit: Path) -> None:
    head, features = parts(model(tiny_vit))
    masks = torch.zeros(2, 32, 32)
    masks[1, 4:20, 8:24] = 1
    labels = torch.tensor([False, True])
    found = head.losses(features, ["a", "b"], masks, labels)
    image, patches = 0.0, 0.0
    stages = len(features.patch_tokens)
    for stage in range(stages):
        for row, label in enumerate(labels):
            chance = abnormal(features.cls_tokens[stage][row], head.of_image[stage])
            image -= math.log(chance if label else 1 - chance) / (2 * stages)
        tokens = F.normalize(features.patch_tokens[stage], dim=-1)
        logits = (tokens @ F.normalize(head.of_patches[stage], dim=-1).T / 0.07).movedim(-1, 1)
        enlarged = F.interpolate(logits, (32, 32), mode="bilinear", align_corners=False).softmax(1)[:, 1]
        patches += float(focal_dice(enlarged, masks)) / stages
    assert float(found["image"].detach()) == pytest.approx(image, abs=1e-4)
    assert float(found["map"].detach()) == pytest.approx(patches, abs=1e-4)
    assert float(found["total"].detach()) == pytest.approx(image + patches, abs=1e-4)


def test_image_and_patches_share_no_weight(tiny_vit: Path) -> None:
    head, features = parts(model(tiny_vit))
    head.losses(features, ["a", "b"], torch.zeros(2, 32, 32), torch.tensor([False, True]))["map"].backward()
    assert all(one.grad is None for one in head.of_image)
    assert all(one.grad is not None for one in head.of_patches)
    assert sum(one.numel() for one in head.parameters()) == 2 * 2 * 16 * len(features.patch_tokens)


def test_five_late_blocks_are_taken_and_other_features_refused(tiny_vit: Path) -> None:
    assert (late(24), late(12), late(4)) == ((12, 15, 18, 21, 24), (6, 8, 9, 10, 12), (2, 3, 4))
    head, features = parts(model(tiny_vit))
    assert len(features.patch_tokens) == 3
    fewer = Features(features.patch_tokens[:2], features.cls_tokens[:2], features.image_size)
    with pytest.raises(ShapeError, match="expected features of 3 stages, got 2"):
        head.score(fewer, ["a", "b"])


def test_learning_rate_falls_along_a_cosine_to_its_last_share() -> None:
    config = PRESETS["uniadet"]
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert rates[0] == 1e-3
    assert rates[500] == pytest.approx(0.55e-3)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-3)
    assert rates == sorted(rates, reverse=True)


def test_it_learns_is_saved_and_takes_normal_images_with_a_promise(
    tiny_vit: Path, squares: Path, tmp_path: Path
) -> None:
    own = model(tiny_vit)
    samples = read_folder(squares)
    trained = train(own, samples, tmp_path / "head")
    steps = (tmp_path / "head" / "train.jsonl").read_text().splitlines()
    assert len(steps) == 3 * 3
    image = plain.images(1, 32, 32)
    loaded = load_model(tmp_path / "head", offline=True)
    assert torch.equal(loaded.score(image, ["tile"]).patch_map, trained.score(image, ["tile"]).patch_map)
    fresh = model(tiny_vit).score(image, ["tile"])
    assert not torch.equal(loaded.score(image, ["tile"]).patch_map, fresh.patch_map)
    detector = Detector(loaded, offline=True)
    photos = [plain.images(1, 32, 32, seed=seed)[0].permute(1, 2, 0).numpy() for seed in range(3)]
    assert "with your 3 good images" in str(detector.remember(photos, "tile"))
    assert detector.predict(photos[0], "tile").p_value is not None
