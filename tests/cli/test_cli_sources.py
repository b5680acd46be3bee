"""What predict takes for a camera, and what for a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ad_dinov3.cli.sources import list_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.shards import ALL


def test_a_file_that_is_called_like_a_camera_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "0", "PNG")
    assert [item.name for item in list_images(["0"], ALL, print).items] == ["0"]


def test_a_camera_beside_other_sources_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"name it alone, not with others: rtsp://camera/1, part\.png"):
        list_images(["rtsp://me:secret@camera/1", "part.png"], ALL, print)


def test_a_camera_that_is_away_is_told_of_and_ends_when_it_is_stopped() -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    told: list[str] = []
    images = list_images(["/dev/video99"], ALL, lambda words: (told.append(words), images.stopped.set()))
    assert images.total is None
    assert list(images.items) == []
    assert "the camera is away" in told[0]
