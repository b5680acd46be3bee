"""The style limits of docs/architecture.md, checked: sizes, parameters, **kwargs, prints, documented public names."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "ad_dinov3"
MAX_FUNCTION, MAX_FILE, MAX_PARAMETERS = 40, 400, 6

# Typer declares a command's options as parameters, with their help inside the signature, so commands are exempt from
# the parameter limit (below); signatures do not count as body.


def problems() -> Iterator[str]:
    """One line for each place beyond a limit."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MAX_FILE:
            yield f"{name}: {text.count(chr(10))} lines, at most {MAX_FILE}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                yield from function_problems(name, node)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield from documentation_problems(name, node)


def function_problems(name: str, node: ast.FunctionDef) -> Iterator[str]:
    """Too long, too many parameters, or a catch-all of keywords."""
    where = f"{name}:{node.lineno} {node.name}"
    body = [statement for statement in node.body if not is_docstring(statement)]
    length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    if length > MAX_FUNCTION:
        yield f"{where}: body of {length} lines, at most {MAX_FUNCTION}"
    parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    count = sum(parameter.arg not in {"self", "cls"} for parameter in parameters)
    if count > MAX_PARAMETERS and not name.startswith("cli/") and node.name != "__init__":
        yield f"{where}: {count} parameters, at most {MAX_PARAMETERS}"
    if node.args.kwarg is not None:
        yield f"{where}: **{node.args.kwarg.arg} swallows wrong names"


def documentation_problems(name: str, node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """A public class, or function of a module, without a docstring."""
    at_module_level = node.col_offset == 0
    if at_module_level and not ast.get_docstring(node):
        yield f"{name}:{node.lineno} {node.name}: no docstring"


def is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement is a bare string."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


if __name__ == "__main__":
    found = list(problems())
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.exit(bool(found))
