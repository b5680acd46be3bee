"""Write docs/row.schema.json, the JSON schema of a line of results.jsonl: python recipes/row_schema.py."""

from __future__ import annotations

import json
from pathlib import Path

from ad_dinov3.infer.record import json_schema
from ad_dinov3.predict.results import Row

FILE = Path(__file__).parents[1] / "docs" / "row.schema.json"


def text() -> str:
    """The file's content."""
    return json.dumps(json_schema(Row), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
