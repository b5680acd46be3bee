"""AnomalyCLIP against its formulas in plain loops: the v-v path, the learned prompts, scores, losses, checkpoints."""

from __future__ import annotations

from pathlib import Path

import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ad_dinov3.config.methods import AnomalyClipConfig
from ad_dinov3.encoders.clip_image import load_clip_vision
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods.anomalyclip import AnomalyClip, DualPath, from_authors, padded_tokens, prompt_texts, to_authors
from ad_dinov3.types import Features

CONFIG = AnomalyClipConfig(dpam_blocks=3, deep_depth=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, plain.State]:
    folder = tmp_path_factory.mktemp("clip")
    return folder / "clip.pt", plain.double(plain.save_clip(folder))


def encoded(path: Path, images: Tensor, config: AnomalyClipConfig = CONFIG, stages: tuple[int, ...] = (6,)) -> Features:
    loaded = load_clip_vision(str(path), activation=config.activation, position_resize=config.position_resize)
    dual = DualPath(loaded.vision, stages, config)
    return loaded.encoder(dual, dual.widths, {}).encode(images)


def head(path: Path, config: AnomalyClipConfig = CONFIG) -> AnomalyClip:
    text = load_clip_text(str(path), activation=config.activation)
    torch.manual_seed(0)
    made = AnomalyClip(config, plain.TEXT_WIDTH, plain.SHARED, ClipTextTower(text.module))
    made.set_tokens(padded_tokens(text.tokenize(prompt_texts(config)), plain.POSITIONS))
    with torch.no_grad():
        for parameter in made.parameters():  # larger than at the start of training, so that they matter
            parameter.mul_(10)
    return made.eval()


def plain_paths(state: plain.State, image: Tensor, dual: int, stages: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Projected patches of each stage from the v-v path, and the projected CLS token of the usual path."""
    usual = plain.embedded(state, image, "bilinear")
    second, patches = usual, []
    for index in range(plain.BLOCKS):
        name = plain.visual(index)
        if index >= plain.BLOCKS - dual:
            second = second + plain.attention(state, name, plain.norm(state, f"{name}.ln_1", usual), kind="vv")
        usual = plain.block(state, name, usual, "quick_gelu")
        if index < plain.BLOCKS - dual:
            second = usual
        if index + 1 in stages:
            patches.append(torch.stack([plain.project(state, token) for token in second[1:]]))
    return patches, usual[0] @ state["visual.proj"]  # no LayerNorm on the CLS token


def plain_text(state: plain.State, method: AnomalyClip) -> Tensor:
    """The two L2-normalised embeddings (2, D) of the learned prompts, inserted token by token."""
    rows = []
    for side in range(2):
        ids = method.tokens[side].tolist()
        end = ids.index(max(ids))
        tokens = state["token_embedding.weight"][ids].clone()
        for place in range(CONFIG.prompt_length):
            tokens[1 + place] = method.context[side, place].detach().double()
        deep = [prompt.detach().half().double() for prompt in method.deep]
        rows.append(plain.unit(plain.text_from(state, tokens[: end + 1], end, "quick_gelu", deep)))
    return torch.stack(rows)


@pytest.mark.parametrize("dual", [1, 3, 6])
def test_patches_and_cls_equal_both_paths_in_plain_loops(clip: tuple[Path, plain.State], dual: int) -> None:
    path, state = clip
    image, stages = plain.images(1, 20, 28), (2, 5, 6)
    found = encoded(path, image, CONFIG.model_copy(update={"dpam_blocks": dual}), stages)
    patches, cls = plain_paths(state, image[0], dual, stages)
    for stage, expected in enumerate(patches):
        value = found.patch_tokens[stage][0].flatten(0, 1).double()
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.cls_tokens[0][0].double(), cls, atol=1e-4, rtol=1e-5)


def test_more_dual_blocks_than_there_are_means_all(clip: tuple[Path, plain.State]) -> None:
    image = plain.images(1, 20, 20)
    all_six = encoded(clip[0], image, CONFIG.model_copy(update={"dpam_blocks": 6}))
    default = encoded(clip[0], image, AnomalyClipConfig())
    assert torch.equal(all_six.patch_tokens[0], default.patch_tokens[0])


def test_prompt_embeddings_equal_tokens_inserted_one_by_one(clip: tuple[Path, plain.State]) -> None:
    method = head(clip[0])
    torch.testing.assert_close(method.text.double(), plain_text(clip[1], method), atol=1e-5, rtol=0)


def test_deep_prompts_beyond_the_text_tower_do_not_matter(clip: tuple[Path, plain.State]) -> None:
    method = head(clip[0], CONFIG.model_copy(update={"deep_depth": 9}))
    before = method.embeddings()
    with torch.no_grad():
        method.deep[3].add_(1)  # would enter a fifth block; the tower has four
        assert torch.equal(before, method.embeddings())
        method.deep[2].add_(1)
    assert not torch.equal(before, method.embeddings())


def test_scores_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    image = plain.images(1, 36, 28)
    method = head(path)
    found = method.score(encoded(path, image), ["whatever"])
    (patches,), cls = plain_paths(state, image[0], 3, (6,))
    text = plain_text(state, method)
    probabilities = torch.stack([torch.softmax(text @ plain.unit(token) / 0.07, 0) for token in patches])  # (T, 2)
    grid = probabilities.T.reshape(1, 2, 9, 7)
    full = F.interpolate(grid, (36, 28), mode="bilinear", align_corners=False)[0]
    expected = gaussian_filter(((full[1] + 1 - full[0]) / 2).numpy(), sigma=4)
    torch.testing.assert_close(found.patch_map[0].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert float(found.image_score[0]) == pytest.approx(
        float(torch.softmax(text @ plain.unit(cls) / 0.07, 0)[1]), abs=1e-5
    )


def test_map_of_several_stages_is_their_mean(clip: tuple[Path, plain.State]) -> None:
    image, method = plain.images(1, 20, 20), head(clip[0])
    each = [method.score(encoded(clip[0], image, CONFIG, (stage,)), ["a"]).patch_map for stage in (4, 6)]
    both = method.score(encoded(clip[0], image, CONFIG, (4, 6)), ["a"]).patch_map
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, atol=1e-6, rtol=0)


def test_batch_of_four_equals_four_of_one_and_names_do_not_matter(clip: tuple[Path, plain.State]) -> None:
    images, method = plain.images(4, 20, 20), head(clip[0])
    whole = method.score(encoded(clip[0], images), ["a", "b", "c", "d"])
    for row in range(4):
        single = method.score(encoded(clip[0], images[row : row + 1]), ["other"])
        torch.testing.assert_close(whole.patch_map[row : row + 1], single.patch_map, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.image_score[row : row + 1], single.image_score, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "map_moves", "score_moves"),
    [
        ({"activation": "gelu"}, True, True),
        ({"position_resize": "bicubic"}, True, True),
        ({"dpam_blocks": 2}, True, False),
        ({"half_prompts": False}, True, True),
        ({"cls_norm": True}, False, True),
        ({"temperature": 0.05}, True, True),
        ({"upsample": "logits"}, True, False),
        ({"align_corners": True}, True, False),
        ({"sigma_px": 2.0}, True, False),
        ({"map_weight": 1.0}, False, False),  # of training only
    ],
)
def test_map_and_score_change_exactly_with_their_settings(
    clip: tuple[Path, plain.State], change: dict[str, object], map_moves: bool, score_moves: bool
) -> None:
    image = plain.images(1, 36, 28)
    found = []
    for config in (CONFIG, CONFIG.model_copy(update=change)):
        found.append(head(clip[0], config).score(encoded(clip[0], image, config), ["a"]))
    assert torch.equal(found[0].patch_map, found[1].patch_map) is not map_moves
    assert torch.equal(found[0].image_score, found[1].image_score) is not score_moves


def test_authors_checkpoint_round_trip_gives_the_same_map(clip: tuple[Path, plain.State], tmp_path: Path) -> None:
    from ad_dinov3.weights import read_tensors

    features = encoded(clip[0], plain.images(1, 20, 20))
    first, second = head(clip[0]), head(clip[0], CONFIG)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    first.bake()
    state = {name.removeprefix("prompt_learner."): tensor for name, tensor in to_authors(first).items()}
    assert state["ctx_pos"].shape == (1, 1, 12, plain.TEXT_WIDTH)
    assert state["token_suffix_neg"].shape == (1, 1, 64, plain.TEXT_WIDTH)
    assert state["tokenized_prompts_pos"].shape == (1, 1, 77)
    assert state["compound_prompt_projections.1.weight"].shape == (896, plain.TEXT_WIDTH)
    torch.save({"prompt_learner": state}, tmp_path / "epoch_15.pth")
    from_authors(second, read_tensors(tmp_path / "epoch_15.pth"))
    assert torch.equal(first.score(features, ["a"]).patch_map, second.score(features, ["a"]).patch_map)


def test_incomplete_checkpoint_is_refused_with_the_names(clip: tuple[Path, plain.State]) -> None:
    method = head(clip[0])
    state = to_authors(method)
    del state["prompt_learner.ctx_neg"]
    state["prompt_learner.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 missing: prompt_learner\.ctx_neg; 1 unknown: prompt_learner\.extra"):
        from_authors(method, state)


def test_head_without_text_tower_scores_by_its_baked_text_and_refuses_to_train(clip: tuple[Path, plain.State]) -> None:
    whole = head(clip[0])
    alone = AnomalyClip(CONFIG, plain.TEXT_WIDTH, plain.SHARED)
    features = encoded(clip[0], plain.images(1, 20, 20))
    with pytest.raises(ConfigError, match="no prompt embeddings yet"):
        alone.score(features, ["a"])
    alone.load_state_dict(whole.state_dict())
    assert torch.equal(alone.score(features, ["a"]).patch_map, whole.score(features, ["a"]).patch_map)
    with pytest.raises(ConfigError, match="made without one"):
        alone.losses(features, ["a"], torch.zeros(1, 20, 20), torch.tensor([True]))


def test_training_lowers_the_loss_and_scoring_uses_the_new_prompts(clip: tuple[Path, plain.State]) -> None:
    method, features = head(clip[0]), encoded(clip[0], plain.images(4, 20, 20))
    before = method.score(features, ["a"] * 4).patch_map
    masks = torch.zeros(4, 20, 20)
    masks[:2, 4:10, 4:10] = 1
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == (2 * 12 + 2 * 4) * plain.TEXT_WIDTH
    optimiser = torch.optim.Adam(trained, 1e-2, (0.5, 0.999))
    method.train()
    totals = []
    for _ in range(12):
        losses = method.losses(features, ["a"] * 4, masks, masks.any(2).any(1))
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < totals[0]
    method.eval()
    assert not torch.equal(before, method.score(features, ["a"] * 4).patch_map)


def test_loss_is_image_entropy_and_four_times_the_map_terms(clip: tuple[Path, plain.State]) -> None:
    method, features = head(clip[0]), encoded(clip[0], plain.images(2, 20, 20))
    masks = torch.zeros(2, 20, 20)
    masks[1, 5:12, 3:9] = 1
    labels = torch.tensor([True, True])  # image 0 is listed as anomalous, and no pixel of its defect is left
    found = method.losses(features, ["a", "a"], masks, labels)
    text = method.text
    cosines = F.normalize(features.cls_tokens[0], dim=-1) @ text.T / 0.07
    image = -(cosines.log_softmax(1)[0, 1] + cosines.log_softmax(1)[1, 1]) / 2
    abnormal = method.maps(method.stage_logits(features, text), (20, 20))[0]
    right = torch.where(masks > 0.5, abnormal, 1 - abnormal)
    smooth = right * (1 - 1e-5) + (1 - right) * 1e-5 + 1e-5
    maps = (-((1 - smooth) ** 2) * smooth.log()).mean()
    for scores, target in ((abnormal, masks), (1 - abnormal, 1 - masks)):
        for one, mask in zip(scores, target, strict=True):
            maps = maps + (1 - (2 * (one * mask).sum() + 1) / (one.sum() + mask.sum() + 1)) / 2
    assert float(found["image"].detach()) == pytest.approx(float(image), rel=1e-4)
    assert float(found["total"].detach()) == pytest.approx(float(image + 4 * maps), rel=1e-4)
