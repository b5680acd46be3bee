"""The notebooks run from top to bottom, in an empty folder, within their time."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")
pytest.importorskip("ipykernel", reason="the extra `notebooks` is not installed")
BOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CELL_LIMIT_S = 300


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_what_it_shows_in_the_repository(path: Path, tmp_path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(fresh, timeout=CELL_LIMIT_S, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # a cell that raises is an error here
    for old, new in zip(kept.cells, fresh.cells, strict=True):
        shown = [sorted(one.get("data", {})) for one in new.get("outputs", []) if one.output_type == "execute_result"]
        stored = [sorted(one.get("data", {})) for one in old.get("outputs", []) if one.output_type == "execute_result"]
        assert shown == stored, f"run: jupyter execute --inplace {path.name}"


def test_no_notebook_tells_where_it_was_run() -> None:
    assert len(BOOKS) == 3
    for path in BOOKS:
        assert "site-packages" not in path.read_text(encoding="utf-8")
        assert str(Path.home()) not in path.read_text(encoding="utf-8")
