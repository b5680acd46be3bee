"""--json: one line of JSON on stdout, and nothing else there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
from recipes.cli_page import commands

AGENTS = Path(__file__).parents[2] / "AGENTS.md"


def answer(*words: str, code: int = 0) -> dict[str, object]:
    command = [sys.executable, "-m", "ad_dinov3", *words, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    assert run.stdout.count("\n") == 1
    tree = json.loads(run.stdout)
    assert isinstance(tree, dict)
    return tree


def test_predict_counts_what_it_found_and_names_what_failed(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos = str(SAMPLES / "cookie" / "test")
    tree = answer("predict", photos, str(tmp_path / "broken.png"), "-o", str(tmp_path / "out"), code=3)
    assert tree["anomalous"] + tree["normal"] == 4  # type: ignore[operator]
    assert [one["image"] for one in tree["failed"]] == ["broken.png"]  # type: ignore[attr-defined]
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sum(row["decision"] == "anomalous" for row in rows) == tree["anomalous"]


def test_remember_tells_the_promise(tmp_path: Path) -> None:
    tree = answer("remember", str(GOOD_SAMPLES / "cookie"), "-o", str(tmp_path / "line"))
    assert "about 1 good part in 10" in str(tree["promises"])
    assert tree["normal_images"] == {"object": 9}


def test_evaluate_and_compare_tell_the_same_figures(tmp_path: Path) -> None:
    data, out = str(SAMPLES / "steel_strip"), str(tmp_path / "rows")
    tree = answer("evaluate", "--method", "mahalanobis", "--data", data, "--out", out)
    values = {(row["metric"], row["scope"]): row["value"] for row in tree["rows"]}  # type: ignore[attr-defined]
    sections = answer("compare", out, "--no-published")["sections"]
    (found,) = [one for one in sections if one["metric"] == "pixel_auroc"]  # type: ignore[attr-defined]
    assert found["lines"][0]["values"]["steel_strip"] == pytest.approx(values["pixel_auroc", "mean"])


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("datasets", "list"), "visa"),
        (("datasets", "show", "visa"), "licence"),
        (("datasets", "locate", "visa"), "visa"),
        (("weights", "list"), "weights"),
        (("cache", "list"), "groups"),
        (("doctor",), "findings"),
        (("reproduce", "table1", "--plan-only", "-o", "unused"), "needs"),
    ],
)
def test_lists_are_objects_too(words: tuple[str, ...], key: str) -> None:
    assert key in answer(*words)


def test_agents_md_names_the_commands_that_have_the_option() -> None:
    named = re.search(r"there for\n(.*?)\.\n", AGENTS.read_text(encoding="utf-8"), re.S)
    assert named is not None
    having = {name for name, command in commands() if any("--json" in one.opts for one in command.params)}
    assert having == {
        f"{word.partition(' ')[0]} {part}".strip()
        for word in re.findall(r"`([^`]+)`", named[1])
        for part in (word.partition(" ")[2].split("|") if " " in word else [""])
    }
