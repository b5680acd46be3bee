"""What folders say of what a model has seen, held against what the opened model says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bench_toys import BrightnessDetector, subject_with

from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.run import Tolerance, evaluate
from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.bench.seen import Seen, seen_on_disk
from ad_dinov3.bench.subjects import open_subject
from ad_dinov3.errors import DataError

PROTOCOL = replace(PROTOCOLS["paper"], size=(40, 56), resamples=20)


def test_folders_say_what_the_opened_model_says(tiny_vit: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_vit, encoder)
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**settings, "trained_on": ["mtd", "busi"]}))
    (encoder / "training_images.txt").write_text("a" * 64 + "\n")
    for method, weights in ((None, None), ("ad_dinov3", None), ("dinov3_plain", None), ("dinov3_plain", str(encoder))):
        opened = open_subject(method, "embedded", weights, offline=True)
        told = seen_on_disk(method, "embedded", weights)
        assert (told.trained_on, told.encoder_trained_on) == (opened.trained_on, opened.encoder_trained_on)
        assert told.images == opened.seen_images


def test_nothing_is_known_of_what_is_not_here_and_of_the_classical_floor(tmp_path: Path) -> None:
    assert seen_on_disk(None, "someone/model", None) == Seen("someone/model")
    assert seen_on_disk("mahalanobis", "embedded", None) == Seen("embedded")
    (tmp_path / "config.json").write_text("[broken")
    assert seen_on_disk(None, str(tmp_path), None) == Seen(str(tmp_path))


def test_names_are_compared_whatever_their_case_and_images_by_their_bytes() -> None:
    seen = Seen("m", ("VisA",), ("btad",), frozenset({"d1"}))
    images = [(Path("x.png"), "d0"), (Path("y.png"), "d1")]
    assert str(seen.overlap("visa", [])) == "m was trained on visa"
    assert str(seen.overlap("BTAD", [])).startswith("the encoder of m was trained on BTAD")
    assert str(seen.overlap("mine", images)).endswith("such as y.png")
    assert seen.overlap("mine", images[:1]) is None


@pytest.mark.parametrize("changes", [{"trained_on": ("toy",)}, {"encoder_trained_on": ("TOY",)}])
def test_seen_data_are_measured_only_where_asked_for_and_marked(
    toy: TestSet, tmp_path: Path, changes: dict[str, object]
) -> None:
    subject = subject_with(BrightnessDetector(), **changes)
    with pytest.raises(DataError, match="--seen-too"):
        evaluate(subject, toy, PROTOCOL, tmp_path)
    marked = evaluate(subject, toy, PROTOCOL, tmp_path, tolerance=Tolerance(seen_too=True))
    clean = evaluate(subject_with(BrightnessDetector()), toy, PROTOCOL, tmp_path)
    assert "was trained on" in str(marked.overlap)
    assert {row.seen for row in marked.rows} == {True}
    assert {row.seen for row in clean.rows} == {False}
    assert [row.value for row in marked.rows] == [row.value for row in clean.rows]
