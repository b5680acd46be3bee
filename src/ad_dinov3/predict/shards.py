"""Which part of the images a process does, by the hash of their names, and which part a cluster's array job gives it.

The hash and not the position decides, so that the parts stay the same when a listing grows between attempts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.errors import ConfigError

# who starts the processes -> variable of the index, from 0, and of the count
_SCHEDULERS = {
    "SLURM array": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    "Kubernetes Indexed Job": ("JOB_COMPLETION_INDEX", "AD_DINOV3_SHARDS"),
    "AWS Batch array": ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
}


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the images, each of which holds every name whose CRC-32 leaves its index.

    Raises:
        ConfigError: not 0 <= index < count.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"expected a shard I/N with 0 <= I < N, such as 0/4 to 3/4; got {self.index}/{self.count}"
            )

    def holds(self, name: str) -> bool:
        """Whether an image of that name belongs to this shard."""
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.count == self.index

    def folder(self, out: Path) -> Path:
        """Where this shard's results go below the folder of all of them."""
        return out / self.folder_name

    @property
    def folder_name(self) -> str:
        """That folder's name."""
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALL = Shard()


def read_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that ``I/N`` says, or ``auto`` and ``auto/N``: the one that the scheduler gives this process.

    The index is SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or AWS_BATCH_JOB_ARRAY_INDEX, and counts from 0. The count is
    N, else SLURM_ARRAY_TASK_COUNT, AD_DINOV3_SHARDS or AWS_BATCH_JOB_ARRAY_SIZE.

    Raises:
        ConfigError: the text has another form, or the environment does not say what it should, or says it twice.
    """
    index, slash, count = text.partition("/")
    if (slash and not _is_number(count)) or not ((_is_number(index) and slash) or index == "auto"):
        raise ConfigError(f"--shard {text}: expected I/N with 0 <= I < N, such as 0/4, or auto, or auto/N")
    if index != "auto":
        return Shard(int(index), int(count))
    found = [name for name, (variable, _) in _SCHEDULERS.items() if variable in environment]
    if len(found) != 1:
        known = ", ".join(variables[0] for variables in _SCHEDULERS.values())
        said = " and ".join(found) or "none"
        raise ConfigError(f"--shard {text}: expected one of {known} in the environment, found {said}; write I/N")
    index_name, count_name = _SCHEDULERS[found[0]]
    size = count or environment.get(count_name, "")
    last = environment.get("SLURM_ARRAY_TASK_MAX", "") if found[0] == "SLURM array" and not count else ""
    if not _is_number(size) or (last and int(last) + 1 != int(size)):
        wrong = (
            f"{count_name}={size} and SLURM_ARRAY_TASK_MAX={last}: the array is not 0-N" if last else f"no {count_name}"
        )
        raise ConfigError(f"--shard {text}: expected the number of shards, found {wrong}; write auto/N")
    return Shard(_integer(index_name, environment[index_name]), int(size))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _integer(name: str, text: str) -> int:
    if not _is_number(text):
        raise ConfigError(f"{name}={text}: expected a whole number")
    return int(text)
