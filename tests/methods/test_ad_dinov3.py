"""AD-DINOv3's head against plain loops, the released code's behaviour, and its own invariants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config import PRESETS, AdDinoV3Config, LossConfig, PromptConfig
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.methods.ad_dinov3 import AdDinoV3, enlarged, pooled, rarity
from ad_dinov3.methods.dinov3_plain import Dinov3Plain
from ad_dinov3.methods.losses import dice, focal
from ad_dinov3.methods.released_format import load_released, to_released
from ad_dinov3.ops import on_grid, standardise, whiten
from ad_dinov3.types import Features

CLASSES = ("bottle", "metal_nut")
LABELS = torch.tensor([True, False])
LEARNED = PromptConfig(source="learned")
GRID, SIZE, WIDTH, TEXT = (4, 6), (64, 96), 12, 12


def make_features(batch: int = 2, stages: int = 4, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    patches = tuple(torch.randn(batch, *GRID, 16, generator=generator) for _ in range(stages))
    cls = tuple(torch.randn(batch, 16, generator=generator) for _ in range(stages))
    return Features(patches, cls, SIZE)


def make_head(config: AdDinoV3Config, stages: int = 4) -> AdDinoV3:
    torch.manual_seed(1)
    head = AdDinoV3(config.model_copy(update={"width": WIDTH}), (16,) * stages, TEXT, CLASSES)
    if not head.learned_prompts:
        head.set_prompts({name: F.normalize(torch.randn(2, TEXT), dim=-1) for name in CLASSES})
    return head


def make_masks(batch: int = 2) -> Tensor:
    return (torch.rand(batch, *SIZE, generator=torch.Generator().manual_seed(3)) > 0.8).float()


def released_by_hand(head: AdDinoV3, features: Features, names: tuple[str, ...], size: tuple[int, int]) -> Tensor:
    """What the authors' test code does for one image after another, written from its description."""
    maps = []
    for image, name in enumerate(names):
        prompt = head.prompts[head.class_names.index(name)]
        adapted = [F.leaky_relu(ada.first(prompt[i])) for i, ada in enumerate(head.text_adapters)]
        text = torch.cat(adapted).reshape(WIDTH, 2)
        total = torch.zeros(2, *size)
        for stage, patches in enumerate(features.patch_tokens):
            tokens = patches[image].flatten(0, 1)
            tokens = (tokens - tokens.mean(0)) / (tokens.std(0) + 1e-6)
            tokens = F.leaky_relu(head.patch_adapters[stage].first(tokens))
            tokens = tokens / tokens.norm(dim=-1, keepdim=True)
            logits = (100 * tokens @ text).T.reshape(1, 2, *GRID)
            total += F.interpolate(logits, size, mode="bilinear", align_corners=True).softmax(1)[0]
        maps.append(total[1] / len(features.patch_tokens))
    return torch.stack(maps)


def test_released_preset_equals_the_description_of_the_authors_code() -> None:
    head, features = make_head(PRESETS["released"].method), make_features()

    scores = head.score(features, CLASSES)

    assert scores.patch_map.shape == (2, *SIZE)
    torch.testing.assert_close(scores.patch_map, released_by_hand(head, features, CLASSES, SIZE), atol=1e-5, rtol=0)


def test_interleaved_text_has_the_even_entries_in_column_zero() -> None:
    head = make_head(PRESETS["released"].method)

    columns = head.text(CLASSES[:1])[0]

    normal, abnormal = (F.leaky_relu(ada.first(head.prompts[0, i])) for i, ada in enumerate(head.text_adapters))
    torch.testing.assert_close(columns[:, 0], torch.cat([normal[::2], abnormal[::2]]))
    torch.testing.assert_close(columns[:, 1], torch.cat([normal[1::2], abnormal[1::2]]))


def test_paper_preset_follows_equations_1_and_2_patch_by_patch() -> None:
    config = PRESETS["paper"].method
    head, features = make_head(config), make_features()

    patch_map = head.score(features, CLASSES).patch_map

    for image, name in enumerate(CLASSES):
        text = head.text([name])[0]
        for row, column in ((0, 0), (3, 5), (2, 1)):
            probabilities = []
            for stage, adapter in enumerate(head.patch_adapters):
                tokens = standardise(features.patch_tokens[stage].flatten(1, 2))[image]
                patch = adapter(tokens[row * GRID[1] + column])
                similarity = torch.stack([F.cosine_similarity(patch, text[:, k], dim=0) for k in (0, 1)])
                probabilities.append((config.gain * similarity).softmax(0)[1])
            torch.testing.assert_close(patch_map[image, row, column], torch.stack(probabilities).mean())


def test_scores_of_a_batch_equal_those_of_its_images_one_by_one() -> None:
    for settings in (preset.method for preset in PRESETS.values()):
        if settings.kind != "ad_dinov3":
            continue
        stages = len(settings.pooling) or 4
        head, features = make_head(settings, stages), make_features(batch=3, stages=stages)
        names = ["bottle", "metal_nut", "bottle"]
        whole = head.score(features, names)
        for i in range(3):
            one = Features(
                tuple(p[i : i + 1] for p in features.patch_tokens),
                tuple(c[i : i + 1] for c in features.cls_tokens),
                SIZE,
            )
            alone = head.score(one, names[i : i + 1])
            torch.testing.assert_close(alone.patch_map[0], whole.patch_map[i])
            torch.testing.assert_close(alone.image_score[0], whole.image_score[i])


def test_scores_stay_in_the_unit_interval_on_extreme_tokens() -> None:
    features = make_features()
    wild = Features(tuple(1e4 * p for p in features.patch_tokens), features.cls_tokens, SIZE)
    flat = Features(tuple(torch.zeros_like(p) for p in features.patch_tokens), features.cls_tokens, SIZE)
    for tokens in ("raw", "standardise", "whiten"):
        head = make_head(AdDinoV3Config(tokens=tokens))
        for case in (wild, flat):
            scores = head.score(case, CLASSES)
            for values in (scores.patch_map, scores.image_score):
                assert bool(((values >= 0) & (values <= 1)).all())


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "bottleneck"},
        {"residual": 0.5},
        {"stages": "last"},
        {"tokens": "raw"},
        {"tokens": "whiten"},
        {"text_norm": False},
        {"text_layout": "interleaved"},
        {"gain": 10.0},
        {"upsample": "logits"},
        {"fusion": "logits"},
        {"rarity": 6},
    ],
)
def test_map_switch_changes_the_map(change: dict[str, object]) -> None:
    plain = make_head(AdDinoV3Config()).score(make_features(), CLASSES).patch_map
    changed = make_head(AdDinoV3Config().model_copy(update=change)).score(make_features(), CLASSES).patch_map

    assert changed.shape != plain.shape or not torch.allclose(changed, plain, atol=1e-4)


@pytest.mark.parametrize("change", [{"aacm_gain": 3.0}, {"aacm_sigma": "softmax"}])
def test_aacm_switch_changes_the_loss_and_not_the_map(change: dict[str, object]) -> None:
    plain, changed = make_head(AdDinoV3Config()), make_head(AdDinoV3Config().model_copy(update=change))
    features, masks = make_features(), make_masks()

    torch.testing.assert_close(plain.score(features, CLASSES).patch_map, changed.score(features, CLASSES).patch_map)
    terms = [head.losses(features, CLASSES, masks, LABELS)["aacm"].item() for head in (plain, changed)]
    assert terms[0] != pytest.approx(terms[1])


def test_aacm_is_the_sigmoid_of_scaled_cosines_to_the_cls_token() -> None:
    head, features = make_head(AdDinoV3Config()), make_features()

    maps = head.aacm_maps(head(features, CLASSES), SIZE)

    tokens = head.patch_adapters[2](standardise(features.patch_tokens[2].flatten(1, 2)))
    cls = head.cls_adapters[2](features.cls_tokens[2])
    expected = (10 * F.cosine_similarity(tokens, cls[:, None], dim=-1)).sigmoid().reshape(2, *GRID)
    torch.testing.assert_close(maps[2], expected)


def test_switching_a_loss_off_removes_its_term_and_its_gradient() -> None:
    head = make_head(AdDinoV3Config(loss=LossConfig(aacm=0, image=0)))
    losses = head.losses(make_features(), CLASSES, make_masks(), LABELS)

    losses["total"].backward()

    assert set(losses) == {"total", "cross_modal"}
    assert head.cls_adapters[0].first.weight.grad is None
    assert head.patch_adapters[0].first.weight.grad is not None


def test_total_is_the_sum_of_the_weighted_terms() -> None:
    features, masks = make_features(), make_masks()
    losses, single = (
        make_head(AdDinoV3Config(loss=loss)).losses(features, CLASSES, masks, LABELS)
        for loss in (LossConfig(cross_modal=0.5, aacm=0.25, image=0.25), LossConfig(cross_modal=1, aacm=1, image=1))
    )

    expected = 0.5 * single["cross_modal"] + 0.25 * single["aacm"] + 0.25 * single["image"]
    torch.testing.assert_close(losses["total"], expected)


def test_image_term_is_the_released_cross_entropy_of_the_listed_label_and_not_of_the_mask() -> None:
    head, features = make_head(AdDinoV3Config(loss=LossConfig(image=0.25))), make_features()
    labels = torch.tensor([True, False])

    found = head.losses(features, CLASSES, torch.zeros(2, *SIZE), labels)["image"]

    logits = torch.stack([out.image_logits for out in head(features, CLASSES)]).mean(0)  # over the stages
    by_hand = -(logits[0].log_softmax(0)[1] + logits[1].log_softmax(0)[0]) / 2  # no pixel is anomalous, image 0 is
    torch.testing.assert_close(found, 0.25 * by_hand)


@pytest.mark.parametrize("resolution", ["grid", "mid", "full"])
@pytest.mark.parametrize("over_stages", ["mean_map", "per_stage"])
def test_loss_falls_when_the_map_meets_the_mask_at_every_resolution(resolution: str, over_stages: str) -> None:
    torch.manual_seed(0)
    masks = torch.zeros(2, *SIZE)
    masks[:, 16:48, 16:64] = 1
    loss = LossConfig.model_validate({"resolution": resolution, "over_stages": over_stages})
    head = make_head(AdDinoV3Config(prompts=LEARNED, loss=loss))
    signal = on_grid(F.adaptive_avg_pool2d(masks[:, None], GRID).flatten(2).mT, GRID).permute(0, 2, 3, 1)
    features = Features(
        tuple(torch.randn(2, *GRID, 16) + 4 * signal for _ in range(4)), (torch.randn(2, 16),) * 4, SIZE
    )
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    totals = []
    for _ in range(30):
        losses = head.losses(features, CLASSES, masks, LABELS)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        totals.append(losses["total"].item())

    assert totals[-1] < 0.7 * totals[0]


def test_focal_and_dice_equal_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    abnormal = torch.rand(2, 3, 5, generator=generator)
    mask = (torch.rand(2, 3, 5, generator=generator) > 0.5).float()

    by_pixel = []
    for p, m in zip(abnormal.flatten().tolist(), mask.flatten().tolist(), strict=True):
        target = min(max(m, 1e-5), 1 - 1e-5)
        agreement = target * p + (1 - target) * (1 - p) + 1e-5
        by_pixel.append(-((1 - agreement) ** 2) * float(torch.tensor(agreement).log()))
    assert float(focal(abnormal, mask)) == pytest.approx(sum(by_pixel) / len(by_pixel), rel=1e-4)
    by_image = [
        1 - (2 * float((a * m).sum()) + 1) / (float(a.sum() + m.sum()) + 1) for a, m in zip(abnormal, mask, strict=True)
    ]
    assert float(dice(abnormal, mask)) == pytest.approx(sum(by_image) / 2, rel=1e-5)


def test_whitened_tokens_have_identity_covariance_and_mahalanobis_length() -> None:
    mixing = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = torch.randn(1, 400, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ mixing

    white = whiten(tokens, shrinkage=1e-9)[0]

    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(5, dtype=torch.float64), atol=1e-4, rtol=0)
    centred = tokens[0] - tokens[0].mean(0)
    mahalanobis = (centred @ torch.linalg.inv(tokens[0].T.cov(correction=0)) * centred).sum(-1)
    torch.testing.assert_close(white.square().sum(-1), mahalanobis, rtol=1e-4, atol=1e-4)


def test_rarity_is_the_mahalanobis_distance_of_projected_tokens() -> None:
    tokens = standardise(make_features().patch_tokens[0].flatten(1, 2))
    everything = tokens @ torch.linalg.qr(torch.randn(16, 5, generator=torch.Generator().manual_seed(4)))[0]

    found = rarity(everything, GRID)[1]

    projected = everything[1]
    centred = projected - projected.mean(0)
    covariance = centred.T @ centred / len(centred)
    covariance += 0.02 * covariance.diagonal().mean() * torch.eye(5)
    squared = (centred @ torch.linalg.inv(covariance) * centred).sum(-1)
    torch.testing.assert_close(found[:, 0], (squared / 5 + 1e-2).log(), atol=1e-4, rtol=1e-4)
    on_map, smooth = found[:, 0].reshape(GRID), found[:, 1].reshape(GRID)
    rows, columns = [min(max(r, 0), 3) for r in range(-2, 3)], [min(max(c, 0), 5) for c in range(-2, 3)]
    assert float(smooth[0, 0]) == pytest.approx(float(on_map[rows][:, columns].mean()), abs=1e-4)
    assert found.shape[1] == 2 + 5


def test_rarity_of_all_stages_at_once_is_that_of_each_alone() -> None:
    head, features = make_head(AdDinoV3Config(rarity=5)), make_features()
    stages = [patch.flatten(1, 2) for patch in features.patch_tokens]

    prepared = head.prepare(features.patch_tokens)

    for patches, project, found in zip(stages, head.rarities, prepared, strict=True):
        alone = standardise(patches)
        torch.testing.assert_close(found, torch.cat([alone, rarity(project(alone), features.grid)], -1))


def test_surround_joins_each_token_less_the_mean_of_its_window() -> None:
    head, features = make_head(AdDinoV3Config(surround=3, tokens="raw")), make_features()
    (rows, columns), patches = GRID, features.patch_tokens[0][0]

    found = head.prepare(features.patch_tokens)[0][0].reshape(rows, columns, -1)

    width = patches.shape[-1]
    for row, column in ((0, 0), (1, 2), (rows - 1, columns - 1)):
        near = [
            patches[min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        ]
        expected = torch.cat([patches[row, column], patches[row, column] - torch.stack(near).mean(0)])
        torch.testing.assert_close(found[row, column], expected)
    assert found.shape[-1] == 2 * width


def test_pooled_stage_says_of_each_block_of_cells_what_its_mean_token_says() -> None:
    config = AdDinoV3Config(pooling=(1, 1, 1, 2), tokens="raw")
    features = make_features()
    head = make_head(config)
    last = features.patch_tokens[-1]  # (B, 4, 6, C)
    mean = torch.stack([last[:, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2, 4)], 1)

    out = head(features, CLASSES)[-1]

    alone = make_head(AdDinoV3Config(tokens="raw"))
    coarse = Features((mean.reshape(-1, 2, 3, last.shape[-1]),) * 4, features.cls_tokens, features.image_size)
    expected = torch.nn.functional.interpolate(alone(coarse, CLASSES)[-1].patch_logits, GRID, mode="bilinear")
    torch.testing.assert_close(out.patch_logits, expected)


def test_pooling_of_a_grid_that_it_does_not_divide_keeps_the_grid() -> None:
    tokens = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)
    coarse = pooled(tokens, 2)
    assert coarse.shape == (2, 2, 3, 4)
    torch.testing.assert_close(coarse[:, 1, 2], tokens[:, 2, 4])
    assert enlarged(coarse.permute(0, 3, 1, 2), 2, (3, 5)).shape == (2, 4, 3, 5)


def test_pooling_of_other_stages_than_the_encoders_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooling"):
        make_head(AdDinoV3Config(pooling=(2,)))


def test_fused_logits_are_averaged_before_the_one_sigmoid() -> None:
    head, features = make_head(AdDinoV3Config(fusion="logits")), make_features()

    outputs = head(features, CLASSES)

    margin = torch.stack([out.patch_logits[:, 1] - out.patch_logits[:, 0] for out in outputs]).mean(0)
    torch.testing.assert_close(head.score(features, CLASSES).patch_map, margin.sigmoid())


def test_score_offset_moves_the_score_and_keeps_its_order_and_the_map() -> None:
    features = make_features(batch=6)
    names = list(CLASSES) * 3
    plain, moved = (
        make_head(AdDinoV3Config(score_offset=offset, gain=3.0)).score(features, names) for offset in (0.0, 2.0)
    )

    torch.testing.assert_close(moved.image_score.logit(), plain.image_score.logit() - 2, atol=1e-3, rtol=0)
    assert torch.equal(moved.image_score.argsort(), plain.image_score.argsort())
    assert torch.equal(moved.patch_map, plain.patch_map)


def test_plain_baseline_is_the_channel_mean_of_unit_tokens() -> None:
    features = make_features()

    patch_map = Dinov3Plain().score(features, CLASSES).patch_map

    token = features.patch_tokens[-1][1, 2, 3]
    mean = float((token / token.norm()).mean())
    assert float(patch_map[1, 2, 3]) == pytest.approx((mean * 16**0.5 + 1) / 2, rel=1e-5)


def test_released_checkpoint_round_trips_to_the_same_map() -> None:
    head, features = make_head(PRESETS["released"].method), make_features()
    tree = to_released(head)
    flat = {f"{module}.{name}": tensor for module, tensors in tree.items() for name, tensor in tensors.items()}
    torch.manual_seed(9)
    other = AdDinoV3(head.config, (16,) * 4, TEXT, CLASSES)
    other.set_prompts(dict(zip(CLASSES, head.prompts.detach(), strict=True)))

    load_released(other, flat, "adapters.pth")

    assert tree["patch_token_adapter"]["3.fc2.0.weight"].shape == (16, WIDTH)
    assert torch.equal(other.score(features, CLASSES).patch_map, head.score(features, CLASSES).patch_map)


def test_released_checkpoint_with_other_keys_is_refused_and_names_them() -> None:
    head = make_head(PRESETS["released"].method)
    flat = {f"{m}.{n}": t for m, tensors in to_released(head).items() for n, t in tensors.items()}
    flat["prompt_adapter.2.fc1.0.weight"] = flat.pop("prompt_adapter.1.fc1.0.weight")

    with pytest.raises(WeightsError, match=r"missing: prompt_adapter\.1.*unknown: prompt_adapter\.2"):
        load_released(head, flat, "adapters.pth")


def test_released_format_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ConfigError, match="linear adapters"):
        to_released(make_head(PRESETS["paper"].method))


def test_unknown_class_is_refused_with_the_baked_ones() -> None:
    with pytest.raises(ConfigError, match="no prompts for cable; baked are bottle, metal_nut"):
        make_head(AdDinoV3Config()).score(make_features(), ["bottle", "cable"])


def test_features_of_another_encoder_are_refused() -> None:
    head = make_head(AdDinoV3Config())
    narrow = Features((torch.randn(1, *GRID, 8),) * 4, (torch.randn(1, 8),) * 4, SIZE)

    with pytest.raises(ShapeError, match="expected stages of widths"):
        head.score(narrow, CLASSES[:1])


def test_learned_prompts_take_any_class_and_get_gradients() -> None:
    head = make_head(AdDinoV3Config(prompts=LEARNED))

    head.losses(make_features(), ["anything", "else"], make_masks(), LABELS)["total"].backward()

    assert head.prompts.grad is not None
    assert float(head.prompts.grad.abs().sum()) > 0
