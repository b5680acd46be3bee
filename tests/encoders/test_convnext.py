"""Our ConvNeXt is the one of transformers, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from backbone_models import saved, shake
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.encoders.convnext import ConvNeXt, ConvNextConfig
from ad_dinov3.encoders.stages import StagedConvNeXt
from ad_dinov3.errors import ConfigError, WeightsError

WIDTHS, DEPTHS = (8, 12, 16, 24), (1, 2, 1, 3)


@pytest.mark.parametrize(("activation", "eps"), [("gelu", 1e-6), ("relu", 1e-3), ("silu", 1e-6)])
def test_stages_equal_those_of_transformers_bit_for_bit(activation: str, eps: float) -> None:
    theirs = DINOv3ConvNextModel(
        DINOv3ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS), hidden_act=activation, layer_norm_eps=eps)
    ).eval()
    shake(theirs)
    ours = ConvNeXt(ConvNextConfig(hidden_sizes=WIDTHS, depths=DEPTHS, hidden_act=activation, layer_norm_eps=eps))
    ours.load_state_dict({name.removeprefix("model."): tensor for name, tensor in theirs.state_dict().items()})
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        found = StagedConvNeXt(ours.eval(), (1, 2, 3, 4), 16)(images)
        expected = StagedConvNeXt(theirs, (1, 2, 3, 4), 16)(images)

    assert StagedConvNeXt(ours, (2, 4), 16).widths == (12, 24)
    assert all(map(torch.equal, found.patch_tokens, expected.patch_tokens))
    assert all(map(torch.equal, found.cls_tokens, expected.cls_tokens))


def test_activation_that_the_network_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="gelu, relu, silu, got 'swish'"):
        ConvNeXt(ConvNextConfig(hidden_sizes=WIDTHS, depths=DEPTHS, hidden_act="swish"))


def test_config_without_sizes_is_completed_from_the_tensors(tmp_path: Path) -> None:
    model = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(DEPTHS)))
    path = saved(model, tmp_path)
    whole = load_backbone(path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov3_convnext"}))

    assert load_backbone(path).spec == whole.spec
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov3_convnext", "depths": "three"}))
    with pytest.raises(WeightsError, match=r"config\.json beside it says depths = three, the tensors"):
        load_backbone(path)
