"""Rows on disk: round trips, replacement, refusals."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from bench_toys import make_row

from ad_dinov3.bench.rows import read_metric_rows, source_commit, write_metric_rows
from ad_dinov3.errors import DataError


def test_rows_read_back_are_the_rows_written(tmp_path: Path) -> None:
    rows = [make_row(), make_row(metric="image_auroc", value=None, low=None, high=None)]
    file = write_metric_rows(tmp_path, rows)
    assert read_metric_rows(file) == rows
    assert read_metric_rows(tmp_path) == rows


def test_rows_of_the_first_format_are_read_and_kept_as_unseen(tmp_path: Path) -> None:
    old = json.loads(json.dumps(asdict(make_row())))
    del old["seen"]
    (tmp_path / "rows.jsonl").write_text(json.dumps({**old, "format_version": 1}) + "\n")
    write_metric_rows(tmp_path, [make_row(data="visa", seen=True)])
    first, second = read_metric_rows(tmp_path)
    assert (first.format_version, first.seen, first.value) == (1, False, 0.92)
    assert (second.format_version, second.seen) == (2, True)


def test_a_repeated_evaluation_replaces_its_rows_and_keeps_the_others(tmp_path: Path) -> None:
    other = make_row(data="visa")
    write_metric_rows(tmp_path, [make_row(value=0.5), other])
    write_metric_rows(tmp_path, [make_row(value=0.6)])
    assert {(row.data, row.value) for row in read_metric_rows(tmp_path)} == {("visa", 0.92), ("mvtec_ad", 0.6)}


def test_another_protocol_is_another_run(tmp_path: Path) -> None:
    write_metric_rows(tmp_path, [make_row()])
    write_metric_rows(tmp_path, [make_row(protocol_hash="p1")])
    assert len(read_metric_rows(tmp_path)) == 2


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_metric_rows(tmp_path, [make_row(), make_row(data="visa", value=None)])
    table = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [(row["data"], row["value"]) for row in table] == [("mvtec_ad", 0.92), ("visa", None)]


def test_a_line_that_is_no_row_is_refused_with_its_number(tmp_path: Path) -> None:
    file = write_metric_rows(tmp_path, [make_row()])
    file.write_text(file.read_text() + '{"method": "x"}\n')
    with pytest.raises(DataError, match="line 2: not a result row"):
        read_metric_rows(file)


def test_a_missing_file_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ad-dinov3 evaluate"):
        read_metric_rows(tmp_path / "none.jsonl")


def test_commit_is_a_short_hash_or_nothing() -> None:
    commit = source_commit()
    assert commit is None or len(commit.removesuffix("+")) == 12
