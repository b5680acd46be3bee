"""Comparison tokens as a part of a traced graph: what `references.tokens.comparison_tokens` computes with numpy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.references.tokens import NEIGHBOURHOODS, coarsening, seeded_projection


class ComparisonTokens(nn.Module):
    """Unit tokens of a grid of at most 40 cells a side, from the patch tokens of all stages.

    Args:
        widths: channels C_l of each stage.
        grid: cells (h, w) of the stages.
    """

    projection: Tensor | None

    def __init__(self, widths: Sequence[int], grid: tuple[int, int]) -> None:
        super().__init__()
        projection = seeded_projection(sum(widths))
        self.register_buffer("projection", None if projection is None else torch.from_numpy(projection))
        self.factor = coarsening(grid)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """(B, h', w', D) of stages (B, h, w, C_l)."""
        joined = torch.cat([F.normalize(stage, dim=-1) for stage in stages], -1)
        if self.projection is not None:
            joined = joined @ self.projection
        planes = joined.permute(0, 3, 1, 2)
        if self.factor > 1:
            planes = F.avg_pool2d(planes, self.factor, self.factor, ceil_mode=True, count_include_pad=False)
        means = [F.avg_pool2d(planes, side, 1, side // 2, count_include_pad=False) for side in NEIGHBOURHOODS]
        return F.normalize(torch.stack(means).sum(0).permute(0, 2, 3, 1), dim=-1)
