"""One network, three layouts, the same features: Hugging Face's, timm's and Meta's files against each other."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from backbone_models import (
    HEADS,
    WIDTH,
    convnext_as_meta,
    convnext_as_timm,
    saved,
    tiny_convnext,
    tiny_vit,
    vit_as_meta,
    vit_as_timm,
)
from safetensors.torch import save_file
from torch import Tensor

from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.errors import WeightsError
from ad_dinov3.types import Features
from ad_dinov3.weights import load_backbone_weights, resolve_weights
from ad_dinov3.weights.hashes import sha256_of


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def assert_same(one: Features, other: Features) -> None:
    for left, right in zip(one.patch_tokens + one.cls_tokens, other.patch_tokens + other.cls_tokens, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(("gated", "bias"), [(False, True), (True, True), (True, False)])
def test_metas_vit_file_gives_the_features_of_the_hugging_face_folder(
    tmp_path: Path, images: Tensor, gated: bool, bias: bool
) -> None:
    model = tiny_vit(gated=gated, bias=bias)
    torch.save(vit_as_meta(model), tmp_path / "meta.pth")  # alone: the configuration is told by shapes and periods
    plain = load_backbone(saved(model, tmp_path / "hf"))
    meta = load_backbone(str(tmp_path / "meta.pth"))
    assert_same(meta.encode(images), plain.encode(images))
    assert meta.spec.fingerprint == plain.spec.fingerprint


def test_metas_rounded_rotary_periods_are_used_as_metas_code_uses_them(tmp_path: Path, images: Tensor) -> None:
    model = tiny_vit()
    tensors = vit_as_meta(model)
    rounded = tensors["rope_embed.periods"].bfloat16()
    torch.save(tensors | {"rope_embed.periods": rounded}, tmp_path / "meta.pth")
    plain, meta = load_backbone(saved(model, tmp_path / "hf")), load_backbone(str(tmp_path / "meta.pth"))
    assert not torch.equal(plain.encode(images).patch_tokens[0], meta.encode(images).patch_tokens[0])
    assert plain.spec.fingerprint != meta.spec.fingerprint
    cos, sin = meta.module.rope_embeddings(torch.zeros(1, 3, 32, 64))
    width = WIDTH // HEADS
    for place in range(8):  # 2 x 4 patches of 16 px
        centre = [2 * (place // 4 + 0.5) / 2 - 1, 2 * (place % 4 + 0.5) / 4 - 1]
        for channel in range(width):
            axis, index = divmod(channel % (width // 2), width // 4)
            angle = torch.tensor(2 * math.pi * centre[axis] / float(rounded[index]))
            torch.testing.assert_close(cos[place, channel], angle.cos(), atol=1e-5, rtol=0)
            torch.testing.assert_close(sin[place, channel], angle.sin(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("gated", "bias"), [(False, True), (True, False)])
def test_timms_vit_file_gives_the_features_of_the_hugging_face_folder(
    tmp_path: Path, images: Tensor, gated: bool, bias: bool, fused: bool
) -> None:
    model = tiny_vit(gated=gated, bias=bias)
    folder = tmp_path / "timm"
    folder.mkdir()
    save_file(vit_as_timm(model, fused=fused), folder / "model.safetensors")
    timm_config = {
        "architecture": "vit_tiny",
        "num_attention_heads": HEADS,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]},
    }
    (folder / "config.json").write_text(json.dumps(timm_config))
    weights = load_backbone_weights(resolve_weights(str(folder)))
    assert weights.layout == "timm"
    plain = load_backbone(saved(model, tmp_path / "hf"))
    assert_same(load_backbone(str(folder)).encode(images), plain.encode(images))


@pytest.mark.parametrize("write", [convnext_as_meta, convnext_as_timm])
def test_convnext_files_give_the_features_of_the_hugging_face_folder(
    tmp_path: Path, images: Tensor, write: type[convnext_as_meta]
) -> None:
    model = tiny_convnext()
    torch.save(write(model), tmp_path / "other.pth")
    plain = load_backbone(saved(model, tmp_path / "hf"))
    other = load_backbone(str(tmp_path / "other.pth"))
    assert_same(other.encode(images), plain.encode(images))
    assert other.spec.fingerprint == plain.spec.fingerprint


def test_a_state_dict_as_transformers_names_it_in_memory_loads_too(tmp_path: Path, images: Tensor) -> None:
    model = tiny_vit()
    path = saved(model, tmp_path)
    expected = load_backbone(path).encode(images)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "mine.pth")  # model.layer.0..., nested
    assert_same(load_backbone(path).encode(images), expected)


def test_sharded_safetensors_load_as_one(tmp_path: Path, images: Tensor) -> None:
    model = tiny_vit()
    expected = load_backbone(saved(model, tmp_path / "one")).encode(images)
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert_same(load_backbone(str(tmp_path / "many")).encode(images), expected)
    next((tmp_path / "many").glob("model-00002*")).unlink()
    with pytest.raises(WeightsError, match="model-00002"):
        load_backbone(str(tmp_path / "many"))


def test_a_key_bias_without_a_mask_is_kept(tmp_path: Path) -> None:
    tensors = vit_as_meta(tiny_vit())
    for name in [name for name in tensors if name.endswith("bias_mask")]:
        del tensors[name]
        tensors[name.removesuffix("_mask")] = torch.ones_like(tensors[name.removesuffix("_mask")])
    torch.save(tensors, tmp_path / "meta.pth")
    weights = load_backbone_weights(resolve_weights(str(tmp_path / "meta.pth")))
    assert weights.config["key_bias"] is True
    load_backbone(str(tmp_path / "meta.pth"))


def test_a_hash_in_the_name_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(vit_as_meta(tiny_vit()), file)
    right = file.rename(tmp_path / f"mine-{sha256_of(file)[:8]}.pth")
    assert load_backbone(str(right)).spec.name.startswith("mine")
    wrong = right.rename(tmp_path / "mine-01234567.pth")
    with pytest.raises(WeightsError, match="expected a sha256 that begins with 01234567, found"):
        load_backbone(str(wrong))


def test_a_model_of_another_size_under_a_public_name_is_refused(tmp_path: Path) -> None:
    torch.save(vit_as_meta(tiny_vit()), tmp_path / "dinov3-vitl16.pth")
    with pytest.raises(
        WeightsError, match=r"expected dinov3-vitl16.*1024, 24, 16.*found a vit with \[32, 4"
    ) as refusal:
        load_backbone(str(tmp_path / "dinov3-vitl16.pth"))
    assert "dinov3-vitl16.pth" in str(refusal.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv1.weight": torch.zeros(1)}, "found conv1.weight"),
        ({"pos_embed": torch.zeros(1), "patch_embed.proj.weight": torch.zeros(32, 3, 16, 16)}, "such as pos_embed"),
        ({"patch_embed.proj.weight": torch.zeros(32, 3, 16, 16)}, "config.json"),
        ({"stem.0.weight": torch.zeros(8, 3, 4, 4)}, "found no tensor"),
    ],
)
def test_files_of_other_models_are_refused_with_what_was_found(
    tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message) as refusal:
        load_backbone(str(tmp_path / "other.pth"))
    assert "other.pth" in str(refusal.value)


def test_a_folder_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = saved(tiny_vit(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "num_attention_heads": 2}')
    with pytest.raises(WeightsError, match="is of a 'dinov2'"):
        load_backbone(path)
