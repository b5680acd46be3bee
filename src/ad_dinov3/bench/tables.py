"""A board as Markdown, CSV, LaTeX and one self-contained HTML page. Figures are in percent."""

from __future__ import annotations

import csv
import io
import re
from html import escape
from importlib.resources import files

from ad_dinov3.bench.board import Board, Cell, Line, Section
from ad_dinov3.bench.metric_table import Metric

_MARKUP = re.compile(r"[\\`*\[\]<>|~]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word marks nothing
_TEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
}


def to_markdown(board: Board) -> str:
    """One table per metric; the best figure bold, the second best in italics, differences in parentheses."""
    parts = [f"> **Warning.** {markdown_text(warning)}\n" for warning in board.warnings]
    for section in board.sections:
        parts.append(f"### {section.metric.title} (%)\n")
        head = ["method", *section.columns, "source"]
        table = [map(markdown_text, head), ["---", *["---:"] * len(section.columns), "---"]]
        for line in section.lines:
            figures = [_markdown_cell(cell, section.metric) for cell in line.cells]
            table.append([markdown_text(line.label), *figures, markdown_text(f"{line.origin}, {line.source}")])
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")
    return "\n".join([*parts, *map(markdown_text, _footer(board))]) + "\n"


def to_csv(board: Board) -> str:
    """One line per figure: metric, data set, method, origin, source, value, interval, difference (all in %)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("metric", "data", "method", "origin", "source", "value", "low", "high", "difference", "rank", "seen")
    writer.writerow(head)
    for section in board.sections:
        for line in section.lines:
            said = (line.label, line.origin, line.source)
            for column, cell in zip(section.columns, line.cells, strict=True):
                if cell is not None:
                    numbers = [cell.value, cell.low, cell.high, cell.difference]
                    shown = ["" if number is None else f"{100 * number:.4f}" for number in numbers]
                    mark = "seen" if cell.seen else ""
                    writer.writerow([section.metric.name, column, *said, *shown, cell.rank or "", mark])
    return text.getvalue()


def to_latex(board: Board) -> str:
    """One tabular per metric (booktabs); the best figure bold, the second best underlined."""
    parts = [f"% Warning: {warning}" for warning in board.warnings]
    for section in board.sections:
        align = "l" + "r" * len(section.columns)
        head = " & ".join(["method", *map(_tex, section.columns)])
        body = "\n".join(_latex_line(section, index, line) for index, line in enumerate(section.lines))
        parts.append(
            f"% {section.metric.title} (%)\n\\begin{{tabular}}{{{align}}}\n\\toprule\n{head} \\\\\n\\midrule\n"
            f"{body}\n\\bottomrule\n\\end{{tabular}}\n"
        )
    return "\n".join(parts)


def to_html(board: Board, title: str = "Leaderboard") -> str:
    """One page without any other file; a click on a column's head sorts by it."""
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in board.warnings)
    tables = "".join(_html_section(section) for section in board.sections)
    footer = "".join(f"<p>{escape(line)}</p>" for line in _footer(board))
    page = files("ad_dinov3.bench").joinpath("leaderboard.html").read_text(encoding="utf-8")
    return page.replace("{{title}}", escape(title)).replace("{{body}}", warnings + tables + footer)


def percent(cell: Cell | None, metric: Metric) -> str:
    """A figure as the metric is shown, marked where the model has seen the data; a dash where there is none."""
    return "–" if cell is None else metric.shown(cell.value) + (" (seen)" if cell.seen else "")


def signed(cell: Cell | None, metric: Metric) -> str:
    """The difference from the reference with its sign, or nothing."""
    return "" if cell is None or cell.difference is None else f"{100 * cell.difference:+.{metric.digits}f}"


def markdown_text(text: str) -> str:
    """A name as plain text: nothing in it becomes emphasis, a link, HTML or the end of a cell."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _markdown_cell(cell: Cell | None, metric: Metric) -> str:
    text = percent(cell, metric)
    marked = {1: f"**{text}**", 2: f"*{text}*"}.get(cell.rank if cell else 0, text)
    return f"{marked} ({signed(cell, metric)})" if signed(cell, metric) else marked


def _latex_line(section: Section, index: int, line: Line) -> str:
    rule = "\\midrule\n" if index and line.origin != section.lines[index - 1].origin else ""
    return rule + " & ".join([_tex(line.label), *(_latex_cell(c, section.metric) for c in line.cells)]) + " \\\\"


def _latex_cell(cell: Cell | None, metric: Metric) -> str:
    text = "--" if cell is None else percent(cell, metric)
    return {1: f"\\textbf{{{text}}}", 2: f"\\underline{{{text}}}"}.get(cell.rank if cell else 0, text)


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _html_section(section: Section) -> str:
    head = "".join(f'<th scope="col"><button>{escape(column)}</button></th>' for column in section.columns)
    body = "".join(
        f'<tr class="{line.origin}"><th scope="row">{escape(line.label)}<small>{escape(line.source)}</small></th>'
        + "".join(_html_cell(cell, section.metric) for cell in line.cells)
        + "</tr>"
        for line in section.lines
    )
    return (
        f"<h2>{section.metric.title} <small>%</small></h2>"
        f'<div class="scroll"><table><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _html_cell(cell: Cell | None, metric: Metric) -> str:
    value = -1.0 if cell is None or cell.value is None else cell.value
    rank = {1: " class=best", 2: " class=second"}.get(cell.rank if cell else 0, "")
    difference = f"<small>{signed(cell, metric)}</small>" if signed(cell, metric) else ""
    bounds = ""
    if cell is not None and cell.low is not None and cell.high is not None:
        bounds = f"<small>[{100 * cell.low:.1f}, {100 * cell.high:.1f}]</small>"
    return f'<td data-value="{value:.6f}"{rank}><b>{percent(cell, metric)}</b>{difference}{bounds}</td>'


def _footer(board: Board) -> list[str]:
    lines = [f"Differences are from: {board.reference}."]
    if any(line.origin == "published" for section in board.sections for line in section.lines):
        lines.append(
            "Published figures follow their own protocols (map size, mask rule, training data); differences below "
            "about half a point mean nothing."
        )
    return lines + [f"Note on {note}." for note in board.notes]
