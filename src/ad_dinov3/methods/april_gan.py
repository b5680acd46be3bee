"""APRIL-GAN (Chen et al., VAND workshop 2023): one linear layer per tapped block takes patches to the text's space.

Facts from the authors' code, ByChelsea/VAND-APRIL-GAN. Deviations, which change no ranking of pixels: their map is the
sum over the layers, in [0, L], ours that sum over L; with reference images theirs is in [0, L + 2 M], ours divides by
L + 2 M. Deviation in the few-shot image score: they rescale the largest value of a map by the least and the greatest
over all test images of the class, which one image cannot know; ours takes the largest value of the [0, 1] map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import AprilGanConfig
from ad_dinov3.encoders.backbone import quarters
from ad_dinov3.encoders.clip_image import ClipTaps, build_clip_vision
from ad_dinov3.encoders.clip_text import build_clip_text
from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, PromptSet, encode_classes
from ad_dinov3.errors import ShapeError
from ad_dinov3.methods.clip_common import BakedPrompts, gaussian, read_both_towers, read_text_tower, spoken
from ad_dinov3.methods.head import Built, Parts, TrainableHead
from ad_dinov3.methods.losses import focal_dice, loss_size
from ad_dinov3.methods.references import Memory, References, joined
from ad_dinov3.ops import cosine_columns, on_grid
from ad_dinov3.types import Features, Scores, TextEncoder
from ad_dinov3.weights import ClipWeights


class AprilGan(TrainableHead):
    """The trainable head: L linear layers, with the prompts of known classes baked in.

    Features are those of ``ClipTaps``: raw block outputs, and the image's embedding as every stage's CLS token.

    Args:
        config: the switches.
        widths: channels of each tapped block.
        text_width: length D of a prompt embedding.
        class_names: classes whose prompts it holds.
    """

    def __init__(
        self, config: AprilGanConfig, widths: Sequence[int], text_width: int, class_names: Sequence[str]
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Linear(width, text_width) for width in widths)
        self.prompts = BakedPrompts(class_names, text_width)
        self.references = References()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes with baked prompts."""
        return self.prompts.class_names

    def set_prompts(self, embeddings: Mapping[str, Tensor]) -> None:
        """Bake prompt embeddings, class name -> (2, D), in place of the present ones."""
        self.prompts.bake(embeddings)

    def memory(self, batches: Iterable[Features]) -> Memory:
        """The patches of normal images."""
        # (K, h, w, C) to (K*h*w, C): where in an image a patch lay is forgotten.
        return joined([tokens.flatten(0, 2) for tokens in features.patch_tokens] for features in batches)

    def remember(self, class_name: str, memories: Sequence[Memory]) -> None:
        """Take normal reference images of one class; from then on that class is scored few-shot."""
        self.references.remember(class_name, joined(memories))

    def logits(self, features: Features, class_names: Sequence[str]) -> list[Tensor]:
        """For each layer gain times the cosine of patches and prompts, (B, 2, h, w); channel 1 is abnormal.

        Raises:
            ShapeError: the features have another number of stages than the head has layers.
            ConfigError: a class has no baked prompt.
        """
        if len(features.patch_tokens) != len(self.layers):
            raise ShapeError(f"expected features of {len(self.layers)} stages, got {len(features.patch_tokens)}")
        text = self.prompts.columns(class_names)  # (B, D, 2)
        found = []  # of (B, 2, h, w)
        for layer, tokens in zip(self.layers, features.patch_tokens, strict=True):
            patches = layer(tokens.flatten(1, 2))  # (B, h, w, C) to (B, T, D)
            # The text has length 1 already, so the cosine needs the patches' norm alone.
            found.append(self.config.gain * on_grid(cosine_columns(patches, text, False), features.grid))
        return found

    def maps(self, logits: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Abnormal probability of each layer, (B, *size) in [0, 1]."""
        # The order matters: softmax of enlarged logits has sharper borders than enlarged probabilities.
        if self.config.upsample == "logits":
            return [self._resized(one, size).softmax(1)[:, 1] for one in logits]
        return [self._resized(one.softmax(1), size)[:, 1] for one in logits]

    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Sum over the layers of focal and dice loss of the abnormal probability; see ``TrainableHead``."""
        size = loss_size(features.grid, features.image_size, self.config.loss_resolution)
        target = F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]  # (B, *size), the share of a cell that is anomalous
        terms = [focal_dice(one, target) for one in self.maps(self.logits(features, class_names), size)]
        return {"total": torch.stack(terms).sum()}

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images, few-shot once reference images are known.

        Raises:
            ConfigError: a class has no baked prompt, or no reference images while others have.
        """
        size = features.image_size
        total = torch.stack(self.maps(self.logits(features, class_names), size)).sum(0)  # (B, H, W) in [0, L]
        by_text = self.image_scores(features, class_names)  # (B,)
        if not self.references:
            return Scores(gaussian(total, self.config.sigma_px) / len(self.layers), by_text)
        far = self.references.distances([tokens.flatten(1, 2) for tokens in features.patch_tokens], class_names)
        # (B, h*w) distances in [0, 2] of each layer, so that the sum ends in [0, L + 2 L].
        total = total + sum(self._resized(on_grid(one[..., None], features.grid), size)[:, 0] for one in far)
        # [0, 1], whatever the layers: a threshold must not depend on whether there are normal images.
        patch_map = gaussian(total, self.config.sigma_px) / (len(self.layers) + 2 * len(far))
        return Scores(patch_map, (by_text + patch_map.amax((1, 2))) / 2)

    def image_scores(self, features: Features, class_names: Sequence[str]) -> Tensor:
        """Abnormal probability of CLIP's own image embedding, (B,)."""
        # (B, 1, D) against (B, D, 2): the untouched CLIP is what tells whole images apart; no layer was trained for it.
        cosines = cosine_columns(features.cls_tokens[-1][:, None], self.prompts.columns(class_names), False)
        return (self.config.gain * cosines[:, 0]).softmax(1)[:, 1]

    def _resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.config.align_corners)


def from_authors(head: AprilGan, state: Mapping[str, Tensor], origin: str = "checkpoint") -> None:
    """Put a checkpoint of the authors' into the head: ``trainable_linearlayer.fc.{i}.weight`` and ``.bias``.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    checked = checked_state(origin, state, to_authors(head))
    head.layers.load_state_dict({key.removeprefix(_PREFIX): tensor for key, tensor in checked.items()})


def to_authors(head: AprilGan) -> dict[str, Tensor]:
    """The head's tensors as the authors' checkpoint has them, names of nested dictionaries joined by dots."""
    return {f"{_PREFIX}{key}": tensor.detach() for key, tensor in head.layers.state_dict().items()}


_PREFIX = "trainable_linearlayer.fc."


def _new(settings: AprilGanConfig, config: ModelConfig, words: Mapping[str, str], offline: bool) -> Built[AprilGan]:
    weights = read_both_towers(config, offline)
    built = _built(settings, config, weights, ())
    _bake(built.head, build_clip_text(weights, settings.activation), words)
    return built


def _shell(
    settings: AprilGanConfig, config: ModelConfig, state: Mapping[str, Tensor], offline: bool
) -> Built[AprilGan]:
    return _built(settings, config, read_both_towers(config, offline), config.class_names)


def _built(
    settings: AprilGanConfig, config: ModelConfig, weights: ClipWeights, class_names: Sequence[str]
) -> Built[AprilGan]:
    loaded = build_clip_vision(weights, settings.activation, settings.position_resize)
    # The ends of the quarters are the authors' choice: blocks 6, 12, 18 and 24 of ViT-L.
    stages = tuple(config.encoder_stages or quarters(len(loaded.vision.blocks)))
    widths = (loaded.vision.width,) * len(stages)
    encoder = loaded.encoder(ClipTaps(loaded.vision, stages), widths, {"stages": stages})
    with torch.random.fork_rng(devices=[]):  # the seed decides the layers, and nothing of the caller's
        torch.manual_seed(config.train.seed)
        head = AprilGan(settings, widths, loaded.vision.text_width, class_names)
    return Built(encoder, head.eval())


def _add_prompts(head: AprilGan, config: ModelConfig, words: Mapping[str, str], offline: bool) -> None:
    _bake(head, read_text_tower(config, head.config.activation, offline), words)


def _bake(head: AprilGan, text: TextEncoder, words: Mapping[str, str]) -> None:
    known = dict(zip(head.class_names, head.prompts.rows.detach().cpu(), strict=True))
    prompts = replace(_ensemble(head.config), class_names=spoken(words, head.config.class_words))
    head.set_prompts(known | encode_classes(text, prompts, tuple(words)))


def _written(head: AprilGan) -> dict[str, object]:
    state = {key: tensor.detach() for key, tensor in head.layers.state_dict().items()}
    return {"trainable_linearlayer": {f"fc.{key}": tensor for key, tensor in state.items()}}


def _references(head: AprilGan) -> References:
    return head.references


def _ensemble(settings: AprilGanConfig) -> PromptSet:
    return DEFAULT_PROMPTS.saying(settings.states)


def _settle(head: AprilGan, settings: AprilGanConfig) -> None:
    head.config = settings


PARTS = Parts(
    _new,
    _shell,
    _add_prompts,
    from_authors,
    _written,
    AprilGan.memory,
    AprilGan.remember,
    _references,
    ensemble=_ensemble,
    settle=_settle,
)
