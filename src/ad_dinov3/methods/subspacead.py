"""SubspaceAD (CVPR 2026): what of a patch lies outside of the subspace that a few normal images span.

Facts from the authors' code, CLendering/SubspaceAD. Deviations: encoders are those of this package, theirs is DINOv2
giant; angles are drawn once by a seed, the same for every image; copies are turned after the resize to the input. A
residual r is shown as r / (r + r0), where r0 is what normal patches have on average; the image score is averaged before
that, so that no ranking changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import SubspaceAdConfig
from ad_dinov3.encoders.backbone import build_backbone, middle
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.methods.references import Memory, References
from ad_dinov3.methods.rotations import rotated
from ad_dinov3.ops import top_mean
from ad_dinov3.types import Features, Scores
from ad_dinov3.weights import load_backbone_weights, resolve_weights

_MOST_DEGREES = 345.0
_BLUR_SIGMA_PX, _BLUR_TAPS = 4.0, 3  # so narrow a window makes this Gaussian almost a mean of 3 x 3 px


class SubspaceAd(Head):
    """Scores patches by their residual; it has nothing to say before it remembers normal images.

    Args:
        config: the switches.
    """

    def __init__(self, config: SubspaceAdConfig) -> None:
        super().__init__()
        self.config = config
        self.references = References()  # of each class the mean (1, C), the basis (k, C), and the mean residual (1, 1)

    def tokens(self, features: Features) -> Tensor:
        """What is compared, (B, h, w, C): the mean of a ViT's stages, as they are.

        The stages of a convolutional network differ in width and are joined at unit length (not in the paper).
        """
        stages = features.patch_tokens
        if len({stage.shape[-1] for stage in stages}) == 1:
            return torch.stack(stages).mean(0)
        return torch.cat([F.normalize(stage, dim=-1) for stage in stages], -1)

    def shown(self, images: Tensor) -> Tensor:
        """Normal images (B, 3, H, W) uint8, each with its turned copies, whose corners are black."""
        drawn = np.random.default_rng(self.config.seed).uniform(0, _MOST_DEGREES, self.config.copies)
        return rotated(images, [0.0, *drawn.tolist()], "nearest", "zeros")

    def memory(self, batches: Iterable[Features]) -> Memory:
        """Number (1, 1), sum (1, C) and sum of outer products (C, C) of the tokens of a normal image and its copies."""
        count, total, outer = 0, torch.zeros(()), torch.zeros(())
        for features in batches:
            tokens = self.tokens(features).flatten(0, 2).double()  # (N, C)
            count += len(tokens)
            total = total + tokens.sum(0, keepdim=True)
            outer = outer + tokens.T @ tokens
        return torch.full((1, 1), count, dtype=torch.float64), total, outer

    def remember(self, class_name: str, memories: Sequence[Memory]) -> None:
        """Keep the subspace of the tokens of one class's normal images: the fewest directions of enough variance."""
        count, total, outer = (torch.stack(parts).sum(0) for parts in zip(*memories, strict=True))
        mean = total / count
        covariance = (outer - count * mean.T @ mean) / (count - 1)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        held = values.cumsum(0) / values.sum()
        kept = min(int((held < self.config.energy).sum()) + 1, len(values))
        residual = values[kept:].sum().clamp_min(1e-12 * values.sum())
        levels = (mean, vectors[:, :kept].T.contiguous(), residual.reshape(1, 1))
        self.references.keep(class_name, [level.float() for level in levels])

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images.

        Raises:
            ConfigError: a class has no normal images.
        """
        self.references.check(class_names)
        rows = zip(self.tokens(features), class_names, strict=True)
        grid_map = torch.stack([self.residual(tokens, name) for tokens, name in rows])  # (B, h, w), 1 for normal ones
        full = F.interpolate(grid_map[:, None], features.image_size, mode="bilinear", align_corners=False)[:, 0]
        full = blurred(full)
        return Scores(_squashed(full), _squashed(top_mean(full, self.config.top_fraction)))

    def residual(self, tokens: Tensor, class_name: str) -> Tensor:
        """Squared distance of tokens (h, w, C) from the subspace of a class, over that of normal ones: (h, w), >= 0."""
        mean, basis, usual = (level.to(tokens.device) for level in self.references.of(class_name))
        centred = tokens - mean
        rest = centred - (centred @ basis.T) @ basis
        return rest.square().sum(-1) / usual[0, 0]


def blurred(maps: Tensor) -> Tensor:
    """The authors' smoothing of (B, H, W): a Gaussian of sigma 4 px cut off after one pixel, borders mirrored."""
    offsets = torch.arange(_BLUR_TAPS, device=maps.device) - _BLUR_TAPS // 2
    kernel = torch.exp(-0.5 * (offsets / _BLUR_SIGMA_PX) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (_BLUR_TAPS // 2,) * 4, mode="reflect")
    return F.conv2d(padded, torch.outer(kernel, kernel)[None, None])[:, 0]


def _squashed(residuals: Tensor) -> Tensor:
    return residuals / (residuals + 1)


def _built(
    settings: SubspaceAdConfig, config: ModelConfig, given: Mapping[str, object], offline: bool
) -> Built[SubspaceAd]:
    weights = load_backbone_weights(resolve_weights(config.encoder, offline=offline))
    usual = middle(int(str(weights.config["num_hidden_layers"]))) if weights.kind == "vit" else None
    encoder = build_backbone(weights, config.encoder_stages or usual, normed=False)
    return Built(encoder, SubspaceAd(settings))


def _references(head: SubspaceAd) -> References:
    return head.references


PARTS = Parts(
    _built,
    _built,
    memory=SubspaceAd.memory,
    remember=SubspaceAd.remember,
    references=_references,
    shown=SubspaceAd.shown,
)
