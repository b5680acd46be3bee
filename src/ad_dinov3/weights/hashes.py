"""What is known of a checkpoint's bytes: by its name, its maker's address, the cache, our own list beside it."""

from __future__ import annotations

import re
from pathlib import Path

from ad_dinov3.errors import WeightsError
from ad_dinov3.files import write_text
from ad_dinov3.weights.table import PUBLIC_CLIPS
from ad_dinov3.weights.tensors import sha256_of

SUMS = "SHA256SUMS"  # the form of sha256sum, so that `sha256sum -c` checks it too

_META_HASH = re.compile(r"-([0-9a-f]{8})\.pth")
_BLOB = re.compile(r"[0-9a-f]{64}")


def check_named_hash(file: Path) -> bool:
    """Whether a file's name carries the beginning of its sha256, as Meta's do.

    Raises:
        WeightsError: it does, and the file's bytes have another.
    """
    named = _META_HASH.search(file.name)
    if named is None or not file.is_file():
        return False
    _compare(file, named[1], sha256_of(file))
    return True


def check_hashes(folder: Path, file: Path) -> list[str]:
    """Hash a checkpoint (of shards: all of them) and compare it with all that is known of it; a line for each check.

    Raises:
        WeightsError: the bytes are not those that were published or downloaded.
    """
    sums = _read_sums(folder)
    shards = sorted(folder.glob("*.safetensors")) if file.suffix == ".json" else [file]
    lines = []
    for shard in shards:
        found = sha256_of(shard)
        for expected, reason in _expectations(shard, sums):
            _compare(shard, expected, found)
            lines.append(f"{shard.name}: sha256 {found[:16]}... is {reason}")
        if not any(line.startswith(f"{shard.name}: ") for line in lines):
            lines.append(f"{shard.name}: sha256 {found}, with nothing to compare it with")
    return lines


def write_sums(folder: Path) -> Path:
    """Write the sha256 of every file of a folder beside them, for the machine that they are carried to."""
    path = folder / SUMS
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file != path]
    write_text(path, "\n".join(f"{sha256_of(file)}  {file.name}" for file in files))
    return path


def _expectations(file: Path, sums: dict[str, str]) -> list[tuple[str, str]]:
    """(expected sha256 or its beginning, who says so) for one file."""
    named = _META_HASH.search(file.name)
    blob = file.resolve().name  # the cache of Hugging Face names large files by their sha256
    openai = [clip.openai_sha256 for clip in PUBLIC_CLIPS if clip.openai_file == file.name]
    known = [(named[1], "what its name says")] if named else []
    known += [(expected, "what OpenAI published") for expected in openai]
    known += [(blob, "what the Hugging Face cache says")] if _BLOB.fullmatch(blob) else []
    known += [(sums[file.name], f"what {SUMS} says")] if file.name in sums else []
    return known


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.is_file():
        return {}
    pairs = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _compare(file: Path, expected: str, found: str) -> None:
    if not found.startswith(expected):
        raise WeightsError(
            f"{file}: expected a sha256 that begins with {expected[:16]}, found {found[:16]} "
            f"({file.stat().st_size} bytes); the download is incomplete or the file was changed: download it again"
        )
