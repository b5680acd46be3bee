"""The page of a study: whose data, what was missing, and names that cannot break it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench_toys import make_row

from ad_dinov3.bench.board import make_board
from ad_dinov3.bench.plan import Need, Plan
from ad_dinov3.bench.studies import STUDIES, Route
from ad_dinov3.bench.summary import describe_data, seed_summary, short_names, study_page

TABLE2 = STUDIES["table2"]


def plan_on(routes: tuple[Route, ...], *missing: str) -> Plan:
    study = replace(TABLE2, routes=routes)
    needs = tuple(Need(name, "data", False, "") for name in missing)
    return Plan(study, needs, routes, study.variants)


def page(plan: Plan, limit: int | None = None) -> str:
    rows = [make_row()]
    return study_page(plan, make_board(rows), seed_summary(rows), limit)


def test_a_page_on_the_papers_data_says_nothing_of_other_data() -> None:
    text = page(plan_on(TABLE2.routes))
    assert text.startswith(f"# {TABLE2.title}\n\nTrained on visa; measured on mvtec_ad.")
    assert "not comparable" not in text
    assert text.index("## Means over seeds") < text.index("### Pixel AUROC (%)")


def test_a_page_on_other_data_says_so_first_and_names_what_was_missing_and_left_out() -> None:
    text = page(plan_on((Route(("/disk/a_set",), ("b=/disk/b",)),), "/disk/gone"), limit=160)
    first = text.split("\n\n")[1]
    assert "not comparable with the paper's" in first
    assert "missing here: gone." in text
    assert "Trained on a_set; measured on b." in text
    assert "At most 160 images of each set" in text


def test_names_of_folders_are_plain_text_in_a_page() -> None:
    text = describe_data(plan_on((Route(("/x/*a*",), ("/x/<b>",)),), "/x/c|d"), None)
    for escaped in (r"\*a\*", r"\<b\>", r"c\|d"):
        assert escaped in text


def test_short_names_are_without_the_folders_they_lie_in() -> None:
    assert short_names(["mvtec_ad", str(Path("/disk/my_set")), "btad=/disk/x"]) == "mvtec_ad, my_set, btad"
