"""Figures: which cases and patches are chosen, similarities, curves."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from bench_toys import BrightnessDetector, subject_with
from sklearn.metrics import auc

from ad_dinov3.bench.figures import thinned, write_curves
from ad_dinov3.bench.gallery import choose_cases, draw_gallery, heat, outlined
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.run import evaluate, score
from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.bench.similarity import choose_patches, cosine_to
from ad_dinov3.errors import ConfigError, DataError


def test_cases_run_from_the_best_to_the_worst(toy: TestSet, tmp_path: Path) -> None:
    items, _ = score(subject_with(BrightnessDetector()), toy, PROTOCOLS["paper"], tmp_path)
    cases = choose_cases([items, items], 3)
    assert [case.place for case in cases] == [1, 5, 8]
    assert [case.value for case in cases] == sorted((case.value for case in cases), reverse=True)
    assert all(case.items[0].sample.is_anomalous for case in cases)
    picture = draw_gallery(cases, ["one", "two"])
    assert picture.width == 150 + 4 * 230
    with pytest.raises(ConfigError, match="at least 2"):
        choose_cases([items], 1)


def test_heat_is_one_fixed_scale_whatever_the_map_holds() -> None:
    weak, strong = heat(np.full((2, 2), 0.2)), heat(np.array([[0.2, 1.0]]))
    np.testing.assert_array_equal(weak[0, 0], strong[0, 0])


def test_outline_leaves_the_image_outside_alone() -> None:
    image = np.full((60, 60, 3), 90, np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:30, 20:30] = True
    drawn = outlined(image, mask)
    assert (drawn[:15] == 90).all()
    assert (drawn[19, 25] != 90).any()
    assert (image == 90).all()


def test_cosine_of_a_patch_to_itself_is_one_and_to_its_opposite_minus_one() -> None:
    tokens = np.random.default_rng(0).normal(size=(4, 5, 8))
    tokens[3, 4] = -2 * tokens[1, 2]
    similarity = cosine_to(tokens, (1, 2))
    assert similarity.shape == (4, 5)
    assert similarity[1, 2] == pytest.approx(1.0)
    assert similarity[3, 4] == pytest.approx(-1.0)


def test_patches_are_inside_the_largest_region_and_far_from_any() -> None:
    mask = np.zeros((80, 80), bool)
    mask[40:70, 50:80] = True
    mask[0:4, 0:4] = True
    normal, anomalous = choose_patches(mask, (8, 8))
    assert mask[anomalous[0] * 10 : anomalous[0] * 10 + 10, anomalous[1] * 10 : anomalous[1] * 10 + 10].all()
    assert not mask[normal[0] * 10 : normal[0] * 10 + 10, normal[1] * 10 : normal[1] * 10 + 10].any()
    with pytest.raises(DataError, match="both"):
        choose_patches(np.zeros((8, 8), bool), (4, 4))


def test_curves_are_svg_and_leave_out_what_is_undefined(toy: TestSet, tmp_path: Path) -> None:
    result = evaluate(subject_with(BrightnessDetector()), toy, PROTOCOLS["paper"], tmp_path / "store")
    names = {path.stem for path in write_curves(result.pooled, "toy", tmp_path / "all")}
    assert names == {"pixel_roc", "pixel_pr", "pixel_pro", "image_roc", "image_pr"}
    one_kind = write_curves(result.classes["tissue"], "tissue", tmp_path / "tissue")
    assert {path.stem for path in one_kind} == {"pixel_roc", "pixel_pr", "pixel_pro"}
    for path in one_kind:
        ET.parse(path)
        assert "F1 0." in path.read_text(encoding="utf-8")  # the operating point


def test_thinning_keeps_the_ends_and_the_area() -> None:
    x = np.sort(np.random.default_rng(0).random(5000))
    x[0], x[-1] = 0.0, 1.0
    y = np.sqrt(x)
    points = np.array(thinned(x, y))
    assert len(points) <= 400
    assert tuple(points[0]) == (0.0, 0.0)
    assert tuple(points[-1]) == (1.0, 1.0)
    assert auc(points[:, 0], points[:, 1]) == pytest.approx(auc(x, y), abs=1e-3)
