from __future__ import annotations

import pytest

from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.shards import Shard, read_shard

SLURM = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MAX": "15"}


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_every_name_belongs_to_exactly_one_shard_about_evenly(count: int) -> None:
    names = [f"line {index % 7}/part_{index:05d}.png" for index in range(7000)]
    held = [[name for name in names if Shard(index, count).holds(name)] for index in range(count)]
    assert sorted(name for shard in held for name in shard) == sorted(names)
    assert all(0.85 < len(shard) * count / 7000 < 1.15 for shard in held)


def test_shard_of_a_name_is_the_same_in_every_process_and_release() -> None:
    assert [index for index in range(4) if Shard(index, 4).holds("a/x.png")] == [0xB341864D % 4]
    assert sum(Shard(index, 3).holds("\udcff.png") for index in range(3)) == 1


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("0/1", {}, Shard(0, 1)),
        ("3/4", SLURM, Shard(3, 4)),
        ("auto", SLURM, Shard(3, 16)),
        ("auto/20", {"SLURM_ARRAY_TASK_ID": "17", "SLURM_ARRAY_TASK_COUNT": "1"}, Shard(17, 20)),
        ("auto", {"JOB_COMPLETION_INDEX": "0", "AD_DINOV3_SHARDS": "8"}, Shard(0, 8)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, Shard(7, 8)),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "3"}, Shard(2, 3)),
    ],
)
def test_shard_is_read_from_words_or_scheduler(text: str, environment: dict[str, str], shard: Shard) -> None:
    assert read_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("4/4", {}, "0 <= I < N"),
        ("1", {}, "expected I/N"),
        ("a/b", {}, "expected I/N"),
        ("auto/", {}, "expected I/N"),
        ("auto", {}, "found none"),
        ("auto", {**SLURM, "JOB_COMPLETION_INDEX": "0"}, "SLURM array and Kubernetes"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "AD_DINOV3_SHARDS"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MAX": "3"}, "auto/N"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "0 <= I < N"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "x"}, "whole number"),
    ],
)
def test_shard_is_refused_where_the_part_is_not_sure(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_shard(text, environment)
