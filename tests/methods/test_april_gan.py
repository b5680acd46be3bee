"""APRIL-GAN against its formulas in plain loops; checkpoints of its authors; training; settings."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config.methods import Activation, AprilGanConfig
from ad_dinov3.encoders.clip_image import ClipTaps, load_clip_vision
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, encode_classes
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.methods.april_gan import AprilGan, from_authors, to_authors
from ad_dinov3.types import Features

STAGES = (1, 3, 5, 6)
NAMES = ["bottle", "object", "bottle", "object"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, plain.State]:
    folder = tmp_path_factory.mktemp("clip")
    return folder / "clip.pt", plain.double(plain.save_clip(folder))


def encoded(path: Path, images: Tensor, config: AprilGanConfig) -> Features:
    loaded = load_clip_vision(str(path), activation=config.activation, position_resize=config.position_resize)
    return loaded.encoder(ClipTaps(loaded.vision, STAGES), (plain.WIDTH,) * 4, {}).encode(images)


def head(path: Path, config: AprilGanConfig) -> AprilGan:
    torch.manual_seed(0)
    made = AprilGan(config, (plain.WIDTH,) * 4, plain.SHARED, ())
    made.set_prompts(prompts(path, config.activation))
    return made.eval()


@cache
def prompts(path: Path, activation: Activation) -> dict[str, Tensor]:
    """Two classes in a few sentences: the ensemble itself is tested elsewhere."""
    few = replace(DEFAULT_PROMPTS, templates=DEFAULT_PROMPTS.templates[:2])
    return encode_classes(load_clip_text(str(path), activation=activation), few, ["bottle", "object"])


def plain_maps(state: plain.State, image: Tensor, method: AprilGan, name: str) -> tuple[Tensor, list[Tensor], float]:
    """Sum over the layers of the abnormal probability (H, W), the raw taps, and the image score."""
    rows, columns = image.shape[1] // plain.PATCH, image.shape[2] // plain.PATCH
    text = method.prompts.rows[method.class_names.index(name)].detach().double()
    tokens = plain.embedded(state, image, "bicubic_antialias")
    total, taps = torch.zeros(image.shape[1:], dtype=torch.float64), []
    for index in range(plain.BLOCKS):
        tokens = plain.block(state, plain.visual(index), tokens, "gelu")
        if index + 1 in STAGES:
            taps.append(tokens[1:])
            layer = method.layers[len(taps) - 1]
            logits = torch.zeros(2, rows, columns, dtype=torch.float64)
            for place, token in enumerate(tokens[1:]):
                projected = plain.unit(layer.weight.double() @ token + layer.bias.double())
                logits[:, place // columns, place % columns] = 100 * torch.stack(
                    [projected @ text[0], projected @ text[1]]
                )
            full = F.interpolate(logits[None], image.shape[1:], mode="bilinear", align_corners=True)[0]
            total += full.softmax(0)[1]
    embedding = plain.unit(plain.project(state, tokens[0]))
    score = torch.softmax(100 * torch.stack([embedding @ text[0], embedding @ text[1]]), 0)[1]
    return total.detach(), taps, float(score)


def test_scores_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    config, image = AprilGanConfig(), plain.images(1, 36, 28)
    method = head(path, config)
    found = method.score(encoded(path, image, config), ["bottle"])
    total, _, score = plain_maps(state, image[0], method, "bottle")
    torch.testing.assert_close(4 * found.patch_map[0].double(), total, atol=1e-4, rtol=0)
    assert float(found.image_score[0]) == pytest.approx(score, abs=1e-4)


def test_few_shot_scores_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    config, image, references = AprilGanConfig(), plain.images(1, 20, 20), plain.images(2, 20, 20, seed=5)
    method = head(path, config)
    method.remember("bottle", [method.memory([encoded(path, references, config)])])
    found = method.score(encoded(path, image, config), ["bottle"])
    total, taps, score = plain_maps(state, image[0], method, "bottle")
    memories = [plain_maps(state, reference, method, "bottle")[1] for reference in references]
    for layer, tokens in enumerate(taps):
        memory = torch.cat([tapped[layer] for tapped in memories])
        far = torch.tensor([min(1 - float(plain.unit(token) @ plain.unit(one)) for one in memory) for token in tokens])
        full = F.interpolate(far.reshape(1, 1, 5, 5).double(), (20, 20), mode="bilinear", align_corners=True)
        total += full[0, 0]
    torch.testing.assert_close((4 + 2 * 4) * found.patch_map[0].double(), total, atol=2e-4, rtol=0)
    assert float(found.image_score[0]) == pytest.approx((score + float(total.max()) / 12) / 2, abs=1e-4)
    with pytest.raises(ConfigError, match="no reference images of object"):
        method.score(encoded(path, image, config), ["object"])


def test_batch_of_four_equals_four_of_one(clip: tuple[Path, plain.State]) -> None:
    config, images = AprilGanConfig(), plain.images(4)
    method = head(clip[0], config)
    whole = method.score(encoded(clip[0], images, config), NAMES)
    for row, name in enumerate(NAMES):
        single = method.score(encoded(clip[0], images[row : row + 1], config), [name])
        torch.testing.assert_close(whole.patch_map[row : row + 1], single.patch_map, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.image_score[row : row + 1], single.image_score, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "quick_gelu"},
        {"position_resize": "bicubic"},
        {"gain": 50.0},
        {"upsample": "probabilities"},
        {"align_corners": False},
        {"sigma_px": 2.0},
    ],
)
def test_map_changes_with_each_setting(clip: tuple[Path, plain.State], change: dict[str, object]) -> None:
    image = plain.images(1)
    maps = []
    for config in (AprilGanConfig(), AprilGanConfig().model_copy(update=change)):
        maps.append(head(clip[0], config).score(encoded(clip[0], image, config), ["bottle"]).patch_map)
    assert (maps[0] - maps[1]).abs().max() > 1e-4


def test_class_matters_by_its_own_prompts_only(clip: tuple[Path, plain.State]) -> None:
    config = AprilGanConfig()
    method, features = head(clip[0], config), encoded(clip[0], plain.images(1), config)
    before = method.score(features, ["bottle"]).patch_map
    assert not torch.equal(before, method.score(features, ["object"]).patch_map)
    rows = dict(zip(method.class_names, method.prompts.rows.detach(), strict=True))
    method.set_prompts({"bottle": rows["bottle"], "object": rows["object"].flip(0)})
    assert torch.equal(before, method.score(features, ["bottle"]).patch_map)


def test_authors_checkpoint_round_trip_gives_the_same_map(clip: tuple[Path, plain.State], tmp_path: Path) -> None:
    from ad_dinov3.weights import read_tensors

    config = AprilGanConfig()
    features = encoded(clip[0], plain.images(1), config)
    first, second = head(clip[0], config), head(clip[0], config)
    with torch.no_grad():
        for parameter in first.layers.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    authors = {"fc." + name: tensor for name, tensor in first.layers.state_dict().items()}
    torch.save({"trainable_linearlayer": authors}, tmp_path / "mvtec_pretrained.pth")
    from_authors(second, read_tensors(tmp_path / "mvtec_pretrained.pth"))
    assert torch.equal(first.score(features, ["bottle"]).patch_map, second.score(features, ["bottle"]).patch_map)
    assert all(torch.equal(to_authors(second)[f"trainable_linearlayer.{name}"], one) for name, one in authors.items())


def test_checkpoint_of_other_layers_is_refused_with_their_names(clip: tuple[Path, plain.State]) -> None:
    method = head(clip[0], AprilGanConfig())
    state = to_authors(method)
    state["trainable_linearlayer.fc.4.weight"] = state.pop("trainable_linearlayer.fc.2.bias")
    with pytest.raises(WeightsError, match=r"1 missing: \S+fc\.2\.bias; 1 unknown: \S+fc\.4\.weight"):
        from_authors(method, state)


def test_loss_is_the_sum_over_layers_of_focal_and_dice(clip: tuple[Path, plain.State]) -> None:
    config = AprilGanConfig()
    method, features = head(clip[0], config), encoded(clip[0], plain.images(2, 20, 20), config)
    masks = (torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.8).float()
    found = method.losses(features, ["bottle", "object"], masks, torch.tensor([True, True]))["total"]
    expected = 0.0
    for abnormal in method.maps(method.logits(features, ["bottle", "object"]), (20, 20)):
        abnormal = abnormal.detach()
        right = torch.where(masks > 0.5, abnormal, 1 - abnormal)
        smooth = right * (1 - 1e-5) + (1 - right) * 1e-5 + 1e-5
        expected += float((-((1 - smooth) ** 2) * smooth.log()).mean())
        for one, mask in zip(abnormal, masks, strict=True):
            expected += float(1 - (2 * (one * mask).sum() + 1) / (one.sum() + mask.sum() + 1)) / 2
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_training_steps_lower_the_loss_and_touch_only_the_layers(clip: tuple[Path, plain.State]) -> None:
    config = AprilGanConfig()
    method, features = head(clip[0], config), encoded(clip[0], plain.images(4, 20, 20), config)
    masks = torch.zeros(4, 20, 20)
    masks[:, 4:10, 4:10] = 1
    prompts = method.prompts.rows.clone()
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-3, (0.5, 0.999))
    totals = []
    for _ in range(15):
        loss = method.losses(features, NAMES, masks, torch.tensor([True] * 4))["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.9 * totals[0]
    assert torch.equal(prompts, method.prompts.rows)


def test_features_of_other_stages_are_refused(clip: tuple[Path, plain.State]) -> None:
    features = encoded(clip[0], plain.images(1), AprilGanConfig())
    one = Features(features.patch_tokens[:1], features.cls_tokens[:1], features.image_size)
    with pytest.raises(ShapeError, match="features of 4 stages, got 1"):
        head(clip[0], AprilGanConfig()).score(one, ["bottle"])
