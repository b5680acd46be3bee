"""Settings on the command line: a file, then words that win."""

from __future__ import annotations

from pathlib import Path

import pytest

from ad_dinov3.cli.options import read_changes
from ad_dinov3.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("train.epochs=5", 5),
        ("train.lr=1e-4", 1e-4),
        ("train.augment=true", True),
        ("input.size=[512, 768]", [512, 768]),
        ("encoder=lite0", "lite0"),
        ("note=a=b", "a=b"),
        ("note=", ""),
    ],
)
def test_a_word_is_read_as_json_where_it_is_json_and_as_text_elsewhere(word: str, value: object) -> None:
    assert list(read_changes(None, [word]).values()) == [value]


def test_a_word_wins_over_the_file_and_a_later_word_over_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('encoder = "nano"\n[train]\nepochs = 3\nlr = 0.1\n')
    found = read_changes(file, ["train.epochs=5", "train.epochs=7"])
    assert found == {"encoder": "nano", "train.epochs": 7, "train.lr": 0.1}


def test_a_word_without_an_equals_sign_is_refused_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r"--set epochs: expected KEY=VALUE, such as train\.epochs=5"):
        read_changes(None, ["epochs"])


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_changes(tmp_path / "absent.toml", [])
