"""The house of docs/architecture.md: imports point down, and what must be light is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ad_dinov3

SOURCE = Path(ad_dinov3.__file__).parent
# Room -> row; a room may import lower rows and itself. Files beside the rooms count as rooms of their own.
ROWS = {
    "errors": 0,
    "files": 0,
    "types": 0,
    "assets": 0,
    "config": 0,
    "ops": 0,
    "weights": 0,
    "encoders": 1,
    "data": 1,
    "metrics": 1,
    "references": 1,
    "report": 1,
    "methods": 2,
    "model": 3,
    "infer": 4,
    "training": 4,
    "predict": 5,
    "bench": 6,
    "export": 6,
    "serve": 6,
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}
WITHIN_ROW_0 = {
    ("types", "errors"),
    ("config", "errors"),
    ("config", "files"),
    ("ops", "errors"),
    ("files", "errors"),
    ("weights", "assets"),
    ("weights", "config"),
    ("weights", "errors"),
    ("weights", "files"),
}


def room(module: str) -> str:
    return module.removeprefix("ad_dinov3").lstrip(".").partition(".")[0] or "__init__"


def imports() -> Iterator[tuple[str, str, str]]:
    """(file, importing room, imported room) of every import of the package that runs or is type-checked."""
    for path in SOURCE.rglob("*.py"):
        relative = path.relative_to(SOURCE)
        own = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ad_dinov3":
                for alias in node.names:
                    target = room(f"{node.module}.{alias.name}" if node.module == "ad_dinov3" else str(node.module))
                    yield relative.as_posix(), own, target if target in ROWS else "__init__"


def test_imports_point_down() -> None:
    wrong = [
        f"{file}: {own} imports {target}"
        for file, own, target in imports()
        if own not in {target, "__init__"}
        and target != "__init__"
        and ROWS[own] <= ROWS[target]
        and (own, target) not in WITHIN_ROW_0
    ]
    assert wrong == []


def test_every_room_has_a_row() -> None:
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__pycache__", "py.typed"} <= set(ROWS)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import ad_dinov3", ["torch", "numpy", "PIL", "transformers"]),
        ("import ad_dinov3.cli", ["torch", "numpy", "typer", "rich"]),
        ("import ad_dinov3.metrics.ranking, ad_dinov3.metrics.regions, ad_dinov3.metrics.streaming", ["torch", "PIL"]),
        ("from ad_dinov3.references import conformal, drift, memory, mutual, stream, tokens", ["torch", "PIL"]),
        ("import ad_dinov3.types, ad_dinov3.config, ad_dinov3.errors", ["torch"]),
        ("import ad_dinov3.predict.folder, ad_dinov3.infer.opening, ad_dinov3.report.page", ["torch", "transformers"]),
        ("import ad_dinov3.methods.table", ["torch", "numpy", "PIL"]),
        ("import ad_dinov3.serve.app", ["torch", "transformers"]),
        ("import ad_dinov3.data.decode, ad_dinov3.data.streams, ad_dinov3.data.transforms", ["torch"]),
        (
            "import ad_dinov3; ad_dinov3.load()",
            ["transformers", "huggingface_hub", "torch._dynamo", "torch._inductor", "scipy.ndimage"],
        ),
    ],
)
def test_light_parts_import_nothing_heavy(statement: str, absent: list[str]) -> None:
    check = f"import sys; {statement}; print([name for name in {absent} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_public_names_are_all_there() -> None:
    for name in ad_dinov3.__all__:
        assert getattr(ad_dinov3, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'detect'"):
        _ = ad_dinov3.detect


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))  # pytest imports them by name, and takes the second for the first
