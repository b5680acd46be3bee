"""What is known of a checkpoint's bytes is held against them, and only that."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from ad_dinov3.errors import WeightsError
from ad_dinov3.weights.hashes import SUMS, check_hashes, check_named_hash, write_sums

BYTES = b"weights"
DIGEST = hashlib.sha256(BYTES).hexdigest()


def test_a_name_that_carries_a_hash_is_checked_and_one_that_carries_none_is_not(tmp_path: Path) -> None:
    named, other, plain = (
        tmp_path / name for name in (f"vit-{DIGEST[:8]}.pth", "vit-00000000.pth", "model.safetensors")
    )
    for file in (named, other, plain):
        file.write_bytes(BYTES)
    assert check_named_hash(named)
    assert not check_named_hash(plain)
    assert not check_named_hash(tmp_path / "absent-00000000.pth")
    with pytest.raises(
        WeightsError, match=rf"vit-00000000\.pth: .*begins with 00000000, found {DIGEST[:16]} \(7 bytes"
    ):
        check_named_hash(other)


def test_the_list_that_is_written_is_the_one_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BYTES)
    (tmp_path / "config.json").write_text("{}")
    path = write_sums(tmp_path)
    assert path.name == SUMS
    subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=tmp_path, check=True, capture_output=True)
    (line,) = check_hashes(tmp_path, tmp_path / "model.safetensors")
    assert line.endswith(f"is what {SUMS} says")
    assert write_sums(tmp_path).read_text() == path.read_text()  # the list is no part of itself


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(BYTES)
    write_sums(tmp_path)
    file.write_bytes(BYTES + b"!")
    with pytest.raises(WeightsError, match="the download is incomplete or the file was changed"):
        check_hashes(tmp_path, file)


def test_every_shard_is_hashed_and_one_that_nothing_is_known_of_says_so(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    lines = check_hashes(tmp_path, index)
    assert [line.partition(":")[0] for line in lines] == ["model-1.safetensors", "model-2.safetensors"]
    assert all("with nothing to compare it with" in line for line in lines)


def test_a_list_in_binary_mode_and_with_empty_lines_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(BYTES)
    (tmp_path / SUMS).write_text(f"\n{DIGEST} *model.safetensors\n\n")
    assert check_hashes(tmp_path, file) == [f"model.safetensors: sha256 {DIGEST[:16]}... is what {SUMS} says"]
