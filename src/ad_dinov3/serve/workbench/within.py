"""Scores within areas: those of the run where it had the same areas, else found by the maps, which takes a while."""

from __future__ import annotations

from contextlib import suppress

from ad_dinov3.errors import ImageError
from ad_dinov3.infer.areas import Areas, score_within
from ad_dinov3.serve.workbench.folder import Results
from ad_dinov3.serve.workbench.work import Hand, Progress

Scores = dict[str, float]


def at_once(results: Results, areas: Areas) -> Scores | None:
    """Image -> score of those that have one; None where the maps have to be read."""
    if areas.is_empty:
        return whole(results)
    return as_made(results) if areas == results.areas else None


def whole(results: Results) -> Scores:
    """Scores of whole images."""
    found = {name: row.score if row.model_score is None else row.model_score for name, row in results.rows.items()}
    return {name: score for name, score in found.items() if score is not None}


def as_made(results: Results) -> Scores:
    """Scores within the areas that the run had."""
    return {name: row.score for name, row in results.rows.items() if row.score is not None}


def by_maps(results: Results, areas: Areas, work: Hand) -> Scores | None:
    """Scores within areas, by the maps; None where the work is told to stop."""
    known = at_once(results, areas)
    if known is not None:
        return known
    found, scores = {}, whole(results)
    for done, (name, score) in enumerate(scores.items()):
        if work.is_stopped():
            return None
        work.tell(Progress("Deciding within the areas", done, len(scores)))
        found[name] = score
        with suppress(ImageError):  # its map is gone
            anomaly_map = results.map(name)
            height, width = anomaly_map.shape
            found[name] = score_within(score, anomaly_map, areas.mask((height, width)))
    return found
