"""The published schema of result rows is that of the code, and every field says what it is."""

from __future__ import annotations

import json

from recipes.row_schema import FILE, text


def test_the_published_schema_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run python recipes/row_schema.py"


def test_every_field_is_described() -> None:
    tree = json.loads(text())
    for kind in (tree, tree["$defs"]["Region"]):
        assert [name for name, field in kind["properties"].items() if "description" not in field] == []
