"""AdaCLIP against its formulas in plain loops: prompts in both towers, cluster fusion, scores, losses, checkpoints."""

from __future__ import annotations

from pathlib import Path

import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ad_dinov3.config.methods import AdaClipConfig
from ad_dinov3.encoders.clip_image import ClipImageEncoder, load_clip_vision
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods.adaclip import AdaClip, ClipStart, Sentences, adaclip_prompts, from_authors, to_authors
from ad_dinov3.methods.kmeans import kmeans

STAGES = (1, 3, 5, 6)
CONFIG = AdaClipConfig(clusters=4, cluster_patches=12)
NAMES = ["bottle", "damaged", "bottle", "damaged"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, plain.State]:
    folder = tmp_path_factory.mktemp("clip")
    return folder / "clip.pt", plain.double(plain.save_clip(folder))


def both(path: Path, config: AdaClipConfig = CONFIG) -> tuple[ClipImageEncoder, AdaClip]:
    loaded = load_clip_vision(str(path), activation=config.activation, position_resize=config.position_resize)
    text = load_clip_text(str(path), activation=config.activation)
    torch.manual_seed(0)
    head = AdaClip(config, loaded.vision, ClipTextTower(text.module), STAGES)
    prompts = adaclip_prompts(AdaClipConfig(), {"bottle": "bottle", "damaged": "damaged"})
    said = {name: prompts.sentences(name) for name in ("bottle", "damaged")}
    few = {name: (lines.normal[:3], lines.abnormal[::9]) for name, lines in said.items()}
    head.set_sentences({name: Sentences(*(text.tokenize(side) for side in sides)) for name, sides in few.items()})
    with torch.no_grad():
        for prompt in (*head.visual_prompts, *head.text_prompts):
            prompt.mul_(10)  # larger than at the start of training, so that they matter
    return loaded.encoder(ClipStart(loaded.vision), (plain.WIDTH,), {}), head.eval()


def linear(layer: torch.nn.Module, vector: Tensor) -> Tensor:
    return layer.weight.detach().double() @ vector + layer.bias.detach().double()


def half(tensor: Tensor) -> Tensor:
    return tensor.detach().float().half().double()


def plain_joint(state: plain.State, image: Tensor, head: AdaClip, name: str) -> tuple[list[Tensor], Tensor, Tensor]:
    """Unit patches (T, D) of each stage, the unit CLS token (D,), and the text columns (D, 2)."""
    start = plain.embedded(state, image, "bicubic")
    frozen = start
    for index in range(plain.BLOCKS):
        frozen = plain.block(state, plain.visual(index), frozen, "gelu")
    embedding = plain.project(state, frozen[0])
    visual = torch.stack([linear(layer, embedding) for layer in head.visual_generators])
    textual = torch.stack([linear(layer, embedding) for layer in head.text_generators])
    tokens, taps, own = start, [], len(start)
    for index in range(plain.BLOCKS):
        if index < 4:  # appended before the first block, replaced before the next three, then carried along
            tokens = torch.cat([tokens[:own], half(head.visual_prompts[index] + visual)])
        tokens = plain.block(state, plain.visual(index), tokens, "gelu")
        if index + 1 in STAGES:
            layer = head.patch_layers[len(taps)]
            taps.append(torch.stack([plain.unit(linear(layer, token)) for token in tokens[1:own]]))
    cls = plain.unit(linear(head.cls_layer, plain.project(state, tokens[0])))
    columns = []
    for ids in (head.sentences[name].normal, head.sentences[name].abnormal):
        deep = [half(prompt + textual) for prompt in head.text_prompts]
        said = [plain.unit(plain.text_embedding(state, row.tolist(), "gelu", deep)) for row in ids]
        columns.append(plain.unit(torch.stack(said).mean(0)))
    return taps, cls, torch.stack(columns, 1)


def plain_image_embedding(taps: list[Tensor], cls: Tensor, text: Tensor, config: AdaClipConfig) -> Tensor:
    """Hybrid semantic fusion, cluster by cluster."""
    logits = sum(100 * tokens @ text for tokens in taps) / len(taps)
    abnormal = logits.softmax(1)[:, 1]
    chosen = sorted(range(len(abnormal)), key=lambda place: -float(abnormal[place]))[: config.cluster_patches]
    points = torch.cat([tokens[chosen] for tokens in taps], 1).float().numpy()
    labels = kmeans(points, config.clusters, config.cluster_seed)
    centres = []
    for label in range(config.clusters):
        members = [tokens[place] for tokens in taps for place, own in zip(chosen, labels, strict=True) if own == label]
        centres.append(torch.stack(members).mean(0))
    return plain.unit(0.2 * plain.unit(torch.stack(centres).mean(0)) + 0.8 * cls)


def test_prompted_towers_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    encoder, head = both(path)
    image = plain.images(1, 20, 28)
    joint = head(encoder.encode(image), ["bottle"])
    taps, cls, text = plain_joint(state, image[0], head, "bottle")
    for found, expected in zip(joint.patches, taps, strict=True):
        torch.testing.assert_close(found[0].detach().double(), expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(joint.cls[0].detach().double(), cls, atol=2e-5, rtol=0)
    torch.testing.assert_close(joint.text[0].detach().double(), text, atol=2e-5, rtol=0)


def test_scores_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State]) -> None:
    path, state = clip
    encoder, head = both(path)
    image = plain.images(1, 20, 28)
    found = head.score(encoder.encode(image), ["bottle"])
    taps, cls, text = plain_joint(state, image[0], head, "bottle")
    full = [
        F.interpolate((100 * tokens @ text).T.reshape(1, 2, 5, 7), (20, 28), mode="bilinear", align_corners=True)
        for tokens in taps
    ]
    probabilities = torch.stack(full).mean(0)[0].softmax(0)
    expected = gaussian_filter(((probabilities[1] + 1 - probabilities[0]) / 2).numpy(), sigma=4)
    torch.testing.assert_close(found.patch_map[0].double(), torch.from_numpy(expected), atol=5e-4, rtol=0)
    embedding = plain_image_embedding(taps, cls, text, CONFIG)
    assert float(found.image_score[0]) == pytest.approx(float((100 * embedding @ text).softmax(0)[1]), abs=1e-3)


def test_cluster_embedding_equals_a_plain_loop(clip: tuple[Path, plain.State]) -> None:
    _, head = both(clip[0])
    draw = torch.Generator().manual_seed(0)
    patches = [F.normalize(torch.randn(2, 30, plain.SHARED, generator=draw), dim=-1) for _ in range(3)]
    abnormal = torch.rand(2, 30, generator=draw)
    found = head.cluster_embedding(patches, abnormal)
    for row in range(2):
        chosen = abnormal[row].argsort(descending=True)[:12].tolist()
        labels = kmeans(torch.cat([one[row][chosen] for one in patches], 1).numpy(), 4, CONFIG.cluster_seed)
        centres = []
        for label in range(4):
            kept = [place for place, own in zip(chosen, labels, strict=True) if own == label]
            centres.append(torch.stack([one[row, place] for one in patches for place in kept]).mean(0))
        torch.testing.assert_close(found[row], plain.unit(torch.stack(centres).mean(0)), atol=1e-6, rtol=0)


def test_batch_of_four_equals_four_of_one(clip: tuple[Path, plain.State]) -> None:
    encoder, head = both(clip[0])
    images = plain.images(4, 20, 20)
    whole = head.score(encoder.encode(images), NAMES)
    for row, name in enumerate(NAMES):
        single = head.score(encoder.encode(images[row : row + 1]), [name])
        torch.testing.assert_close(whole.patch_map[row : row + 1], single.patch_map, atol=1e-4, rtol=0)
        torch.testing.assert_close(whole.image_score[row : row + 1], single.image_score, atol=1e-4, rtol=0)


def test_two_runs_give_the_same_bits(clip: tuple[Path, plain.State]) -> None:
    image = plain.images(1, 20, 20)
    runs = []
    for _ in range(2):
        encoder, head = both(clip[0])
        runs.append(head.score(encoder.encode(image), ["bottle"]))
    assert torch.equal(runs[0].patch_map, runs[1].patch_map)
    assert torch.equal(runs[0].image_score, runs[1].image_score)


@pytest.mark.parametrize(
    ("change", "map_moves", "score_moves"),
    [
        ({"activation": "quick_gelu"}, True, True),
        ({"position_resize": "bicubic_antialias"}, True, True),
        ({"half_prompts": False}, True, True),
        ({"gain": 50.0}, True, True),
        ({"merge": "probabilities"}, True, False),
        ({"align_corners": False}, True, False),
        ({"sigma_px": 2.0}, True, False),
        ({"clusters": 2}, False, True),
        ({"cluster_patches": 20}, False, True),
        ({"cluster_weight": 0.5}, False, True),
        ({"cluster_seed": 5}, False, True),
    ],
)
def test_map_and_score_change_exactly_with_their_settings(
    clip: tuple[Path, plain.State], change: dict[str, object], map_moves: bool, score_moves: bool
) -> None:
    image = plain.images(1, 20, 28)
    found = []
    for config in (CONFIG, CONFIG.model_copy(update=change)):
        encoder, head = both(clip[0], config)
        found.append(head.score(encoder.encode(image), ["bottle"]))
    assert torch.equal(found[0].patch_map, found[1].patch_map) is not map_moves
    assert torch.equal(found[0].image_score, found[1].image_score) is not score_moves


def test_each_learned_part_moves_the_map(clip: tuple[Path, plain.State]) -> None:
    encoder, head = both(clip[0])
    features = encoder.encode(plain.images(1, 20, 20))
    before = head.score(features, ["bottle"]).patch_map
    parts = [*head.visual_prompts, *head.text_prompts, head.visual_generators[4].bias, head.text_generators[0].bias]
    for parameter in [*parts, head.patch_layers[2].bias]:
        with torch.no_grad():
            parameter.add_(1)
            assert not torch.equal(before, head.score(features, ["bottle"]).patch_map)
            parameter.sub_(1)


def test_authors_checkpoint_round_trip_gives_the_same_map(clip: tuple[Path, plain.State], tmp_path: Path) -> None:
    from ad_dinov3.weights import read_tensors

    encoder, first = both(clip[0])
    _, second = both(clip[0])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    state = to_authors(first)
    assert state["clip_model.text_prompter.static_prompts.0"].shape == (5, plain.TEXT_WIDTH)
    assert len(state) == 4 + 4 + 2 * (4 + 1 + 5 + 5)
    torch.save(state, tmp_path / "pretrained_all.pth")
    from_authors(second, read_tensors(tmp_path / "pretrained_all.pth"))
    features = encoder.encode(plain.images(1, 20, 20))
    assert torch.equal(first.score(features, ["bottle"]).patch_map, second.score(features, ["bottle"]).patch_map)


def test_incomplete_checkpoint_is_refused_with_the_names(clip: tuple[Path, plain.State]) -> None:
    _, head = both(clip[0])
    state = to_authors(head)
    del state["clip_model.cls_token_layer.head.0.bias"]
    state["clip_model.HSF.centres"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 missing: \S+cls_token_layer\.head\.0\.bias; 1 unknown: \S+HSF\.centres"):
        from_authors(head, state)


def test_training_reaches_every_learned_part_and_neither_tower(clip: tuple[Path, plain.State]) -> None:
    encoder, head = both(clip[0])
    features = encoder.encode(plain.images(2, 20, 20))
    masks = torch.zeros(2, 20, 20)
    masks[0, 4:10, 4:10] = 1
    towers = [*encoder.module.parameters(), *head.frozen.needed().parameters()]
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3, (0.5, 0.999))
    totals = []
    for _ in range(8):
        losses = head.losses(features, ["bottle", "damaged"], masks, torch.tensor([True, False]))
        optimiser.zero_grad()
        losses["total"].backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        optimiser.step()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < totals[0]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in towers)
    assert not any(name.startswith(("frozen", "_vision")) for name in head.state_dict())


def test_image_term_is_the_focal_loss_of_the_listed_label_and_not_of_the_mask(clip: tuple[Path, plain.State]) -> None:
    encoder, head = both(clip[0])
    features, names = encoder.encode(plain.images(2, 20, 20)), ["bottle", "damaged"]
    labels = torch.tensor([False, True])

    found = head.losses(features, names, torch.zeros(2, 20, 20), labels)["image"]

    abnormal = head.score(features, names).image_score
    right = torch.stack([1 - abnormal[0], abnormal[1]])
    smooth = right * (1 - 1e-5) + (1 - right) * 1e-5 + 1e-5
    assert float(found.detach()) == pytest.approx(float((-((1 - smooth) ** 2) * smooth.log()).mean()), rel=1e-4)


def test_class_without_sentences_is_refused_by_name(clip: tuple[Path, plain.State]) -> None:
    encoder, head = both(clip[0])
    with pytest.raises(ConfigError, match="no prompts for screw; baked are bottle, damaged"):
        head.score(encoder.encode(plain.images(1, 20, 20)), ["screw"])


def test_hyphens_in_class_words_become_spaces_and_underscores_stay() -> None:
    prompts = adaclip_prompts(AdaClipConfig(), {"metal_nut": "metal_nut", "pipe-fryum": "pipe-fryum"})
    assert "a bad photo of a damaged metal_nut." in prompts.sentences("metal_nut").abnormal
    assert "a bad photo of a damaged pipe fryum." in prompts.sentences("pipe-fryum").abnormal
    assert len(prompts.sentences("metal_nut").normal) + len(prompts.sentences("metal_nut").abnormal) == 48
