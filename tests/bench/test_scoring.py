"""The store of scores: what is told on the way, what is kept, and what is divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_toys import BrightnessDetector

from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.scoring import ScoringOptions, TestSet, as_test_set, image_hash, items_of, read_scored, score_items
from ad_dinov3.data.catalog import open_data
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import DataError

PAPER = PROTOCOLS["paper"]


def test_the_store_holds_what_the_detector_says_of_each_image_alone(toy: TestSet, tmp_path: Path) -> None:
    items = items_of(toy, PAPER, tmp_path)
    score_items(BrightnessDetector(), items, ScoringOptions(batch_size=5))
    for item in items:
        detector = BrightnessDetector()
        alone = detector.score(detector.prepare(decode_image(item.sample.image_path))[None], ["x"])
        kept = read_scored(item)
        np.testing.assert_array_equal(kept.patch_map, alone.maps[0])
        assert kept.score == pytest.approx(float(alone.scores[0]), abs=0)
        assert kept.seconds > 0


def test_progress_counts_every_image_once_and_begins_where_the_last_run_stopped(toy: TestSet, tmp_path: Path) -> None:
    items = items_of(toy, PAPER, tmp_path)
    score_items(BrightnessDetector(), items[:5], ScoringOptions())
    told: list[tuple[int, int]] = []
    score_items(BrightnessDetector(), items, ScoringOptions(report=lambda done, total: told.append((done, total))))
    assert told == [(done, 12) for done in range(5, 13)]


def test_images_that_cannot_be_decoded_are_named_by_their_place_and_counted_as_done(
    toy: TestSet, tmp_path: Path
) -> None:
    items = items_of(toy, PAPER, tmp_path / "store")
    victim = items[3].sample.image_path
    victim.write_bytes(victim.read_bytes()[:200])
    told: list[int] = []
    broken = score_items(BrightnessDetector(), items, ScoringOptions(report=lambda done, total: told.append(done)))
    assert list(broken) == [items[3].stored]
    assert str(victim) in broken[items[3].stored]
    assert told[-1] == 12
    with pytest.raises(DataError, match="no scores of"):
        read_scored(items[3])


def test_other_words_for_a_class_are_other_scores_of_its_images_alone(toy: TestSet, tmp_path: Path) -> None:
    plain = items_of(toy, PAPER, tmp_path)
    renamed = items_of(replace(toy, words={"tissue": "skin"}), PAPER, tmp_path)
    moved = {new.sample.class_name for old, new in zip(plain, renamed, strict=True) if old.stored != new.stored}
    assert moved == {"tissue"}


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"one")
    first = image_hash(file)
    assert image_hash(file) == first
    file.write_bytes(b"other")
    assert image_hash(file) != first
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        image_hash(file)


def test_ordinary_words_are_left_to_the_prompts_and_problems_travel_with_the_set(data_root: Path) -> None:
    (data_root / "metal_nut" / "ground_truth" / "scratch" / "010_mask.png").unlink()
    found = as_test_set(open_data(str(data_root)), None)
    assert dict(found.words) == {}
    assert ["010.png" in line for line in found.problems] == [True]
    assert len(found.samples) == 11
    assert len(as_test_set(open_data(str(data_root)), 4).samples) == 4
