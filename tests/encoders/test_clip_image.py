"""CLIP's image tower against its formulas in plain loops, in every resize of positions, and its refusals."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "methods"))
import plain_clip as plain

from ad_dinov3.encoders.clip_image import ClipImageEncoder, ClipTaps, LoadedVision, load_clip_vision
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError

RESIZES = ("bilinear", "bicubic", "bicubic_antialias")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, plain.State]:
    folder = tmp_path_factory.mktemp("clip")
    return folder / "clip.pt", plain.double(plain.save_clip(folder))


def load(path: Path, activation: str = "gelu", resize: str = "bicubic") -> LoadedVision:
    return load_clip_vision(str(path), activation=activation, position_resize=resize)  # type: ignore[arg-type]


def taps(loaded: LoadedVision, stages: tuple[int, ...] = (2, 6)) -> ClipImageEncoder:
    return loaded.encoder(ClipTaps(loaded.vision, stages), (plain.WIDTH,) * len(stages), {"stages": stages})


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("resize", RESIZES)
def test_taps_equal_the_formulas_in_plain_loops(clip: tuple[Path, plain.State], activation: str, resize: str) -> None:
    path, state = clip
    image = plain.images(1, 36, 28)
    found = taps(load(path, activation, resize)).encode(image)
    tokens = plain.embedded(state, image[0], resize)
    outputs = []
    for index in range(plain.BLOCKS):
        tokens = plain.block(state, plain.visual(index), tokens, activation)
        outputs.append(tokens)
    assert found.grid == (9, 7)
    for stage, count in enumerate((2, 6)):
        torch.testing.assert_close(
            found.patch_tokens[stage][0].flatten(0, 1).double(), outputs[count - 1][1:], atol=1e-4, rtol=1e-5
        )
    for cls in found.cls_tokens:
        torch.testing.assert_close(cls[0].double(), plain.project(state, tokens[0]), atol=1e-4, rtol=1e-5)


def test_resize_of_positions_matters_exactly_where_the_grid_differs(clip: tuple[Path, plain.State]) -> None:
    own, other = plain.images(1, 24, 24), plain.images(1, 36, 36)
    encoders = [taps(load(clip[0], resize=resize)) for resize in RESIZES]
    at_own = [encoder.encode(own).patch_tokens[0] for encoder in encoders]
    at_other = [encoder.encode(other).patch_tokens[0] for encoder in encoders]
    assert torch.equal(at_own[0], at_own[1])
    assert torch.equal(at_own[0], at_own[2])
    assert all((at_other[i] - at_other[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_batch_of_four_equals_four_of_one(clip: tuple[Path, plain.State]) -> None:
    encoder, four = taps(load(clip[0])), plain.images(4)
    whole = encoder.encode(four)
    for row in range(4):
        single = encoder.encode(four[row : row + 1])
        torch.testing.assert_close(whole.patch_tokens[1][row : row + 1], single.patch_tokens[1], atol=1e-5, rtol=1e-5)


def test_features_hold_no_gradient(clip: tuple[Path, plain.State]) -> None:
    encoder = taps(load(clip[0]))
    found = encoder.encode(plain.images(1))
    assert not any(tensor.requires_grad for tensor in (*found.patch_tokens, *found.cls_tokens))
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_fingerprint_tells_weights_and_settings_apart(clip: tuple[Path, plain.State]) -> None:
    prints = [
        taps(load(clip[0])).spec.fingerprint,
        taps(load(clip[0], activation="quick_gelu")).spec.fingerprint,
        taps(load(clip[0], resize="bilinear")).spec.fingerprint,
        taps(load(clip[0]), stages=(1, 6)).spec.fingerprint,
    ]
    assert len(set(prints)) == 4
    assert prints[0] == taps(load(clip[0])).spec.fingerprint


def test_text_tower_alone_is_refused(tmp_path: Path) -> None:
    state = plain.save_clip(tmp_path)
    torch.save({name: t for name, t in state.items() if not name.startswith("visual.")}, tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match="vis"):
        load(tmp_path / "clip.pt")


def test_wrong_inputs_and_stages_are_refused_with_the_expected(clip: tuple[Path, plain.State]) -> None:
    loaded = load(clip[0])
    with pytest.raises(ShapeError, match="multiples of 4"):
        taps(loaded).encode(plain.images(1, 30, 36))
    with pytest.raises(ShapeError, match="uint8"):
        taps(loaded).encode(plain.images(1).float())
    with pytest.raises(ConfigError, match=r"within 1\.\.6"):
        ClipTaps(loaded.vision, (3, 7))


def test_two_encoders_can_share_one_tower(clip: tuple[Path, plain.State]) -> None:
    loaded = load(clip[0])
    first, second = taps(loaded, (2,)), taps(replace(loaded, name="again"), (2, 4))
    image = plain.images(1)
    assert torch.equal(first.encode(image).patch_tokens[0], second.encode(image).patch_tokens[0])
