"""AnomalyDINO (Damm et al., WACV 2025): the distance of each patch from the nearest patch of a few normal images.

Facts from the authors' code, dammsi/AnomalyDINO. Deviations: encoders are those of this package, DINOv3 in place of
DINOv2 and any size in place of one with the short side of 448 px; copies are turned after the resize to the input;
distances 1 - cosine, in [0, 2], are halved; the Gaussian is in pixels of the input, theirs in those of each image.
Their foreground masks are left out: which classes get one is a list of category names there, and its threshold is in
units of DINOv2's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import AnomalyDinoConfig
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.methods.clip_common import gaussian
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.methods.references import Memory, References, joined
from ad_dinov3.methods.rotations import rotated
from ad_dinov3.types import Features, Scores


class AnomalyDino(Head):
    """Scores patches by their nearest normal patch; it has nothing to say before it remembers normal images.

    Args:
        config: the switches.
    """

    def __init__(self, config: AnomalyDinoConfig) -> None:
        super().__init__()
        self.config = config
        self.references = References()

    def tokens(self, features: Features) -> Tensor:
        """What patches are compared by, (B, h, w, C): a ViT's last stage, as published.

        The stages of a convolutional network see parts of different sizes, and its last one is coarse: there all of
        them, which differ in width, are joined at unit length (not in the paper).
        """
        stages = features.patch_tokens
        if len({stage.shape[-1] for stage in stages}) == 1:
            return stages[-1]
        return torch.cat([F.normalize(stage, dim=-1) for stage in stages], -1)

    def shown(self, images: Tensor) -> Tensor:
        """Normal images (B, 3, H, W) uint8, each with its turned copies: (B * rotations, 3, H, W)."""
        return rotated(images, [360 * turn / self.config.rotations for turn in range(self.config.rotations)])

    def memory(self, batches: Iterable[Features]) -> Memory:
        """All patches of a normal image and its copies."""
        return joined([self.tokens(one).flatten(0, 2)] for one in batches)

    def remember(self, class_name: str, memories: Sequence[Memory]) -> None:
        """Keep the patches of the normal images of one class."""
        self.references.remember(class_name, joined(memories))

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images.

        Raises:
            ConfigError: a class has no normal images.
        """
        far = self.references.distances([self.tokens(features).flatten(1, 2)], class_names)[0] / 2  # (B, h*w)
        # The score is the mean of the most distant patches, before anything is enlarged or smoothed.
        most = max(1, int(self.config.top_fraction * far.shape[1]))
        image_score = far.topk(most, dim=1).values.mean(1)
        grid_map = far.reshape(-1, 1, *features.grid)
        full = F.interpolate(grid_map, features.image_size, mode="bilinear", align_corners=False)[:, 0]
        return Scores(gaussian(full, self.config.sigma_px), image_score)


def _built(
    settings: AnomalyDinoConfig, config: ModelConfig, given: Mapping[str, object], offline: bool
) -> Built[AnomalyDino]:
    return Built(load_backbone(config.encoder, stages=config.encoder_stages, offline=offline), AnomalyDino(settings))


def _references(head: AnomalyDino) -> References:
    return head.references


PARTS = Parts(
    _built,
    _built,
    memory=AnomalyDino.memory,
    remember=AnomalyDino.remember,
    references=_references,
    shown=AnomalyDino.shown,
)
