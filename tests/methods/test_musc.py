"""MuSc against loops over patches and images, and as a method that scores folders and no single image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import plain_clip as plain
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

from ad_dinov3.cli import predict
from ad_dinov3.config import PRESETS
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.musc import rescored
from ad_dinov3.model import Model, new_model, save_model
from ad_dinov3.predict.results import read_rows


def model(encoder: Path, side: int = 32) -> Model:
    small = {"encoder": str(encoder), "input.height": side, "input.width": side}
    return new_model(PRESETS["musc"].with_settings(small), offline=True)


def surroundings(tokens: torch.Tensor, side: int) -> list[torch.Tensor]:
    """Of tokens (h, w, C), set to mean 0 and deviation 1 as a whole: means over windows, at unit length."""
    tokens = (tokens.double() - tokens.double().mean()) / (tokens.double().var(correction=0) + 1e-5).sqrt()
    rows, columns, _ = tokens.shape
    found = []
    for row in range(rows):
        for column in range(columns):
            inside = [
                tokens[y, x]
                for y in range(row - side // 2, row + side // 2 + 1)
                for x in range(column - side // 2, column + side // 2 + 1)
                if 0 <= y < rows and 0 <= x < columns
            ]
            mean = torch.stack(inside).sum(0) / side**2
            found.append(mean / mean.norm())
    return found


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_maps_and_scores_equal_loops_over_patches_and_images(kind: str, request: pytest.FixtureRequest) -> None:
    side, count = (32, 5) if kind == "vit" else (64, 5)
    own = model(request.getfixturevalue(f"tiny_{kind}"), side)
    features = [own.encoder.encode(image[None]) for image in plain.images(count, side, side)]
    found = own.head.compare(features)  # type: ignore[operator]

    few = max(1, math.ceil(0.3 * (count - 1)))
    cells = features[0].grid[0]
    totals = np.zeros((count, cells * cells))
    stages = len(features[0].patch_tokens)
    for stage in range(stages):
        for window in (1, 3, 5):
            every = [surroundings(one.patch_tokens[stage][0], window) for one in features]
            for image in range(count):
                for cell, token in enumerate(every[image]):
                    others = [every[other] for other in range(count) if other != image]
                    far = sorted(min(float((token - one).norm()) for one in other) for other in others)
                    totals[image, cell] += sum(far[:few]) / few
    grids = torch.tensor(totals / (3 * stages) / 2).reshape(count, 1, cells, cells)
    maps = F.interpolate(grids, (side, side), mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(found.patch_map.double(), maps, atol=2e-3, rtol=0)  # tokens are kept in half precision
    embeddings = torch.stack([one.cls_tokens[-1][0] for one in features])
    expected = rescored(found.patch_map.amax((1, 2)), embeddings, (1, 2, 3))
    torch.testing.assert_close(found.image_score, expected)


def test_rescoring_equals_a_loop_over_images() -> None:
    draw = torch.Generator().manual_seed(0)
    scores, embeddings = torch.rand(6, generator=draw), torch.randn(6, 4, generator=draw)
    found = rescored(scores, embeddings, (1, 2, 9))
    for image in range(6):
        likeness = [max(0.0, float(F.cosine_similarity(embeddings[image], other, dim=0))) for other in embeddings]
        results = []
        for window in (1, 2, 9):
            nearest = sorted(range(6), key=lambda other: -likeness[other])[:window]
            chosen = sum(likeness[other] for other in nearest)
            results.append(sum(likeness[other] * float(scores[other]) for other in nearest) / chosen)
        assert float(found[image]) == pytest.approx(sum(results) / 3, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_images_have_finite_scores_and_their_order_does_not_matter(count: int, tiny_vit: Path) -> None:
    own = model(tiny_vit)
    features = [own.encoder.encode(image[None]) for image in plain.images(count, 32, 32)]
    found = own.head.compare(features)  # type: ignore[operator]
    assert found.patch_map.isfinite().all()
    assert 0 <= float(found.patch_map.min()) <= float(found.patch_map.max()) <= 1
    back = own.head.compare(features[::-1])  # type: ignore[operator]
    torch.testing.assert_close(back.patch_map.flip(0), found.patch_map, atol=1e-4, rtol=0)
    torch.testing.assert_close(back.image_score.flip(0), found.image_score, atol=1e-3, rtol=0)


def test_a_single_image_is_refused_with_what_to_add(tiny_vit: Path) -> None:
    detector = Detector(model(tiny_vit), offline=True)
    image = plain.images(1, 32, 32)[0].permute(1, 2, 0).numpy()
    with pytest.raises(ConfigError, match=r"scores no image by itself.*add --compare folder"):
        detector.predict(image)
    with pytest.raises(ConfigError, match="scores no image by itself"):
        detector.remember([image, image[::-1]])


def test_even_neighbourhoods_are_refused() -> None:
    with pytest.raises(ConfigError, match="odd sides"):
        PRESETS["musc"].with_settings({"method.neighbourhoods": (1, 2)})


def photos(folder: Path, count: int) -> None:
    """Noise of one brightness, the last image with a red spot."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        image = draw.integers(100, 110, (64, 64, 3)).astype(np.uint8)
        if index == count - 1:
            image[20:40, 20:40] = (250, 20, 20)
        Image.fromarray(image).save(folder / f"{index}.png")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(predict.app, [*arguments, "--method", "musc", "--offline", "--maps", "none"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_predict_compares_a_folder_by_the_methods_rule_and_normal_images_promise(
    tiny_vit: Path, tmp_path: Path
) -> None:
    photos(tmp_path / "parts", 6)
    photos(tmp_path / "more", 4)
    (tmp_path / "more" / "3.png").unlink()
    (tmp_path / "good").mkdir()
    for path in (tmp_path / "more").iterdir():  # other noise than the parts'
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(tmp_path / "good" / path.name)
    save_model(model(tiny_vit), tmp_path / "model")
    chosen = ("--model", str(tmp_path / "model"), "--compare", "folder")
    said = run(str(tmp_path / "parts"), "-o", str(tmp_path / "out"), *chosen)
    assert "object: 6 images compared with each other; the threshold is a robust guess" in " ".join(said.split())
    scores = {row.image: row.score for row in read_rows(tmp_path / "out")}
    assert max(scores, key=lambda name: scores[name] or 0) == "5.png"
    normals = ("--normals", str(tmp_path / "good"))
    said = run(str(tmp_path / "parts"), "-o", str(tmp_path / "known"), *chosen, *normals)
    assert "with your 3 good images" in " ".join(said.split())
    rows = {row.image: row for row in read_rows(tmp_path / "known")}
    assert rows["5.png"].p_value == 0.25
    with pytest.raises(ConfigError, match=r"2 images are too few.*give at least 3"):
        run(str(tmp_path / "parts" / "0.png"), str(tmp_path / "parts" / "1.png"), "-o", str(tmp_path / "x"), *chosen)
