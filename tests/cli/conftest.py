"""Fixtures of the commands' tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_toys import write_toy
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "100"})


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


@pytest.fixture
def refused() -> Callable[..., str]:
    """Runs a command that must be refused with exit code 2 before torch is imported; gives what it said."""

    def run(*arguments: str) -> str:
        code = (
            "import json, sys\n"
            "from ad_dinov3.cli import main\n"
            "try:\n    main()\n"
            "except SystemExit as end:\n    print(json.dumps([end.code, 'torch' in sys.modules]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=120
        )
        assert json.loads(done.stdout.splitlines()[-1]) == [2, False], done.stdout + done.stderr
        return done.stderr

    return run
