"""Boards: ranks, differences, warnings, published figures; and their four files."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from bench_toys import make_row

from ad_dinov3.bench.board import Board, Cell, find_conflicts, make_board
from ad_dinov3.bench.published import published_results
from ad_dinov3.bench.tables import to_csv, to_html, to_latex, to_markdown
from ad_dinov3.errors import ConfigError, DataError

THREE = [
    make_row(model="run1", value=0.90),
    make_row(model="run2", weights_hash="bbbb", value=0.95),
    make_row(model="run3", weights_hash="cccc", value=0.93),
]


def cell(board: Board, label: str, column: str, metric: str = "pixel_auroc") -> Cell:
    section = next(s for s in board.sections if s.metric.name == metric)
    line = next(line for line in section.lines if line.label.startswith(label))
    found = line.cells[section.columns.index(column)]
    assert found is not None
    return found


def test_best_and_second_best_of_a_column_are_ranked() -> None:
    board = make_board(THREE)
    ranks = {line.label: line.cells[0].rank for line in board.sections[0].lines if line.cells[0]}
    assert ranks == {"ad_dinov3 (run1)": 0, "ad_dinov3 (run2)": 1, "ad_dinov3 (run3)": 2}


def test_figures_equal_as_shown_share_their_rank() -> None:
    board = make_board([THREE[1], make_row(model="run4", weights_hash="dddd", value=0.9504), THREE[0]])
    assert cell(board, "ad_dinov3 (run2)", "mvtec_ad").rank == cell(board, "ad_dinov3 (run4)", "mvtec_ad").rank == 1
    assert cell(board, "ad_dinov3 (run1)", "mvtec_ad").rank == 2


def test_differences_refer_to_the_line_asked_for() -> None:
    board = make_board(THREE, against="ad_dinov3 (run3)")
    assert cell(board, "ad_dinov3 (run1)", "mvtec_ad").difference == pytest.approx(-0.03)
    assert cell(board, "ad_dinov3 (run3)", "mvtec_ad").difference is None
    with pytest.raises(ConfigError, match="no line begins with 'run9'"):
        make_board(THREE, against="run9")


def test_published_figures_of_the_measured_data_stand_beside_and_are_the_reference() -> None:
    board = make_board(THREE, published_results())
    paper = cell(board, "AD-DINOv3 (", "mvtec_ad")
    assert paper.value == pytest.approx(0.916)
    assert cell(board, "ad_dinov3 (run2)", "mvtec_ad").difference == pytest.approx(0.034)
    assert board.reference.startswith("AD-DINOv3 (")
    assert board.sections[0].columns == ("mvtec_ad",)


def test_other_data_have_no_published_lines() -> None:
    board = make_board([make_row(data="mtd")], published_results())
    assert {line.origin for section in board.sections for line in section.lines} == {"measured"}


def test_runs_of_different_protocols_or_images_are_warned_of() -> None:
    assert find_conflicts(THREE) == []
    by_protocol = find_conflicts([THREE[0], make_row(protocol="released", protocol_hash="p9")])
    by_images = find_conflicts([THREE[0], make_row(data_hash="d9", images=60)])
    assert "different protocols" in by_protocol[0]
    assert "60 images (d9)" in by_images[0]


def test_labels_name_what_tells_runs_apart() -> None:
    rows = [make_row(), make_row(weights_hash="bbbb"), make_row(protocol="native", protocol_hash="p9")]
    labels = [line.label for line in make_board(rows).sections[0].lines]
    assert len(set(labels)) == 3
    assert "protocol native" in labels[2]


def test_a_method_trained_anew_for_one_set_keeps_one_line_and_says_so() -> None:
    rows = [make_row(data="btad"), make_row(data="visa", trained_on=("mvtec_ad",), weights_hash="bbbb")]
    board = make_board(rows)
    assert [line.label for line in board.sections[0].lines] == ["ad_dinov3 (run1)"]
    assert board.notes == ("ad_dinov3 (run1): trained on visa for btad; trained on mvtec_ad for visa",)
    both_on_visa = make_board([*rows, make_row(data="visa")])
    assert len(both_on_visa.sections[0].lines) == 2


def test_classes_are_columns_of_their_own_scope() -> None:
    rows = [make_row(scope="class", class_name=name) for name in ("cable", "screw")]
    assert make_board(rows, published_results(), scope="class").sections[0].columns == (
        "mvtec_ad/cable",
        "mvtec_ad/screw",
    )
    with pytest.raises(DataError, match="no rows of scope pooled"):
        make_board(rows, scope="pooled")


def test_undefined_is_shown_as_na_and_never_ranked() -> None:
    board = make_board([make_row(metric="image_auroc", value=None), make_row(metric="image_auroc", model="b")])
    assert "n/a" in to_markdown(board)
    assert cell(board, "ad_dinov3 (run1)", "mvtec_ad", "image_auroc").rank == 0


def test_markdown_marks_the_best_and_gives_differences() -> None:
    text = to_markdown(make_board(THREE, published_results()))
    assert "**95.0** (+3.4)" in text
    assert "| 91.6 |" in text
    assert "AD-DINOv3, Table 1" in text


def test_figures_of_seen_data_have_no_rank_no_difference_and_are_nobodys_reference() -> None:
    rows = [
        make_row(model="clean", value=0.8),
        make_row(model="other", weights_hash="bbbb", value=0.7),
        make_row(model="cheat", weights_hash="cccc", value=0.99, seen=True),
    ]
    board = make_board(rows)
    assert [cell(board, f"ad_dinov3 ({name})", "mvtec_ad").rank for name in ("clean", "other", "cheat")] == [1, 2, 0]
    assert cell(board, "ad_dinov3 (cheat)", "mvtec_ad").difference is None
    against = make_board(rows, against="ad_dinov3 (cheat)")
    assert cell(against, "ad_dinov3 (clean)", "mvtec_ad").difference is None
    assert board.warnings == (
        "ad_dinov3 (cheat) has seen mvtec_ad: figures marked seen are not zero-shot and have no rank",
    )
    for text in (to_markdown(board), to_latex(board), to_html(board)):
        assert text.count("(seen)") == 1
        assert "has seen" in text
    marks = {line["method"]: line["seen"] for line in csv.DictReader(io.StringIO(to_csv(board)))}
    assert marks == {"ad_dinov3 (clean)": "", "ad_dinov3 (other)": "", "ad_dinov3 (cheat)": "seen"}


def test_names_cannot_break_or_mark_up_a_markdown_table() -> None:
    board = make_board([make_row(model="a|b *c* _d_ [e](http://f) <img src=x>\n| g", data="x_y")])
    lines = to_markdown(board).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [len(re.split(r"(?<!\\)\|", line)) for line in table] == [5, 5, 5]
    assert r"a\|b \*c\* \_d\_ \[e\](http://f) \<img src=x\> \| g" in table[2]
    assert "| x_y |" in table[0]  # an underscore within a word marks nothing
    assert any(r"from: ad_dinov3 (a\|b" in line for line in lines)


def test_csv_holds_every_figure_once() -> None:
    board = make_board(THREE, published_results())
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert len(lines) == sum(c is not None for s in board.sections for line in s.lines for c in line.cells)
    best = next(line for line in lines if line["method"] == "ad_dinov3 (run2)")
    assert (best["value"], best["low"], best["rank"], best["origin"]) == ("95.0000", "91.0000", "1", "measured")


def test_latex_escapes_names_and_underlines_the_second_best() -> None:
    text = to_latex(make_board(THREE))
    assert r"ad\_dinov3 (run3) & \underline{93.0}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_html_is_well_formed_and_escapes_labels() -> None:
    class Balance(HTMLParser):
        depth = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.depth += tag not in {"meta"}

        def handle_endtag(self, tag: str) -> None:
            self.depth -= 1

    page = to_html(make_board([make_row(model="<b>x</b>")], published_results()))
    parser = Balance()
    parser.feed(page)
    assert parser.depth == 0
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "http" not in page.split("<script>")[1]


def test_published_values_are_those_of_the_papers_table() -> None:
    table = {r.method: r for r in published_results() if r.source == "AD-DINOv3, Table 1"}
    assert len(table) == 5
    industrial = [table["AD-DINOv3"].values[d, "pixel_auroc"] for d in ("visa", "btad", "mpdd", "mvtec_ad")]
    medical = [table["AD-DINOv3"].values[d, "pixel_f1_max"] for d in ("isic", "colondb", "clinicdb", "tn3k")]
    assert round(100 * sum(industrial) / 4, 1) == 94.2  # the averages that the paper prints
    assert round(100 * sum(medical) / 4, 1) == 51.5


def test_published_figures_of_methods_that_look_at_other_images_have_no_rank() -> None:
    board = make_board(THREE, published_results())
    shown = cell(board, "MuSc, against the other test images (CLIP ViT-L/14@336, 518 px)", "mvtec_ad")
    assert (shown.value, shown.rank, shown.difference) == (0.971, 0, None)
