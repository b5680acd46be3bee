"""Protocols: digests, mask rules, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.bench.protocol import PROTOCOLS, read_protocol
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import Sample


@pytest.fixture
def striped(tmp_path: Path) -> Sample:
    """An image of 64 x 64 px whose mask is a line of one pixel, its values class numbers as in VisA."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 20] = 3
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(mask).save(tmp_path / "image.png")
    return Sample(tmp_path / "image.png", tmp_path / "mask.png", "wire", True, "cut")


def test_digest_changes_with_every_choice_but_the_name() -> None:
    paper = PROTOCOLS["paper"]
    assert replace(paper, name="other").digest == paper.digest
    changed = [
        replace(paper, size=(256, 256)),
        replace(paper, mask_rule="bilinear_half"),
        replace(paper, images="anomalous"),
        replace(paper, fpr_limit=0.05),
        replace(paper, seed=1),
    ]
    assert len({p.digest for p in [paper, *changed]}) == 6


def test_nearest_rule_keeps_a_thin_line_that_the_bilinear_rule_erases(striped: Sample) -> None:
    nearest = replace(PROTOCOLS["paper"], size=(16, 64)).mask(striped)
    bilinear = replace(PROTOCOLS["released"], size=(16, 16)).mask(striped)
    assert nearest.sum() == 16
    assert bilinear.sum() == 0


def test_bilinear_rule_equals_pillow_on_the_binary_mask(striped: Sample) -> None:
    ours = replace(PROTOCOLS["released"], size=(128, 96)).mask(striped)
    binary = Image.fromarray(np.uint8(255) * (np.asarray(Image.open(striped.mask_path)) > 0))
    np.testing.assert_array_equal(ours, np.asarray(binary.resize((96, 128), Image.Resampling.BILINEAR)) / 255 > 0.5)


def test_native_protocol_keeps_the_masks_own_size(striped: Sample) -> None:
    assert PROTOCOLS["native"].mask(striped).shape == (64, 64)


def test_a_file_changes_its_base_and_takes_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "released"\nsize = [256, 320]\nclass_words = { "01" = "metal part" }\n')
    mine = read_protocol(str(file))
    expected = replace(PROTOCOLS["released"], name="mine", size=(256, 320), class_words=(("01", "metal part"),))
    assert mine == expected
    assert mine.words("01") == "metal part"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise = [1, 2]", "unknown sise"),
        ('base = "none"', "unknown base"),
        ('mask_rule = "cubic"', "mask_rule"),
        ('epoch_rule = "best"', "epoch_rule"),
        ("size = 5", "size"),
        ("size =", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_protocol(str(file))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="paper, released, native"):
        read_protocol("papr")
