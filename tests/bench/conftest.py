"""Fixtures of the bench's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_toys import write_toy

from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.data.layouts import read_folder


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


@pytest.fixture
def toy(data_root: Path) -> TestSet:
    return TestSet("toy", tuple(read_folder(data_root)))
