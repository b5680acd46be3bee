"""AnomalyCLIP (Zhou et al., ICLR 2024): prompts that know no object, learned inside CLIP's text tower.

Facts from the authors' code, zqhang/AnomalyCLIP. Two paths through the image tower, DPAM of the paper: the usual one,
and from some block on a second that adds up value-value attention. Deviation: with several stages the authors sum their
maps, in [0, L]; ours is the mean, with the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import AnomalyClipConfig
from ad_dinov3.encoders.clip_image import ClipImageEncoder, ClipVision, LoadedVision, as_grid, build_clip_vision
from ad_dinov3.encoders.clip_text import build_clip_text
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.encoders.stages import StageTokens, checked_stages
from ad_dinov3.errors import ConfigError
from ad_dinov3.methods.clip_common import Frozen, gaussian, read_both_towers
from ad_dinov3.methods.head import Built, Parts, TrainableHead
from ad_dinov3.methods.losses import dice, focal_dice, loss_size
from ad_dinov3.ops import on_grid
from ad_dinov3.types import Features, Scores

if TYPE_CHECKING:
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

WORDS = ("object.", "damaged object.")  # what follows the learned tokens: normal, abnormal
PLACEHOLDER = "X"  # stands for a learned token while a prompt is tokenized
_SIDES = ("pos", "neg")  # the authors' names of normal and abnormal
_POSITIONS = 77  # of every public CLIP text tower
_UNUSED_WIDTH = 896  # of projections that sit in the authors' checkpoints and are never called


class DualPath(nn.Module):
    """The image tower with DPAM: patches from the value-value path, the CLS token from the usual one.

    Args:
        vision: the tower.
        stages: 1-based block counts, ascending, after which the patches are taken.
        config: ``dpam_blocks`` and ``cls_norm`` are used.

    Raises:
        ConfigError: stages that are not ascending or not within the depth.
    """

    def __init__(self, vision: ClipVision, stages: Sequence[int], config: AnomalyClipConfig) -> None:
        super().__init__()
        self.vision = vision
        self.stages = checked_stages(stages, len(vision.blocks))
        self.first_dual = max(0, len(vision.blocks) - config.dpam_blocks)
        self.cls_norm = config.cls_norm

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return (self.vision.text_width,) * len(self.stages)

    def forward(self, pixels: Tensor) -> StageTokens:
        """Projected patches (B, h, w, D) of each stage and the image's embedding (B, D) of normalised images."""
        grid = self.vision.grid(pixels)
        usual = self.vision.embed(pixels)  # (B, 1 + h*w, C)
        second = usual
        patches = []
        for index, block in enumerate(self.vision.blocks):
            if index < self.first_dual:
                usual = block(usual, None)
                second = usual  # the second path begins as the usual one
            else:
                # What is added is always computed from the usual path; this one has no MLP and feeds nothing back.
                second = second + value_attention(block, usual)
                usual = block(usual, None)
            if index + 1 in self.stages:
                patches.append(as_grid(self.vision.project(second[:, 1:]), grid))  # (B, h, w, D)
        cls = usual[:, 0]  # (B, C)
        embedding = self.vision.project(cls) if self.cls_norm else self.vision.projection(cls)
        return StageTokens(tuple(patches), (embedding,) * len(patches))


def value_attention(block: CLIPEncoderLayer, tokens: Tensor) -> Tensor:
    """What a block's attention adds if queries and keys are its values: W_o softmax(V V^T / sqrt(d)) V.

    Args:
        block: an encoder layer of ``transformers``.
        tokens: (B, T, C), before the block's first LayerNorm.
    """
    attention = block.self_attn
    values = attention.v_proj(block.layer_norm1(tokens))  # (B, T, C)
    heads = values.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, heads, T, d)
    mixed = F.scaled_dot_product_attention(heads, heads, heads)  # a token attends to those whose values are like its
    added: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return added


class AnomalyClip(TrainableHead):
    """The learned prompts, and the two embeddings that the text tower makes of them.

    Features are those of ``DualPath``. The embeddings are computed once for scoring and saved with the head, so a
    trained head needs no text tower; class names do not matter.

    Args:
        config: the switches.
        text_width: C of the text tower.
        width: D of the space that images and texts share.
        tower: the frozen text tower, shared with nobody; None for a head that only scores.
    """

    start: Tensor  # (2, 1, C), the embedded start token
    words: Tensor  # (2, T - 1 - prompt_length, C), what follows the learned tokens
    tokens: Tensor  # (2, T) ids of the whole prompts
    text: Tensor  # (2, D), what scoring compares with

    def __init__(
        self, config: AnomalyClipConfig, text_width: int, width: int, tower: ClipTextTower | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.context = nn.Parameter(0.02 * torch.randn(2, config.prompt_length, text_width))
        deep = 0.02 * torch.randn(config.deep_depth - 1, config.deep_length, text_width)
        self.deep = nn.ParameterList(nn.Parameter(prompt) for prompt in deep)
        positions = _POSITIONS if tower is None else tower.position_embedding.weight.shape[0]
        self.register_buffer("start", torch.zeros(2, 1, text_width))
        self.register_buffer("words", torch.zeros(2, positions - 1 - config.prompt_length, text_width))
        self.register_buffer("tokens", torch.zeros(2, positions, dtype=torch.int64))
        self.register_buffer("text", torch.zeros(2, width))
        self.frozen = Frozen(tower)

    def set_tokens(self, tokens: Tensor) -> None:
        """Take the token ids (2, T) of ``prompt_texts``, and the tower's embeddings of what stays fixed in them.

        Raises:
            ConfigError: the head has no text tower.
        """
        tower = self.frozen.needed()
        embedded = tower.token_embedding(tokens.to(self.start.device)).detach()  # (2, T, C)
        self.tokens = tokens.to(self.start.device, torch.int64)
        self.start, self.words = embedded[:, :1], embedded[:, 1 + self.config.prompt_length :]

    def embeddings(self) -> Tensor:
        """L2-normalised embeddings of the normal and the abnormal prompt: (2, D), differentiable.

        Raises:
            ConfigError: the head has no text tower.
        """
        tower = self.frozen.needed()
        prompts = torch.cat([self.start, self.context, self.words], 1)  # (2, T, C)
        # The released code rounds them so, in training too: a head that was trained through it needs it.
        deep = [(prompt.half().float() if self.config.half_prompts else prompt)[None] for prompt in self.deep]
        return F.normalize(tower(prompts, self.tokens.argmax(1), deep), dim=-1)  # the end token has the largest id

    @torch.no_grad()
    def bake(self) -> None:
        """Compute the embeddings that scoring uses; after training and after a checkpoint was loaded."""
        self.text = self.embeddings()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.frozen.apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch between training and scoring; the embeddings are computed when training ends."""
        if self.training and not mode and self.frozen.tower is not None:
            self.bake()
        super().train(mode)
        return self

    def stage_logits(self, features: Features, text: Tensor) -> list[Tensor]:
        """Cosine over temperature of patches and prompts for each stage, (B, 2, h, w); channel 1 is abnormal."""
        return [
            on_grid(F.normalize(tokens, dim=-1).flatten(1, 2) @ text.T / self.config.temperature, features.grid)
            for tokens in features.patch_tokens
        ]

    def image_logits(self, features: Features, text: Tensor) -> Tensor:
        """The same for the image's embedding, (B, 2)."""
        return F.normalize(features.cls_tokens[-1], dim=-1) @ text.T / self.config.temperature

    def maps(self, logits: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Abnormal probability of each stage, (B, *size) in [0, 1]."""
        if self.config.upsample == "logits":
            return [self._resized(one, size).softmax(1)[:, 1] for one in logits]
        return [self._resized(one.softmax(1), size)[:, 1] for one in logits]

    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Cross entropy of the image, plus ``map_weight`` times focal and both dice losses of each stage.

        Raises:
            ConfigError: the head has no text tower.
        """
        size = loss_size(features.grid, features.image_size, self.config.loss_resolution)
        target = F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]  # (B, *size)
        text = self.embeddings()  # (2, D), through the text tower at every step
        image = F.cross_entropy(self.image_logits(features, text), labels.long())
        # Dice for both classes: most cells are normal, and dice of the abnormal class alone would not see them.
        stages = [
            focal_dice(one, target) + dice(1 - one, 1 - target)
            for one in self.maps(self.stage_logits(features, text), size)
        ]
        maps = self.config.map_weight * torch.stack(stages).sum()
        return {"total": image + maps, "image": image, "maps": maps}

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images; class names do not matter.

        Raises:
            ConfigError: prompts were neither baked nor loaded.
        """
        if not self.text.any():
            raise ConfigError("AnomalyCLIP has no prompt embeddings yet; call bake() with a text tower, or load a head")
        return self.compare(features)

    def compare(self, features: Features) -> Scores:
        """`score` with whatever embeddings are there, without looking at them: a fixed graph cannot."""
        maps = self.maps(self.stage_logits(features, self.text), features.image_size)  # (B, H, W) each
        image = self.image_logits(features, self.text).softmax(1)[:, 1]
        return Scores(gaussian(torch.stack(maps).mean(0), self.config.sigma_px), image)

    def _resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.config.align_corners)


def prompt_texts(config: AnomalyClipConfig) -> list[str]:
    """The normal and the abnormal prompt as they are tokenized, with a placeholder for each learned token."""
    return [" ".join([PLACEHOLDER] * config.prompt_length + [words]) for words in WORDS]


def padded_tokens(tokens: Tensor, positions: int) -> Tensor:
    """Token ids (2, T), padded by repeating the end token, as the authors have them: (2, positions), padded by 0."""
    first_end = tokens.argmax(1, keepdim=True)  # the end token has the largest id; argmax takes its first place
    kept = torch.where(torch.arange(tokens.shape[1]) <= first_end, tokens, 0)
    return F.pad(kept, (0, positions - tokens.shape[1]))


def from_authors(head: AnomalyClip, state: Mapping[str, Tensor], origin: str = "checkpoint") -> None:
    """Put a checkpoint of the authors', names joined by dots, into the head; bakes if the head has a text tower.

    Its ``compound_prompt_projections`` are checked and dropped: no code calls them.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    checked = checked_state(origin, state, to_authors(head))

    def both(name: str) -> Tensor:
        # (1, 1, ...) each: their leading axes are for several classes and prompts, of which there is one.
        return torch.stack([checked[f"{_PREFIX}{name}_{side}"][0, 0] for side in _SIDES])

    with torch.no_grad():
        head.context.copy_(both("ctx"))
        for index, prompt in enumerate(head.deep):
            prompt.copy_(checked[f"{_PREFIX}compound_prompts_text.{index}"])
    head.start, head.words = both("token_prefix").to(head.start), both("token_suffix").to(head.words)
    head.tokens = both("tokenized_prompts").to(head.tokens)
    if head.frozen.tower is not None:
        head.bake()


def to_authors(head: AnomalyClip) -> dict[str, Tensor]:
    """The head's tensors as the authors' checkpoint has them, names joined by dots; unused projections are zero."""
    parts = {
        "ctx": head.context,
        "token_prefix": head.start,
        "token_suffix": head.words,
        "tokenized_prompts": head.tokens.to(torch.int32),
    }
    state = {
        f"{_PREFIX}{name}_{side}": rows[row].detach()[None, None]
        for name, rows in parts.items()
        for row, side in enumerate(_SIDES)
    }
    width = head.context.shape[-1]
    for index, prompt in enumerate(head.deep):
        state[f"{_PREFIX}compound_prompts_text.{index}"] = prompt.detach()
        state[f"{_PREFIX}compound_prompt_projections.{index}.weight"] = torch.zeros(_UNUSED_WIDTH, width)
        state[f"{_PREFIX}compound_prompt_projections.{index}.bias"] = torch.zeros(_UNUSED_WIDTH)
    return state


_PREFIX = "prompt_learner."


def _new(
    settings: AnomalyClipConfig, config: ModelConfig, words: Mapping[str, str], offline: bool
) -> Built[AnomalyClip]:
    weights = read_both_towers(config, offline)
    loaded = build_clip_vision(weights, settings.activation, settings.position_resize)
    text = build_clip_text(weights, settings.activation)
    tower = ClipTextTower(text.module)
    with torch.random.fork_rng(devices=[]):  # the seed decides the prompts, and nothing of the caller's
        torch.manual_seed(config.train.seed)
        head = AnomalyClip(settings, tower.width, loaded.vision.text_width, tower)
    positions = tower.position_embedding.weight.shape[0]
    head.set_tokens(padded_tokens(text.tokenize(prompt_texts(settings)), positions))
    return Built(_encoder(settings, config, loaded), head.eval())


def _shell(
    settings: AnomalyClipConfig, config: ModelConfig, state: Mapping[str, Tensor], offline: bool
) -> Built[AnomalyClip]:
    loaded = build_clip_vision(read_both_towers(config, offline), settings.activation, settings.position_resize)
    shared = loaded.vision.text_width
    text_width = state["context"].shape[-1] if "context" in state else shared
    return Built(_encoder(settings, config, loaded), AnomalyClip(settings, text_width, shared))


def _encoder(settings: AnomalyClipConfig, config: ModelConfig, loaded: LoadedVision) -> ClipImageEncoder:
    # The last stage alone is the authors' choice since April 2025.
    stages = tuple(config.encoder_stages or (len(loaded.vision.blocks),))
    dual = DualPath(loaded.vision, stages, settings)
    facts = {"stages": stages, "dual": dual.first_dual, "cls_norm": settings.cls_norm}
    return loaded.encoder(dual, dual.widths, facts)


def _written(head: AnomalyClip) -> dict[str, object]:
    return {"prompt_learner": {name.removeprefix(_PREFIX): tensor for name, tensor in to_authors(head).items()}}


PARTS = Parts(_new, _shell, read_authors=from_authors, write_authors=_written)
