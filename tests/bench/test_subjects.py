"""Methods made ready for measuring."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ad_dinov3.bench.subjects import open_subject
from ad_dinov3.errors import ConfigError
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
