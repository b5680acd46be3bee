"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ad_dinov3.errors import DataError
from ad_dinov3.files import file_hash, read_seen_images, replacing, user_cache, utf8, write_seen_images, write_text


def test_a_finished_file_takes_the_place_of_the_old_one_and_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "rows.txt"
    for text in ("first", "second"):
        with replacing(path) as unfinished:
            unfinished.write_text(text)
            assert unfinished.parent == path.parent  # a rename within one file system
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_rest(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.txt"]


def test_a_file_that_only_its_owner_could_read_can_be_read_by_all(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret") as unfinished:
        unfinished.touch(0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o644


def test_a_text_file_ends_in_one_newline(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer\n\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()


def test_a_name_that_is_not_utf8_becomes_text_that_can_be_written() -> None:
    assert utf8(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert utf8("größer.png") == "größer.png"
    assert utf8("plain.png") == "plain.png"


def test_the_hash_is_sha256_of_the_bytes_and_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"bytes").hexdigest()
    with pytest.raises(DataError, match=r"absent: cannot be read \(No such file"):
        file_hash(tmp_path / "absent")


def test_seen_images_read_back_and_a_folder_that_says_nothing_has_none(tmp_path: Path) -> None:
    assert read_seen_images(tmp_path) == frozenset()
    hashes = frozenset({"b" * 64, "a" * 64})
    write_seen_images(tmp_path, hashes)
    assert read_seen_images(tmp_path) == hashes
    write_seen_images(tmp_path, frozenset())
    assert read_seen_images(tmp_path) == frozenset()


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("features") == tmp_path / "ad-dinov3" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache("features") == tmp_path / ".cache" / "ad-dinov3" / "features"
    assert not any(tmp_path.iterdir())
