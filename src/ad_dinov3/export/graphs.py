"""Which method has which graph; a row of `methods.table` says why one has none."""

from __future__ import annotations

from collections.abc import Callable

from ad_dinov3.errors import ConfigError
from ad_dinov3.export.clip_graph import anomalyclip_graph, prompted_graph
from ad_dinov3.export.dinov3_graph import ad_dinov3_graph, dinov3_plain_graph
from ad_dinov3.export.graph import ScoreGraph
from ad_dinov3.methods.table import METHODS
from ad_dinov3.model import Model

GRAPHS: dict[str, Callable[[Model, tuple[int, int], bool], ScoreGraph]] = {
    "ad_dinov3": ad_dinov3_graph,
    "dinov3_plain": dinov3_plain_graph,
    "winclip": prompted_graph,
    "april_gan": prompted_graph,
    "anomalyclip": anomalyclip_graph,
}


def score_graph(model: Model, size: tuple[int, int], resizable: bool = False) -> ScoreGraph:
    """The graph of a model for inputs of ``size`` (H, W) in px, or of any size if resizable.

    Raises:
        ConfigError: the method has no such graph, or the encoder cannot take the size.
    """
    kind = model.config.method.kind
    if kind not in GRAPHS:
        raise ConfigError(f"{METHODS[kind].title} has no fixed graph: {METHODS[kind].no_graph}")
    return GRAPHS[kind](model, size, resizable)
