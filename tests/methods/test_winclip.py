"""WinCLIP against its formulas in plain loops: windows, harmonic means, scores, reference images, prompts."""

from __future__ import annotations

from pathlib import Path

import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config.methods import WinClipConfig
from ad_dinov3.encoders.clip_image import load_clip_vision
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.methods.winclip import ClipWindows, WinClip, encode_winclip, harmonic_map, winclip_prompts
from ad_dinov3.types import Features

NAMES = ["metal_nut", "bottle", "metal_nut", "bottle"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, plain.State]:
    folder = tmp_path_factory.mktemp("clip")
    return folder / "clip.pt", plain.double(plain.save_clip(folder))


def encoded(path: Path, images: Tensor, config: WinClipConfig) -> Features:
    loaded = load_clip_vision(str(path), activation=config.activation, position_resize=config.position_resize)
    windows = ClipWindows(loaded.vision, config)
    return loaded.encoder(windows, windows.widths, {}).encode(images)


def head(path: Path, config: WinClipConfig) -> WinClip:
    made = WinClip(config, plain.SHARED, ())
    text = load_clip_text(str(path), activation=config.activation)
    made.set_prompts(encode_winclip(text, config, {"metal_nut": "metal_nut", "bottle": "bottle"}))
    return made


def window_embedding(
    state: plain.State, tokens: Tensor, grid: tuple[int, int], top: int, left: int, side: int
) -> Tensor:
    """A window by itself: CLS token and its patches through all blocks."""
    places = [1 + (top + i) * grid[1] + left + j for i in range(side) for j in range(side)]
    window = tokens[[0, *places]]
    for index in range(plain.BLOCKS):
        window = plain.block(state, plain.visual(index), window, "gelu")
    return plain.project(state, window[0])


def test_window_embeddings_equal_windows_encoded_one_by_one(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    image = plain.images(1, 20, 16)
    found = encoded(path, image, WinClipConfig())
    tokens = plain.embedded(state, image[0], "bicubic")
    for stage, side in enumerate((2, 3)):
        for top in range(5):
            for left in range(4):
                value = found.patch_tokens[stage][0, top, left].double()
                if top + side <= 5 and left + side <= 4:
                    expected = window_embedding(state, tokens, (5, 4), top, left, side)
                    torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-5)
                else:
                    assert not value.any()


def test_windows_are_the_same_whatever_the_batch_of_windows(
    clip: tuple[Path, plain.State], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = plain.images(2, 20, 20)
    whole = encoded(clip[0], image, WinClipConfig()).patch_tokens
    monkeypatch.setattr("ad_dinov3.methods.winclip._WINDOW_BATCH", 3)
    for one, other in zip(whole, encoded(clip[0], image, WinClipConfig()).patch_tokens, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_harmonic_map_equals_a_plain_loop_over_covering_windows(side: int) -> None:
    rows, columns = 5, 6
    scores = torch.rand(2, rows - side + 1, columns - side + 1, generator=torch.Generator().manual_seed(side)) + 0.01
    found = harmonic_map(scores, side)
    for image in range(2):
        for row in range(rows):
            for column in range(columns):
                covering = [
                    float(scores[image, top, left])
                    for top in range(rows - side + 1)
                    for left in range(columns - side + 1)
                    if top <= row < top + side and left <= column < left + side
                ]
                expected = len(covering) / sum(1 / score for score in covering)
                assert float(found[image, row, column]) == pytest.approx(expected, rel=1e-5)


def test_window_of_score_zero_makes_its_patches_zero_and_nothing_nan() -> None:
    scores = torch.full((1, 2, 2), 0.5)
    scores[0, 0, 0] = 0
    found = harmonic_map(scores, 2)
    assert torch.equal(found[0, :2, :2], torch.zeros(2, 2))
    assert float(found[0, 2, 2]) == pytest.approx(0.5)


def plain_map(state: plain.State, image: Tensor, text: Tensor, config: WinClipConfig) -> tuple[Tensor, float]:
    """The zero-shot map on the patch grid and the image score, from unnormalised prompt rows (2, D)."""
    rows, columns = image.shape[1] // plain.PATCH, image.shape[2] // plain.PATCH
    tokens = plain.embedded(state, image, "bicubic")
    columns_of_text = torch.stack([plain.unit(text[0]), plain.unit(text[1])], 1)

    def score(embedding: Tensor) -> float:
        return float((plain.unit(embedding) @ columns_of_text / config.temperature).softmax(0)[1])

    whole = tokens
    for index in range(plain.BLOCKS):
        whole = plain.block(state, plain.visual(index), whole, "gelu")
    of_image = score(plain.project(state, whole[0]))
    inverse = torch.full((rows, columns), 1 / of_image, dtype=torch.float64)
    for side in config.scales:
        sums, counts = torch.zeros_like(inverse), torch.zeros_like(inverse)
        for top in range(rows - side + 1):
            for left in range(columns - side + 1):
                value = score(window_embedding(state, tokens, (rows, columns), top, left, side))
                sums[top : top + side, left : left + side] += 1 / value
                counts[top : top + side, left : left + side] += 1
        inverse += sums / counts
    return (1 + len(config.scales)) / inverse, of_image


def test_zero_shot_scores_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    config, image = WinClipConfig(), plain.images(1, 16, 20)
    method = head(path, config)
    found = method.score(encoded(path, image, config), ["bottle"])
    rows = method.prompts.rows[method.class_names.index("bottle")].detach().double()
    grid_map, of_image = plain_map(state, image[0], rows, config)
    expected = F.interpolate(grid_map[None, None], (16, 20), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(found.patch_map[0].double(), expected, atol=1e-5, rtol=0)
    assert float(found.image_score[0]) == pytest.approx(of_image, abs=1e-5)


def test_few_shot_scores_are_means_of_text_and_reference_scores(clip: tuple[Path, plain.State]) -> None:
    path, _ = clip
    config = WinClipConfig()
    images, references = plain.images(1, 16, 16), plain.images(2, 16, 16, seed=9)
    features, known = encoded(path, images, config), encoded(path, references, config)
    method = head(path, config)
    zero_shot = method.score(features, ["bottle"])
    method.remember("bottle", [method.memory([known])])
    few_shot = method.score(features, ["bottle"])
    levels = [
        (features.patch_tokens[stage][0], known.patch_tokens[stage], side) for stage, side in ((0, 2), (1, 3), (2, 1))
    ]
    maps = []
    for tokens, memory, side in levels:
        last = 4 - side + 1
        real = memory[:, :last, :last].reshape(-1, memory.shape[-1])
        distance = torch.zeros(last, last)
        for top in range(last):
            for left in range(last):
                distance[top, left] = min(
                    0.5 * (1 - F.cosine_similarity(tokens[top, left], one, dim=0)) for one in real
                )
        maps.append(harmonic_map(distance[None], side)[0])
    reference_map = torch.stack(maps).mean(0)
    full = F.interpolate(reference_map[None, None], (16, 16), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(few_shot.patch_map[0], (zero_shot.patch_map[0] + full) / 2, atol=1e-5, rtol=0)
    expected = (float(zero_shot.image_score[0]) + float(reference_map.max())) / 2
    assert float(few_shot.image_score[0]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ConfigError, match="no reference images of metal_nut"):
        method.score(features, ["metal_nut"])


def test_reference_image_itself_is_at_distance_zero(clip: tuple[Path, plain.State]) -> None:
    config = WinClipConfig()
    features = encoded(clip[0], plain.images(1, 16, 16), config)
    method = head(clip[0], config)
    method.remember("bottle", [method.memory([features])])
    assert float(method.reference_map(method._levels(features), ["bottle"], (4, 4)).abs().max()) < 1e-6


def test_batch_of_four_equals_four_of_one(clip: tuple[Path, plain.State]) -> None:
    config, images = WinClipConfig(), plain.images(4, 16, 16)
    method = head(clip[0], config)
    whole = method.score(encoded(clip[0], images, config), NAMES)
    for row, name in enumerate(NAMES):
        single = method.score(encoded(clip[0], images[row : row + 1], config), [name])
        torch.testing.assert_close(whole.patch_map[row : row + 1], single.patch_map, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.image_score[row : row + 1], single.image_score, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"activation": "quick_gelu"}, True),
        ({"position_resize": "bilinear"}, True),
        ({"scales": (2,)}, True),
        ({"templates": "paper"}, True),
        ({"normalise_sentences": True}, True),
        ({"temperature": 0.05}, True),
        ({"align_corners": True}, True),
        ({"sigma_px": 2.0}, True),
        ({"patch_norm": True}, False),  # of the reference memory only
    ],
)
def test_zero_shot_map_changes_exactly_with_the_settings_it_depends_on(
    clip: tuple[Path, plain.State], change: dict[str, object], moves: bool
) -> None:
    image = plain.images(1, 16, 20)
    maps = []
    for config in (WinClipConfig(), WinClipConfig().model_copy(update=change)):
        maps.append(head(clip[0], config).score(encoded(clip[0], image, config), ["metal_nut"]).patch_map)
    assert torch.equal(*maps) is not moves


def test_position_resize_does_not_matter_at_the_native_size(clip: tuple[Path, plain.State]) -> None:
    image = plain.images(1, 24, 24)
    maps = []
    for config in (WinClipConfig(), WinClipConfig(position_resize="bilinear")):
        maps.append(head(clip[0], config).score(encoded(clip[0], image, config), ["metal_nut"]).patch_map)
    assert torch.equal(*maps)


def test_prompts_are_those_of_the_paper_or_of_the_public_rebuilds() -> None:
    words = {"metal_nut": "metal nut"}
    paper = winclip_prompts(WinClipConfig(templates="paper"), words)
    released = winclip_prompts(WinClipConfig(), words)
    assert (len(paper.normal), len(paper.abnormal), len(set(paper.templates))) == (7, 4, 22)
    assert (len(released.templates), len(set(released.templates))) == (21, 20)
    assert released.templates.count("a jpeg corrupted photo of the {}.") == 2
    assert set(paper.templates) - set(released.templates) == {
        "a cropped photo of a {}.",
        "a jpeg corrupted photo of a {}.",
    }
    assert "a photo of a damaged metal nut." in paper.sentences("metal_nut").abnormal


def test_features_of_other_scales_and_grids_too_small_are_refused(clip: tuple[Path, plain.State]) -> None:
    features = encoded(clip[0], plain.images(1, 16, 16), WinClipConfig())
    with pytest.raises(ShapeError, match="1 scales and the patches, got 3"):
        head(clip[0], WinClipConfig(scales=(2,))).score(features, ["bottle"])
    with pytest.raises(ShapeError, match="2x5 patch grid"):
        encoded(clip[0], plain.images(1, 8, 20), WinClipConfig())
