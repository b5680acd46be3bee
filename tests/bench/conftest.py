"""Fixtures of the bench's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_toys import write_sample

from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.data.layouts import read_folder


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Two classes: nuts with normal and scratched images, tissue with anomalous images only."""
    rng = np.random.default_rng(0)
    root = tmp_path / "toy"
    for index in range(4):
        write_sample(root, "metal_nut", "good", index, rng)
        write_sample(root, "metal_nut", "scratch", 10 + index, rng)
        write_sample(root, "tissue", "lesion", 20 + index, rng)
    return root


@pytest.fixture
def toy(data_root: Path) -> TestSet:
    return TestSet("toy", tuple(read_folder(data_root)))
