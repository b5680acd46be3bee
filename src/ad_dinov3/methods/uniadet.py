"""UniADet (2026): for each stage two vectors that say what is normal and abnormal in patches, and two for the image.

The authors published no code; facts from two independent rebuilds where they agree, CreatedTRYNA/UniADet_unofficial and
pfyangcrc/UniADet. Deviations: training without their class-aware mosaics and crops; with normal images a patch whose
cosine to the nearest normal one is negative counts as at distance 1, so that maps stay in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import UniADetConfig
from ad_dinov3.encoders.backbone import build_backbone
from ad_dinov3.errors import ShapeError
from ad_dinov3.methods.head import Built, Parts, TrainableHead
from ad_dinov3.methods.losses import focal_dice, loss_size
from ad_dinov3.methods.references import Memory, References, joined
from ad_dinov3.ops import resize_map
from ad_dinov3.types import Features, Scores
from ad_dinov3.weights import load_backbone_weights, resolve_weights

_FIRST_SPREAD = 0.02


class UniADet(TrainableHead):
    """The trainable head: nothing is shared between stages, nor between patches and the image.

    Args:
        config: the switches.
        widths: channels of each stage, of patch and CLS tokens alike.
    """

    def __init__(self, config: UniADetConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        # Rows are what is normal and what is abnormal, (2, C) for each stage.
        self.of_patches = nn.ParameterList(_FIRST_SPREAD * torch.randn(2, width) for width in widths)
        self.of_image = nn.ParameterList(_FIRST_SPREAD * torch.randn(2, width) for width in widths)
        self.references = References()

    def logits(self, tokens: Sequence[Tensor], vectors: nn.ParameterList) -> list[Tensor]:
        """For each stage the cosines of tokens (..., C) with both vectors, over the temperature: (..., 2).

        Raises:
            ShapeError: there are tokens of another number of stages.
        """
        if len(tokens) != len(vectors):
            raise ShapeError(f"expected features of {len(vectors)} stages, got {len(tokens)}")
        pairs = zip(tokens, vectors, strict=True)
        return [F.normalize(one, dim=-1) @ F.normalize(two, dim=-1).T / self.config.temperature for one, two in pairs]

    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Cross entropy of the image, focal and dice loss of the map, means over the stages; see ``TrainableHead``."""
        image = [F.cross_entropy(one, labels.long()) for one in self.logits(features.cls_tokens, self.of_image)]
        size = loss_size(features.grid, features.image_size, self.config.loss_resolution)
        target = F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]  # (B, *size)
        patches = []
        for one in self.logits(features.patch_tokens, self.of_patches):  # (B, h, w, 2)
            # Logits are enlarged, not probabilities.
            patches.append(focal_dice(resize_map(one.permute(0, 3, 1, 2), size).softmax(1)[:, 1], target))
        terms = {"image": torch.stack(image).mean(), "map": torch.stack(patches).mean()}
        return {**terms, "total": terms["image"] + terms["map"]}

    def memory(self, batches: Iterable[Features]) -> Memory:
        """All patches of a normal image, stage by stage."""
        return joined([stage.flatten(0, 2) for stage in features.patch_tokens] for features in batches)

    def remember(self, class_name: str, memories: Sequence[Memory]) -> None:
        """Take normal images of one class; from then on that class is scored few-shot."""
        self.references.remember(class_name, joined(memories))

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps on the patch grid and image scores of B images, few-shot once normal images are known.

        Raises:
            ConfigError: a class has no normal images while others have.
        """
        maps = [one.softmax(-1)[..., 1] for one in self.logits(features.patch_tokens, self.of_patches)]  # (B, h, w)
        images = [one.softmax(-1)[:, 1] for one in self.logits(features.cls_tokens, self.of_image)]  # (B,)
        zero_shot, image = torch.stack(maps).mean(0), torch.stack(images).mean(0)
        if not self.references:
            peaks = torch.stack(maps).amax((2, 3)).mean(0)  # each stage's own
            return Scores(zero_shot, (image + peaks) / 2)
        tokens = [stage.flatten(1, 2) for stage in features.patch_tokens]
        far = torch.stack(self.references.distances(tokens, class_names)).clamp(0, 1).mean(0)  # (B, h*w)
        fused = (zero_shot + far.reshape(zero_shot.shape)) / 2
        return Scores(fused, (image + fused.amax((1, 2))) / 2)


def late(depth: int) -> tuple[int, ...]:
    """Five blocks of the second half of ``depth``, evenly spread: 12, 15, 18, 21 and 24 of 24; fewer of a few."""
    return tuple(sorted({max(1, round(depth * eighths / 8)) for eighths in range(4, 9)}))


def _built(settings: UniADetConfig, config: ModelConfig, given: Mapping[str, object], offline: bool) -> Built[UniADet]:
    weights = load_backbone_weights(resolve_weights(config.encoder, offline=offline))
    usual = late(int(str(weights.config["num_hidden_layers"]))) if weights.kind == "vit" else None
    encoder = build_backbone(weights, config.encoder_stages or usual)
    with torch.random.fork_rng(devices=[]):  # the seed decides the head, and nothing of the caller's
        torch.manual_seed(config.train.seed)
        head = UniADet(settings, encoder.spec.widths)
    return Built(encoder, head.eval())


def _references(head: UniADet) -> References:
    return head.references


PARTS = Parts(_built, _built, memory=UniADet.memory, remember=UniADet.remember, references=_references)
