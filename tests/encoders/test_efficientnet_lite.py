"""EfficientNet-Lite against itself as published: unfolded batch norms, SAME padding by its definition."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from plain_lite import GROUPS, STAGES, STRIDES, WIDTHS, blocks_of, lite_folder, published
from torch import Tensor

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.encoders.context import FILTER_WIDTH
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.exported import Precision, Runtime
from ad_dinov3.infer.session import Session
from ad_dinov3.model import new_model


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    module: ModuleType = pytest.importorskip("recipes.embedded.convert_lite")  # not part of an installed package
    return module


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return published()


@pytest.fixture
def folder(convert: ModuleType, state: dict[str, Tensor], tmp_path: Path) -> str:
    return lite_folder(tmp_path / "lite", convert.converted(state))


def images(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_stages_equal_the_published_network(state: dict[str, Tensor], folder: str, size: tuple[int, int]) -> None:
    features = load_backbone(folder).encode(images(*size))
    outputs = blocks_of(state, (images(*size).float() - 127) / 128)
    assert [tokens.shape[-1] for tokens in features.patch_tokens] == list(WIDTHS)
    for index, (stage, stride) in enumerate(zip(STAGES, STRIDES, strict=True)):
        expected = outputs[stage - 1]
        torch.testing.assert_close(features.cls_tokens[index], expected.mean((2, 3)), atol=2e-4, rtol=1e-4)
        if stride < 8:
            expected = F.avg_pool2d(expected, 8 // stride)
        elif stride > 8:
            expected = F.interpolate(expected, scale_factor=stride // 8, mode="bilinear")
        torch.testing.assert_close(features.patch_tokens[index].permute(0, 3, 1, 2), expected, atol=2e-4, rtol=1e-4)


def test_sides_that_the_coarsest_stage_does_not_divide_are_continued_by_their_last_pixels(folder: str) -> None:
    encoder, small = load_backbone(folder), images(40, 56)
    continued = F.pad(small.float(), (0, 8, 0, 24), mode="replicate").to(torch.uint8)
    found, expected = encoder.encode(small), encoder.encode(continued)
    assert found.grid == (5, 7)
    for one, whole in zip(found.patch_tokens, expected.patch_tokens, strict=True):
        torch.testing.assert_close(one, whole[:, :5, :7])


def test_context_joins_filters_and_the_half_image(
    convert: ModuleType, state: dict[str, Tensor], tmp_path: Path
) -> None:
    encoder = load_backbone(lite_folder(tmp_path / "lite", convert.converted(state), context=True))
    assert encoder.spec.widths == (FILTER_WIDTH, *WIDTHS, WIDTHS[-2])
    half = F.interpolate(encoder.normalise(images(64, 64)), (32, 32), mode="bilinear")
    coarse = blocks_of(state, half)[STAGES[-2] - 1]
    expected = F.interpolate(F.interpolate(coarse, (4, 4), mode="bilinear"), (8, 8), mode="bilinear")
    found = encoder.encode(images(64, 64)).patch_tokens[-1].permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_fingerprint_tells_stages_architecture_and_weights(
    convert: ModuleType, state: dict[str, Tensor], folder: str, tmp_path: Path
) -> None:
    first = load_backbone(folder).spec.fingerprint
    assert load_backbone(folder).spec.fingerprint == first
    assert load_backbone(folder, stages=(3, 5)).spec.fingerprint != first
    strides = [[*row[:2], 1 if row[2] == 2 and row[4] == 24 else row[2], *row[3:]] for row in GROUPS]
    other = lite_folder(tmp_path / "strides", convert.converted(state), groups=strides)
    assert load_backbone(other).spec.fingerprint != first
    assert load_backbone(lite_folder(tmp_path / "seed", convert.converted(published(1)))).spec.fingerprint != first


def test_weights_without_their_architecture_are_refused(folder: str) -> None:
    config = Path(folder, "config.json")
    tree = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in tree.items() if key != "groups"}))
    with pytest.raises(WeightsError, match="groups"):
        load_backbone(folder)
    config.write_text(json.dumps({**tree, "grid_stride": 12}))
    with pytest.raises(ConfigError, match="grid stride"):
        load_backbone(folder)


def test_groups_are_read_from_the_widths_of_the_projections(convert: ModuleType) -> None:
    widths = iter([16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320])
    tensors = {f"blocks.{i}.project.weight": torch.zeros(width, 1, 1, 1) for i, width in enumerate(widths)}
    groups = convert.groups_of(0, tensors)
    assert [row[-1] for row in groups] == [16, 24, 40, 80, 112, 192, 320]
    assert sum(row[0] for row in groups) == convert.STAGES[0][-1]


def test_wheel_of_another_content_is_refused(convert: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.whl").write_bytes(b"not a wheel")
    with pytest.raises(SystemExit, match="sha256"):
        convert.read_wheel(tmp_path / "other.whl")


def test_shipped_backbone_computes_finite_features_of_known_shape() -> None:
    encoder = load_backbone("lite0", offline=True)
    features = encoder.encode(images(64, 64))
    assert encoder.spec.widths == (24, 24, 40, 112, 320, 112)
    assert encoder.spec.trained_on == ("imagenet_1k",)
    assert all(bool(torch.isfinite(tokens).all()) for tokens in features.patch_tokens)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        pytest.param("onnx", "fp32", marks=pytest.mark.slow),
        ("openvino", "fp32"),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
        ("pt2", "fp32"),
    ],
)
def test_exported_graph_scores_as_the_model(
    convert: ModuleType, state: dict[str, Tensor], tmp_path: Path, runtime: Runtime, precision: Precision
) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "nncf", "pt2": "torch"}[runtime])
    encoder = lite_folder(tmp_path / "lite", convert.converted(state), context=True)
    changes = {"encoder": encoder, "input.height": 64, "input.width": 96, "method.width": 8, "method.rarity": 3}
    detector = Detector(new_model(PRESETS["embedded"].with_settings({**changes, "method.gain": 1.0})), offline=True)
    (tmp_path / "photos").mkdir()
    batch = images(64, 96).numpy()
    for index, pixels in enumerate(batch):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "photos" / f"{index}.png")
    options = ExportOptions(runtime, precision, calibration=tmp_path / "photos")
    parity = export_model(detector, "lite", tmp_path / "out", options)
    assert parity.summary()["map_correlation"] > (0.9 if precision == "int8" else 0.9999)
    told = json.loads((tmp_path / "out" / "parity.json").read_text())["speed_over_fp32"]
    assert 0.1 < told < 20 if precision == "int8" else told is None
    expected, found = (one.score(batch, ["object"] * 2) for one in (detector, Session(tmp_path / "out", threads=1)))
    np.testing.assert_allclose(found.maps, expected.maps, atol=0.1 if precision == "int8" else 1e-3)
