"""DINOv3 without training: the first row of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from ad_dinov3.ops import top_mean
from ad_dinov3.types import Features, Scores


class Dinov3Plain:
    """L2-normalised last-stage patch tokens, averaged over their channels (section 4.3).

    The average of a unit vector lies in [-1/sqrt(C), 1/sqrt(C)]; it is mapped to [0, 1] linearly with that range, which
    changes no ranking. The paper does not say which stage or sign it takes: ours are the last, and as it is.
    """

    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Scores of B images; class names do not matter here."""
        tokens = F.normalize(features.patch_tokens[-1], dim=-1)  # (B, h, w, C)
        bound = tokens.shape[-1] ** -0.5
        patch_map = ((tokens.mean(-1) / bound) + 1) / 2
        return Scores(patch_map, top_mean(patch_map, 0.01))
