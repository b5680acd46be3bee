"""DINOv3 without training: the first row of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import Dinov3PlainConfig
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.ops import top_mean
from ad_dinov3.types import Features, Scores

_TOP_FRACTION = 0.01  # of the map, which the image score averages; the paper has no image score for this row


class Dinov3Plain(Head):
    """L2-normalised last-stage patch tokens, averaged over their channels (section 4.3).

    The average of a unit vector lies in [-1/sqrt(C), 1/sqrt(C)]; it is mapped to [0, 1] linearly with that range, which
    changes no ranking. The paper does not say which stage or sign it takes: ours are the last, and as it is.
    """

    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Scores of B images; class names do not matter here."""
        tokens = F.normalize(features.patch_tokens[-1], dim=-1)  # (B, h, w, C)
        bound = tokens.shape[-1] ** -0.5  # Cauchy-Schwarz: |sum of C entries| <= sqrt(C) for a unit vector
        patch_map = ((tokens.mean(-1) / bound) + 1) / 2  # (B, h, w) in [0, 1]
        return Scores(patch_map, top_mean(patch_map, _TOP_FRACTION))


def _built(
    settings: Dinov3PlainConfig, config: ModelConfig, given: Mapping[str, object], offline: bool
) -> Built[Dinov3Plain]:
    return Built(load_backbone(config.encoder, stages=config.encoder_stages, offline=offline), Dinov3Plain())


PARTS = Parts(_built, _built)
