"""cache: what is on disk is listed with its size, and only what was named is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ad_dinov3.cli.cache import app
from ad_dinov3.encoders.cache import FeatureStore, Group, open_group
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import EncoderSpec, Features


class _Encoder:
    """Two stages of constant features on a 2x2 grid."""

    spec = EncoderSpec("toy", 8, 8, (4, 6), "fingerprint", "none")

    def encode(self, images: torch.Tensor) -> Features:
        count = len(images)
        patches = tuple(torch.ones(count, 2, 2, width) for width in self.spec.widths)
        cls = tuple(torch.ones(count, width) for width in self.spec.widths)
        return Features(patches, cls, (16, 16))


def _filled(root: Path, images: int, interpolation: str = "bilinear") -> Group:
    group = open_group(_Encoder.spec, (16, 16), interpolation, root)
    rows = [(f"image{index}", lambda: torch.zeros(3, 16, 16, dtype=torch.uint8)) for index in range(images)]
    list(FeatureStore(group).fill(_Encoder(), rows, 2))  # type: ignore[arg-type]
    return group


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AD_DINOV3_CACHE", str(tmp_path))
    return tmp_path


def test_the_list_names_each_group_with_its_encoder_input_and_images(runner: CliRunner, root: Path) -> None:
    groups = _filled(root, 3), _filled(root, 5, "bicubic")
    lines = runner.invoke(app, ["list"], catch_exceptions=False).output.splitlines()
    for group, images in zip(groups, (3, 5), strict=True):
        line = next(line for line in lines if group.folder.name in line)
        assert {"toy", f"16x16 {group.interpolation}", str(images)} <= {cell.strip() for cell in line.split("│")}


def test_a_group_that_cannot_be_read_is_named_and_the_others_are_listed(runner: CliRunner, root: Path) -> None:
    whole, broken = _filled(root, 1), _filled(root, 1, "bicubic")
    (broken.folder / "group.json").write_text("{")
    done = runner.invoke(app, ["list"], catch_exceptions=False)
    assert whole.folder.name in done.output
    assert str(broken.folder) in done.stderr.replace("\n", "")


def test_pruning_deletes_the_named_group_alone(runner: CliRunner, root: Path) -> None:
    named, other = _filled(root, 1), _filled(root, 1, "bicubic")
    done = runner.invoke(app, ["prune", named.folder.name], catch_exceptions=False)
    assert "deleted 1 groups" in done.output
    assert not named.folder.exists()
    assert len(FeatureStore(other)) == 1


def test_pruning_all_leaves_an_empty_cache(runner: CliRunner, root: Path) -> None:
    _filled(root, 1), _filled(root, 1, "bicubic")
    runner.invoke(app, ["prune", "--all"], catch_exceptions=False)
    assert not [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("names", [[], ["nonsense"]])
def test_pruning_nothing_that_is_there_is_refused(runner: CliRunner, root: Path, names: list[str]) -> None:
    group = _filled(root, 1)
    with pytest.raises(ConfigError, match=f"no such group: {names[0] if names else 'none named'}"):
        runner.invoke(app, ["prune", *names], catch_exceptions=False)
    assert group.folder.is_dir()
