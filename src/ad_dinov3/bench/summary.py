"""A study's rows as Markdown: means over seeds, and what data they were made on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ad_dinov3.bench.board import Board
from ad_dinov3.bench.metric_table import METRICS
from ad_dinov3.bench.plan import Plan
from ad_dinov3.bench.rows import MetricRow
from ad_dinov3.bench.studies import STUDIES
from ad_dinov3.bench.tables import markdown_text, to_markdown


def seed_summary(rows: Sequence[MetricRow], metrics: Sequence[str] = ("pixel_auroc", "pixel_f1_max")) -> str:
    """A Markdown table of means over seeds with their sample standard deviations, in %; class means only.

    What was measured on data that the model has seen is left out.
    """
    chosen = [row for row in rows if row.scope == "mean" and row.metric in metrics and not row.seen]
    head = ["method", "trained on", "data", "seeds", *(METRICS[metric].title for metric in metrics)]
    table = [head, ["---"] * len(head)]
    for key in dict.fromkeys(_line(row) for row in chosen):
        mine = [row for row in chosen if _line(row) == key]
        cells = [_mean_over_seeds([row for row in mine if row.metric == metric], metric) for metric in metrics]
        seeds = max(sum(row.metric == metric and row.value is not None for row in mine) for metric in metrics)
        method, names, data = key
        table.append([method, ", ".join(names) or "nothing", data, str(seeds), *cells])
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in table) + "\n"


def _line(row: MetricRow) -> tuple[str, tuple[str, ...], str]:
    return row.method, row.trained_on, row.data


def _mean_over_seeds(rows: Sequence[MetricRow], metric: str) -> str:
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return "n/a"
    mean = METRICS[metric].shown(float(np.mean(values)))
    return f"{mean} ± {METRICS[metric].shown(float(np.std(values, ddof=1)))}" if len(values) > 1 else mean


def study_page(plan: Plan, board: Board, summary: str, limit: int | None) -> str:
    """A table of the paper as one Markdown page: whose data it was made on, means over seeds, every figure."""
    is_papers = plan.study.routes == STUDIES[plan.study.name].routes
    other = "Made on other data than the paper's: the figures are not comparable with the paper's.\n\n"
    return (
        f"# {plan.study.title}\n\n{'' if is_papers else other}{describe_data(plan, limit)}"
        f"\n## Means over seeds\n\n{summary}\n{to_markdown(board)}"
    )


def describe_data(plan: Plan, limit: int | None) -> str:
    """What stands above a table, in Markdown: the data it was made on, and what of them was missing."""
    lines = []
    missing = [need.name for need in plan.needs if not need.is_there]
    if missing:
        lines.append(f"Not made, because it was missing here: {markdown_text(short_names(missing))}.")
    for route in plan.routes:
        trained, measured = (markdown_text(short_names(names)) for names in (route.train, route.test))
        lines.append(f"Trained on {trained}; measured on {measured}.")
    if limit is not None:
        lines.append(f"At most {limit} images of each set were used, evenly spread.")
    return "\n\n".join(lines) + "\n"


def short_names(specs: Iterable[str]) -> str:
    """Data sets without the folders they lie in."""
    return ", ".join(Path(spec.partition("=")[0]).name for spec in specs)
