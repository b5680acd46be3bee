"""The staged backbones against transformers run plainly, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from backbone_models import REGISTERS, STAGE_WIDTHS, WIDTH, saved, tiny_convnext, tiny_vit
from safetensors.torch import load_file, save_file
from torch import Tensor

from ad_dinov3.encoders.backbone import load_backbone, quarters
from ad_dinov3.encoders.stages import StagedConvNeXt, StagedViT
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.weights import load_backbone_weights, resolve_weights

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(images: Tensor) -> Tensor:
    return (images / 255 - MEAN) / STD


@pytest.mark.parametrize("gated", [False, True])
def test_vit_stages_equal_the_normed_hidden_states_of_transformers(tmp_path: Path, images: Tensor, gated: bool) -> None:
    model = tiny_vit(gated=gated)
    features = load_backbone(saved(model, tmp_path)).encode(images)
    with torch.no_grad():
        hidden = model(normalised(images), output_hidden_states=True).hidden_states
    assert features.grid == (4, 6)
    assert features.image_size == (64, 96)
    for stage, (patches, cls) in enumerate(zip(features.patch_tokens, features.cls_tokens, strict=True), start=1):
        expected = model.norm(hidden[stage])
        torch.testing.assert_close(patches.flatten(1, 2), expected[:, 1 + REGISTERS :], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(cls, expected[:, 0], atol=1e-5, rtol=1e-5)


def test_vit_patch_tokens_are_laid_out_row_by_row(tmp_path: Path) -> None:
    encoder = load_backbone(saved(tiny_vit(), tmp_path), stages=(1,))
    image = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    image[:, :, 16:32, 48:64] = 255  # the patch in row 1, column 3
    embedded = encoder.module.embeddings(encoder.normalise(image))[:, 1 + REGISTERS :].unflatten(1, (4, 6))
    differs = (embedded - embedded[:, :1, :1]).abs().amax(-1)[0] > 1e-6
    assert differs.nonzero().tolist() == [[1, 3]]


def test_vit_computes_no_block_after_its_last_stage(tmp_path: Path, images: Tensor) -> None:
    path = saved(tiny_vit(), tmp_path)
    encoder = load_backbone(path, stages=(1, 3))
    assert isinstance(encoder.module, StagedViT)
    assert len(encoder.module.blocks) == 3
    whole = load_backbone(path, stages=(1, 2, 3, 4)).encode(images)
    some = encoder.encode(images)
    assert torch.equal(some.patch_tokens[0], whole.patch_tokens[0])
    assert torch.equal(some.patch_tokens[1], whole.patch_tokens[2])


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(12, (3, 6, 9, 12)), (24, (6, 12, 18, 24)), (32, (8, 16, 24, 32)), (40, (10, 20, 30, 40)), (2, (1, 2))],
)
def test_quarters_end_where_the_paper_says(depth: int, expected: tuple[int, ...]) -> None:
    assert quarters(depth) == expected


def test_convnext_last_stage_equals_transformers(tmp_path: Path, images: Tensor) -> None:
    model = tiny_convnext()
    encoder = load_backbone(saved(model, tmp_path))
    features = encoder.encode(images)
    with torch.no_grad():
        plain = model(normalised(images))
    tokens = plain.last_hidden_state[:, 1:].unflatten(1, (2, 3)).permute(0, 3, 1, 2)
    enlarged = F.interpolate(tokens, size=(4, 6), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    assert features.grid == (4, 6)
    assert encoder.spec.widths == tuple(STAGE_WIDTHS)
    assert encoder.spec.size_multiple == encoder.spec.patch_size
    torch.testing.assert_close(features.patch_tokens[3], enlarged, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.cls_tokens[3], plain.pooler_output, atol=1e-5, rtol=1e-5)


def test_convnext_early_stages_pass_the_next_stages_first_norm(tmp_path: Path, images: Tensor) -> None:
    model = tiny_convnext()
    features = load_backbone(saved(model, tmp_path)).encode(images)
    with torch.no_grad():
        maps = model.model(normalised(images), output_hidden_states=True).hidden_states[1:]  # after the input
        norm = model.model.stages[1].downsample_layers[0]
        first = F.layer_norm(maps[0].permute(0, 2, 3, 1), (STAGE_WIDTHS[0],), norm.weight, norm.bias, norm.eps)
        pooled = first.unflatten(1, (4, 4)).unflatten(3, (6, 4)).mean((2, 4))  # 4x4 cells of stride 4 -> stride 16
        mean = F.layer_norm(maps[0].mean((2, 3)), (STAGE_WIDTHS[0],), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(features.patch_tokens[0], pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.cls_tokens[0], mean, atol=1e-5, rtol=1e-5)


def test_convnext_takes_any_multiple_of_its_grid_stride(tmp_path: Path, images: Tensor) -> None:
    encoder = load_backbone(saved(tiny_convnext(), tmp_path))
    height, width = (side // 32 * 32 + 16 for side in images.shape[2:])
    odd = images.repeat(1, 1, 2, 2)[:, :, :height, :width]
    padded = F.pad(odd.float(), (0, 16, 0, 16), mode="replicate").to(torch.uint8)
    features, whole = encoder.encode(odd), encoder.encode(padded)
    assert features.grid == (height // 16, width // 16)
    for stage, full in zip(features.patch_tokens, whole.patch_tokens, strict=True):
        torch.testing.assert_close(stage, full[:, : height // 16, : width // 16])


def test_convnext_grid_stride_of_the_folder_is_kept(tmp_path: Path, images: Tensor) -> None:
    path = saved(tiny_convnext(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "grid_stride": 8, "licence": "Apache-2.0"}))
    encoder = load_backbone(path)
    assert isinstance(encoder.module, StagedConvNeXt)
    assert encoder.encode(images).grid == (8, 12)
    assert (encoder.spec.patch_size, encoder.spec.licence) == (8, "Apache-2.0")


def test_half_precision_files_become_float32(tmp_path: Path, images: Tensor) -> None:
    path = saved(tiny_convnext(), tmp_path)
    file = tmp_path / "model.safetensors"
    exact = load_backbone(path).encode(images)
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    encoder = load_backbone(path)
    assert {tensor.dtype for tensor in encoder.module.parameters()} == {torch.float32}
    torch.testing.assert_close(encoder.encode(images).cls_tokens[3], exact.cls_tokens[3], atol=2e-2, rtol=2e-2)


def test_batch_order_does_not_change_an_images_features(tmp_path: Path, images: Tensor) -> None:
    encoder = load_backbone(saved(tiny_vit(), tmp_path))
    forward, backward = encoder.encode(images), encoder.encode(images.flip(0))
    torch.testing.assert_close(forward.patch_tokens[3], backward.patch_tokens[3].flip(0), atol=1e-6, rtol=1e-6)


def test_features_can_be_trained_on(tmp_path: Path, images: Tensor) -> None:
    features = load_backbone(saved(tiny_vit(), tmp_path)).encode(images)
    head = torch.nn.Linear(WIDTH, 1)
    head(features.patch_tokens[0]).sum().backward()
    assert head.weight.grad is not None


def test_autocast_gives_float32_close_to_the_exact_features(tmp_path: Path, images: Tensor) -> None:
    path = saved(tiny_vit(), tmp_path)
    exact, half = load_backbone(path), load_backbone(path, autocast=torch.bfloat16)
    features = half.encode(images)
    assert features.patch_tokens[0].dtype == torch.float32
    assert exact.spec.fingerprint != half.spec.fingerprint
    torch.testing.assert_close(features.cls_tokens[3], exact.encode(images).cls_tokens[3], atol=0.3, rtol=0.1)


def test_fingerprint_tells_weights_and_stages_apart(tmp_path: Path) -> None:
    path = saved(tiny_vit(), tmp_path)
    first = load_backbone(path).spec.fingerprint
    assert load_backbone(path).spec.fingerprint == first
    assert load_backbone(path, stages=(1, 2)).spec.fingerprint != first
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["norm.bias"][0] += 1e-3
    save_file(tensors, file)
    assert load_backbone(path).spec.fingerprint != first


def test_statistics_come_from_the_folders_processor(tmp_path: Path) -> None:
    path = saved(tiny_vit(), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]}')
    assert load_backbone(path).mean == (0.4, 0.5, 0.6)


@pytest.mark.parametrize("stages", [(0, 1), (2, 1), (1, 5), (1, 1), ()])
def test_stages_outside_the_depth_are_refused(tmp_path: Path, stages: tuple[int, ...]) -> None:
    weights = load_backbone_weights(resolve_weights(saved(tiny_vit(), tmp_path)))
    with pytest.raises(ConfigError, match=r"1\.\.4"):
        StagedViT(tiny_vit(), stages)
    assert weights.kind == "vit"


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, 60, 64), torch.uint8, "multiples of 16 px, got 60x64"),
        ((2, 3, 64, 64), torch.float32, "uint8"),
        ((3, 64, 64), torch.uint8, r"\(B, 3, H, W\)"),
        ((1, 4, 64, 64), torch.uint8, r"\(B, 3, H, W\)"),
    ],
)
def test_images_of_another_form_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, message: str
) -> None:
    encoder = load_backbone(saved(tiny_vit(), tmp_path))
    with pytest.raises(ShapeError, match=message):
        encoder.encode(torch.zeros(shape, dtype=dtype))


def test_tensors_that_do_not_fit_the_configuration_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(tiny_vit(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(WeightsError, match="says num_hidden_layers = 5, the tensors 4"):
        load_backbone(path)


def test_staged_module_exports_as_one_graph(tmp_path: Path, images: Tensor) -> None:
    encoder = load_backbone(saved(tiny_convnext(), tmp_path))
    pixels = encoder.normalise(images)
    exported = torch.export.export(encoder.module, (pixels,)).module()
    torch.testing.assert_close(exported(pixels)[0][3], encoder.module(pixels)[0][3])
