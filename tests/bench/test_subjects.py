"""Methods made ready for measuring."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.run import evaluate
from ad_dinov3.bench.scoring import TestSet, as_test_set
from ad_dinov3.bench.subjects import compared_with_itself, open_subject
from ad_dinov3.data.catalog import open_data
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector


def test_the_untrained_baseline_takes_any_encoder_and_carries_no_training_data(tiny_vit: Path) -> None:
    subject = open_subject("dinov3_plain", "embedded", str(tiny_vit))
    assert (subject.method, subject.trained_on, subject.training_seed) == ("dinov3_plain", (), None)
    assert subject.seen_images == frozenset()


def test_what_the_encoder_has_seen_follows_it_into_untrained_and_exported_models(
    tiny_vit: Path, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_vit, encoder)
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**settings, "trained_on": ["mtd", "busi"]}))
    (encoder / "training_images.txt").write_text("a" * 64 + "\n" + "b" * 64 + "\n")
    subject = open_subject("dinov3_plain", "embedded", str(encoder))
    assert (subject.trained_on, subject.encoder_trained_on) == ((), ("mtd", "busi"))
    assert subject.seen_images == {"a" * 64, "b" * 64}
    assert isinstance(subject.detector, Detector)
    export_model(subject.detector, "plain", tmp_path / "line", ExportOptions("pt2", size=(32, 32)))
    exported = open_subject(None, str(tmp_path / "line"))
    assert exported.encoder_trained_on == subject.encoder_trained_on
    assert exported.seen_images == subject.seen_images


def test_the_embedded_backbone_says_what_it_has_seen() -> None:
    subject = open_subject("dinov3_plain", "embedded", "nano")
    assert "mtd" in subject.encoder_trained_on
    assert len(subject.seen_images) > 5000


def test_unknown_methods_and_useless_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="no method 'patchcore'"):
        open_subject("patchcore", "embedded")
    with pytest.raises(ConfigError, match="takes none"):
        open_subject("mahalanobis", "embedded", "nano")


def small_set(root: Path) -> TestSet:
    """Eight striped images of each of two classes that prompts call alike; each class has one with a defect."""
    for place, (name, pattern) in enumerate((("steel", np.eye(96)), ("cloth", np.ones((96, 96))))):
        for index in range(8):
            chance = np.random.default_rng(100 * place + index)
            image = 120 + 40 * pattern[:, :, None] + chance.normal(0, 4, (96, 96, 3))
            if index == 5:
                image[30:60, 30:60] = chance.uniform(0, 255, (30, 30, 3))
            folder = root / name / "test" / ("hole" if index == 5 else "good")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
            if index == 5:
                mask = np.zeros((96, 96), np.uint8)
                mask[30:60, 30:60] = 255
                (root / name / "ground_truth" / "hole").mkdir(parents=True)
                Image.fromarray(mask).save(root / name / "ground_truth" / "hole" / f"{index}_mask.png")
    return as_test_set(open_data(str(root)), None)


ALIKE = replace(PROTOCOLS["paper"], class_words=(("cloth", "part"), ("steel", "part")))


def test_a_set_compared_with_itself_is_compared_by_class_and_its_rows_say_what_was_looked_at(tmp_path: Path) -> None:
    data = small_set(tmp_path / "set")
    alone = open_subject(None, "embedded", offline=True)
    found = compared_with_itself(alone, data, ALIKE, {}, tmp_path / "scratch")
    assert [remark.split(";")[0] for remark in found.remarks] == ["part: 8 images compared with each other"] * 2
    result = evaluate(found.subject, data, ALIKE, tmp_path / "store")
    assert {row.value for row in result.rows if row.metric == "image_auroc"} == {1.0}
    assert {row.model for row in result.rows} == {"embedded comparing the 16 images with each other"}
    assert {row.seen for row in result.rows} == {False}
    cloth = replace(data, samples=tuple(sample for sample in data.samples if sample.class_name == "cloth"))
    apart = compared_with_itself(alone, cloth, ALIKE, {}, tmp_path / "scratch")
    again = evaluate(apart.subject, cloth, ALIKE, tmp_path / "store")
    shown = {row.metric: row.value for row in result.rows if row.class_name == "cloth"}
    assert shown == {row.metric: row.value for row in again.rows if row.class_name == "cloth"}
    assert len({alone.weights_hash, found.subject.weights_hash, apart.subject.weights_hash}) == 3


def test_normal_images_that_are_compared_along_are_seen_and_named(tmp_path: Path) -> None:
    data = small_set(tmp_path / "set")
    good = [sample.image_path for sample in data.samples if sample.class_name == "steel" and not sample.is_anomalous]
    rest = replace(data, samples=tuple(sample for sample in data.samples if sample.image_path not in good[:4]))
    alone = open_subject(None, "embedded", offline=True)
    found = compared_with_itself(alone, rest, ALIKE, {"steel": good[:4]}, tmp_path / "scratch", seed=3)
    assert found.subject.model == "embedded comparing the 12 images with each other and 4 normal ones, seed 3"
    with pytest.raises(DataError, match="4 images of set are among the training or normal images"):
        evaluate(found.subject, data, ALIKE, tmp_path / "store")
