"""MuSc (Li et al., ICLR 2024): the images of a folder score each other, and none of them is known to be normal.

Facts from the authors' code, xrli-U/MuSc. Deviations: encoders are those of this package; of N images the nearest
ceil(0.3 (N - 1)) count, as the authors advise where their floor is 0; CLS tokens are normalised for every encoder, and
unlike images count 0 for each other's score; image scores stay distances, which are not spread over [0, 1] before they
are averaged (no ranking changes); distances, in [0, 2], are halved; one list of windows for all data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import MuScConfig
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.errors import ConfigError
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.types import Features, Scores

_NEAREST_SHARE = 0.3
_VARIANCE_FLOOR = 1e-5


class MuSc(Head):
    """Scores all images of a class at once; it has nothing to say of a single one.

    Args:
        config: the switches.
    """

    def __init__(self, config: MuScConfig) -> None:
        super().__init__()
        self.config = config

    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Refuse to score images by themselves.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "MuSc scores no image by itself: it compares the images of a folder with each other; add --compare folder"
        )

    @torch.no_grad()
    def compare(self, images: Iterable[Features]) -> Scores:
        """Maps at the input's size and image scores of N images of one class.

        Memory holds the tokens of all of them, and N x N x T distances for T patches an image.

        Args:
            images: features of one image each.
        """
        kept, embeddings, size = [], [], (0, 0)
        for features in images:
            kept.append([standardised(stage[0]).half() for stage in features.patch_tokens])
            embeddings.append(features.cls_tokens[-1][0])
            size = features.image_size
        stages, grid = range(len(kept[0])), kept[0][0].shape[:2]
        levels = [(stage, side) for stage in stages for side in self.config.neighbourhoods]
        every = []
        for stage, side in levels:
            every.append(mutual(torch.stack([surroundings(one[stage].float(), side) for one in kept])))
        grid_map = torch.stack(every).mean(0).reshape(-1, 1, *grid) / 2
        full = F.interpolate(grid_map, size, mode="bilinear", align_corners=True)[:, 0]
        return Scores(full, rescored(full.amax((1, 2)), torch.stack(embeddings), self.config.windows))


def standardised(tokens: Tensor) -> Tensor:
    """All numbers of an image's tokens (h, w, C) together to mean 0 and deviation 1."""
    return (tokens - tokens.mean()) / (tokens.var(correction=0) + _VARIANCE_FLOOR).sqrt()


def surroundings(tokens: Tensor, side: int) -> Tensor:
    """Means of tokens (h, w, C) over ``side`` x ``side`` cells, zeros beyond the border, at unit length: (h*w, C)."""
    means = F.avg_pool2d(tokens.permute(2, 0, 1), side, stride=1, padding=side // 2)
    return F.normalize(means.permute(1, 2, 0).flatten(0, 1), dim=-1)


def mutual(tokens: Tensor) -> Tensor:
    """Mean distance of each patch to its nearest patch in the images that have the nearest ones.

    Args:
        tokens: (N, T, C), unit vectors of N >= 2 images.

    Returns:
        (N, T) in [0, 2].
    """
    count, patches, _ = tokens.shape
    nearest = tokens.new_empty(count, count, patches)  # cosine of a patch of [image] in [other image]
    for image in range(count):
        for other in range(image):
            cosines = tokens[image] @ tokens[other].T  # one product serves both
            nearest[image, other], nearest[other, image] = cosines.amax(1), cosines.amax(0)
    others = ~torch.eye(count, dtype=torch.bool, device=tokens.device)
    distances = (2 - 2 * nearest[others]).clamp_min(0).sqrt().reshape(count, count - 1, patches)
    few = max(1, math.ceil(_NEAREST_SHARE * (count - 1) - 1e-9))
    return distances.topk(few, dim=1, largest=False).values.mean(1)


def rescored(scores: Tensor, embeddings: Tensor, windows: Sequence[int]) -> Tensor:
    """RsCIN: the scores of N images, each averaged with those of the images that look most alike.

    Args:
        scores: (N,).
        embeddings: (N, D) of the whole images.
        windows: how many images, itself among them, count; the results are averaged.

    Returns:
        (N,), on the scale of the scores.
    """
    unit = F.normalize(embeddings, dim=-1)
    alike = (unit @ unit.T).clamp_min(0)
    results = []
    for window in windows:
        weights, places = alike.topk(min(window, len(scores)), dim=1)
        results.append((weights * scores[places]).sum(1) / weights.sum(1).clamp_min(1e-12))
    return torch.stack(results).mean(0)


def _built(settings: MuScConfig, config: ModelConfig, given: Mapping[str, object], offline: bool) -> Built[MuSc]:
    return Built(load_backbone(config.encoder, stages=config.encoder_stages, offline=offline), MuSc(settings))


PARTS = Parts(_built, _built, compare=MuSc.compare)
