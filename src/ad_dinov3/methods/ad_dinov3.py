"""AD-DINOv3 (Yuan et al., 2025): adapters on DINOv3 tokens and CLIP prompts, calibrated by AACM.

The equations are the paper's. Switches that are not in the paper are those of its released code or of our own
ablation, and `AdDinoV3Config` says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import AdDinoV3Config, LossConfig, ModelConfig
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, PromptSet, encode_classes, read_prompt_file
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.methods.head import Built, Parts, TrainableHead
from ad_dinov3.methods.losses import focal_dice, loss_size
from ad_dinov3.methods.released_format import load_released, to_released
from ad_dinov3.ops import cosine_columns, on_grid, resize_map, standardise, top_mean, whiten
from ad_dinov3.types import DEFAULT_CLASS, Features, Scores

_SLOPE = 0.01  # of LeakyReLU, torch's own default, as released


class Adapter(nn.Module):
    """Eq. 1: recalibrates tokens towards anomaly detection, C_in to ``width`` channels, without biases.

    Args:
        width_in: channels of the frozen tokens.
        config: ``adapter``, ``width`` and ``residual`` are used.
    """

    def __init__(self, width_in: int, config: AdDinoV3Config) -> None:
        super().__init__()
        self.first = nn.Linear(width_in, config.width, bias=False)
        self.second = nn.Linear(config.width, config.width, bias=False) if config.adapter == "bottleneck" else None
        # Identity where the widths allow it, else the projection shortcut of ResNet.
        same = width_in == config.width
        self.skip = None if not config.residual or same else nn.Linear(width_in, config.width, bias=False)
        self.residual = config.residual

    def forward(self, tokens: Tensor) -> Tensor:
        adapted = F.leaky_relu(self.first(tokens), _SLOPE)  # (..., C_in) to (..., width)
        if self.second is not None:
            adapted = F.leaky_relu(self.second(adapted), _SLOPE)
        if self.residual:
            adapted = adapted + self.residual * (tokens if self.skip is None else self.skip(tokens))
        return adapted


class Rarity(nn.Module):
    """The projection of a stage's tokens in which `rarity` looks at them; as many channels for every stage.

    Args:
        width_in: channels C of the tokens.
        channels: K of the projection.
    """

    def __init__(self, width_in: int, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width_in, channels, bias=False)
        nn.init.orthogonal_(self.projection.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.projection(tokens)
        return projected


def surrounding(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Mean of each token's window of ``side`` x ``side`` cells, the border continued: (B, T, C) of (B, T, C)."""
    # Without the continued border a token at the edge would differ from its surroundings only for lying there.
    padded = F.pad(on_grid(tokens, grid), (side // 2,) * 4, mode="replicate").permute(0, 2, 3, 1)
    # Sums of shifted copies, by rows and then by columns, are four times faster than avg_pool2d on one thread.
    rows = reduce(torch.add, [padded[:, i : i + grid[0]] for i in range(side)])  # (B, h, w + side - 1, C)
    both = reduce(torch.add, [rows[:, :, i : i + grid[1]] for i in range(side)])  # (B, h, w, C)
    return (both / side**2).flatten(1, 2)


def pooled(patches: Tensor, side: int) -> Tensor:
    """Tokens (B, h, w, C) averaged over ``side`` x ``side`` cells; what is left over is filled with the last ones."""
    if side == 1:
        return patches
    beyond = (0, -patches.shape[2] % side, 0, -patches.shape[1] % side)
    columns = patches.permute(0, 3, 1, 2)  # (B, C, h, w)
    columns = F.pad(columns, beyond, mode="replicate") if any(beyond) else columns
    return F.avg_pool2d(columns, side).permute(0, 2, 3, 1)  # (B, ceil(h / side), ceil(w / side), C)


def enlarged(values: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """The way back from `pooled`: (B, K, h', w') to the grid, bilinear."""
    if side == 1:
        return values
    larger = F.interpolate(values, scale_factor=side, mode="bilinear", align_corners=False)
    return larger[:, :, : grid[0], : grid[1]]


def rarity(projected: Tensor, grid: tuple[int, int]) -> Tensor:
    """How rare each patch token is within its own image. Not in the paper.

    Projected tokens are whitened by the image's own covariance, so their length is a Mahalanobis distance: what the
    classical detector of `methods.mahalanobis` computes on fixed filters, here on learned ones and differentiable.

    Returns:
        (B, T, 2 + K) of (B, T, K): log mean square of the whitened tokens, its 5x5 mean, and their sizes.
    """
    white = whiten(projected)  # (B, T, K), identity covariance within each image
    # The mean square is 1 on average over an image; its logarithm keeps one extreme token from drowning the others.
    distance = (white.square().mean(-1, keepdim=True) + 1e-2).log()  # (B, T, 1)
    padded = F.pad(on_grid(distance, grid), (2, 2, 2, 2), mode="replicate")
    around = F.avg_pool2d(padded, 5, stride=1).flatten(2).mT  # (B, T, 1)
    return torch.cat([distance, around, white.abs()], -1)


@dataclass(frozen=True)
class StageOutputs:
    """What the head says of one stage, on the patch grid and before any sigma.

    Attributes:
        patch_logits: (B, 2, h, w), gain times the similarity of eq. 2; channel 0 normal, 1 abnormal.
        image_logits: (B, 2), the same for the adapted CLS token (released code).
        aacm_logits: (B, 1, h, w), gain times the similarity of eq. 3.
    """

    patch_logits: Tensor
    image_logits: Tensor
    aacm_logits: Tensor


class AdDinoV3(TrainableHead):
    """The trainable head, with the prompts of known classes baked in.

    Args:
        config: the switches.
        widths: channels of each encoder stage.
        text_width: length D of a frozen prompt embedding; learned ones have the common space's.
        class_names: classes whose prompts it holds, normal and abnormal; learned prompts are one pair for all classes.

    Raises:
        ConfigError: ``pooling`` is not of the encoder's stages.
    """

    def __init__(
        self,
        config: AdDinoV3Config,
        widths: Sequence[int],
        text_width: int,
        class_names: Sequence[str] = (DEFAULT_CLASS,),
    ) -> None:
        super().__init__()
        self.config = config
        self.learned_prompts = config.prompts.source == "learned"
        self._class_names = () if self.learned_prompts else tuple(class_names)
        used = tuple(widths) if config.stages == "all" else tuple(widths[-1:])
        self.widths = used
        # What an adapter reads of a token: itself, its difference from the surroundings, and its rarity.
        self.rarities = nn.ModuleList(Rarity(width, config.rarity) for width in used if config.rarity)
        extra = 2 + config.rarity if config.rarity else 0
        repeated = 2 if config.surround else 1
        self.patch_adapters = nn.ModuleList(Adapter(repeated * width + extra, config) for width in used)
        self.pooling = config.pooling or (1,) * len(used)
        if len(self.pooling) != len(used):
            raise ConfigError(f"expected method.pooling to name {len(used)} stages, got {config.pooling}")
        self.cls_adapters = nn.ModuleList(Adapter(width, config) for width in used)
        # Learned prompts lie in the common space already: an adapter would only name the same two vectors otherwise.
        adapted = () if self.learned_prompts else ("normal", "abnormal")
        self.text_adapters = nn.ModuleList(Adapter(text_width, config) for _ in adapted)
        shape = (1, 2, config.width) if self.learned_prompts else (len(self.class_names), 2, text_width)
        self.prompts = nn.Parameter(F.normalize(torch.randn(shape), dim=-1), requires_grad=self.learned_prompts)
        gains = torch.full((len(used),), config.gain)
        # As a logarithm, a trained gain stays positive, and steps are relative to its size.
        self.log_gain = nn.Parameter(gains.log(), requires_grad=config.learned_gain)
        self.bias = nn.Parameter(torch.zeros(len(used)), requires_grad=config.learned_gain)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes with baked prompts; empty where prompts are learned."""
        return self._class_names

    def set_prompts(self, embeddings: Mapping[str, Tensor]) -> None:
        """Bake prompt embeddings, class name -> (2, D), in place of the present ones."""
        self._class_names = tuple(embeddings)
        rows = torch.stack([embeddings[name] for name in self.class_names]).to(self.log_gain.device)
        self.prompts = nn.Parameter(rows, requires_grad=False)

    def text(self, class_names: Sequence[str]) -> Tensor:
        """Adapted prompts of B classes as the columns of eq. 2: (B, width, 2).

        Raises:
            ConfigError: a class has no baked prompt.
        """
        if self.learned_prompts:
            return self.prompts.expand(len(class_names), -1, -1).mT  # (1, 2, width) to (B, width, 2)
        unknown = sorted(set(class_names) - set(self.class_names))
        if unknown:
            raise ConfigError(f"no prompts for {', '.join(unknown)}; baked are {', '.join(self.class_names)}")
        rows = self.prompts[[self.class_names.index(name) for name in class_names]]  # (B, 2, D)
        adapted = torch.stack([ada(rows[:, i]) for i, ada in enumerate(self.text_adapters)], 1)  # (B, 2, width)
        if self.config.text_layout == "interleaved":
            # The released code's reshape: column 0 gets the even entries of both vectors, column 1 the odd ones.
            return adapted.flatten(1).reshape(adapted.shape[0], -1, 2)
        return adapted.mT

    def prepare(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Patch tokens (B, h_l, w_l, C_l) of the used stages as the adapters take them: (B, T_l, C'_l)."""
        change = {"standardise": standardise, "whiten": whiten}.get(self.config.tokens)
        grids = [(one.shape[1], one.shape[2]) for one in stages]
        tokens = [one.flatten(1, 2) for one in stages]  # (B, T_l, C_l)
        tokens = tokens if change is None else [change(one) for one in tokens]
        parts = [[one] for one in tokens]
        if self.config.surround:
            for part, one, grid in zip(parts, tokens, grids, strict=True):
                part.append(one - surrounding(one, grid, self.config.surround))  # (B, T_l, C_l)
        if self.config.rarity:
            for part, rare in zip(parts, self._rarities(tokens, grids), strict=True):
                part.append(rare)  # (B, T_l, 2 + K)
        return [torch.cat(part, -1) for part in parts]

    def _rarities(self, tokens: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """`rarity` of each stage's tokens; stages of one pooling in one batch, so that they are factorised at once."""
        found: dict[int, Tensor] = {}
        for side in dict.fromkeys(self.pooling):
            chosen = [i for i, own in enumerate(self.pooling) if own == side]
            rare = rarity(torch.cat([self.rarities[i](tokens[i]) for i in chosen]), grids[chosen[0]])
            by_stage = rare.reshape(len(chosen), -1, *rare.shape[1:])  # chunk would bind a batch size left open
            found |= dict(zip(chosen, by_stage, strict=True))
        return [found[i] for i in range(len(tokens))]

    def forward(self, features: Features, class_names: Sequence[str]) -> list[StageOutputs]:
        """One `StageOutputs` per used stage.

        Raises:
            ShapeError: the features have other stages than the head was built for.
            ConfigError: a class has no baked prompt.
        """
        stages = list(zip(features.patch_tokens, features.cls_tokens, strict=True))[-len(self.widths) :]
        widths = list(self.widths)
        if [patch.shape[-1] for patch, _ in stages] != widths:
            raise ShapeError(f"expected stages of widths {widths}, got {[p.shape[-1] for p, _ in stages]}")
        coarse = [pooled(patch, side) for (patch, _), side in zip(stages, self.pooling, strict=True)]
        return self.judge(coarse, [cls for _, cls in stages], class_names, features.grid)

    def judge(
        self, coarse: Sequence[Tensor], cls_tokens: Sequence[Tensor], class_names: Sequence[str], grid: tuple[int, int]
    ) -> list[StageOutputs]:
        """`forward` from the `pooled` tokens of each used stage on; ``grid`` is what they were pooled from."""
        text, tokens = self.text(class_names), self.prepare(coarse)
        return [self._stage(i, tokens[i], cls, text, grid) for i, cls in enumerate(cls_tokens)]

    def _stage(self, i: int, tokens: Tensor, cls: Tensor, text: Tensor, grid: tuple[int, int]) -> StageOutputs:
        patches = self.patch_adapters[i](tokens)  # (B, T, width), eq. 1
        cls = self.cls_adapters[i](cls)[:, None]  # (B, 1, width), eq. 1
        gain, norm, side = self.log_gain[i].exp(), self.config.text_norm, self.pooling[i]
        offset = torch.stack([self.bias[i], torch.zeros_like(self.bias[i])])  # in favour of normal
        own = (-(-grid[0] // side), -(-grid[1] // side))
        return StageOutputs(
            patch_logits=enlarged(
                on_grid(gain * cosine_columns(patches, text, norm) + offset, own), side, grid
            ),  # eq. 2
            image_logits=gain * cosine_columns(cls, text, norm)[:, 0],
            aacm_logits=enlarged(
                on_grid(self.config.aacm_gain * cosine_columns(patches, cls.mT), own), side, grid
            ),  # eq. 3
        )

    def maps(self, outputs: Sequence[StageOutputs], size: tuple[int, int]) -> list[Tensor]:
        """Abnormal probability of each stage (eq. 2), in [0, 1]; a single map where logits are fused.

        (B, *size) where logits are interpolated before the softmax, else (B, h, w) on the patch grid: interpolation is
        linear, so probabilities are averaged over the stages first and interpolated once.
        """
        # Softmax over two channels is the sigmoid of their difference: one channel (B, 1, h, w) is interpolated.
        margins = [out.patch_logits[:, 1:] - out.patch_logits[:, :1] for out in outputs]
        if self.config.fusion == "logits":
            margins = [torch.stack(margins).mean(0)]
        return [self._resized(margin, size)[:, 0].sigmoid() for margin in margins]

    def aacm_maps(self, outputs: Sequence[StageOutputs], size: tuple[int, int]) -> list[Tensor]:
        """sigma of eq. 4 for each stage, in [0, 1]; shapes as in `maps`."""
        logits = [self._resized(out.aacm_logits, size)[:, 0] for out in outputs]
        if self.config.aacm_sigma == "sigmoid":
            return [x.sigmoid() for x in logits]
        # A softmax over the patches divided by its largest value, so that it can be compared with a mask.
        return [(x - x.amax((1, 2), keepdim=True)).exp() for x in logits]

    def _resized(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return resize_map(logits, size, align_corners=True) if self.config.upsample == "logits" else logits

    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """The weighted terms of eq. 6 and the image term of the released code; see `TrainableHead.losses`."""
        config = self.config.loss
        outputs = self(features, class_names)
        size = loss_size(features.grid, features.image_size, config.resolution)
        target = resize_map(masks[:, None], size)[:, 0]  # (B, *size), soft: the share of a cell that is anomalous
        terms = {"cross_modal": config.cross_modal * _map_loss(self.maps(outputs, size), target, config)}  # eq. 5
        if config.aacm:
            terms["aacm"] = config.aacm * _map_loss(self.aacm_maps(outputs, size), target, config)  # eq. 4
        if config.image:
            logits = torch.stack([out.image_logits for out in outputs]).mean(0)  # (L, B, 2) to (B, 2)
            terms["image"] = config.image * F.cross_entropy(logits, labels.long())
        return {"total": torch.stack(list(terms.values())).sum(), **terms}  # eq. 6

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps and image scores of B images; section 3.5, testing: the mean over the stages.

        Raises:
            ConfigError: a class has no baked prompt.
        """
        outputs = self(features, class_names)
        patch_map = torch.stack(self.maps(outputs, features.image_size)).mean(0)  # (L, B, h, w) to (B, h, w)
        image_logits = torch.stack([out.image_logits for out in outputs]).mean(0)  # (B, 2)
        by_cls, by_patches = image_logits.softmax(1)[:, 1], top_mean(patch_map, self.config.top_fraction)
        score = {"cls": by_cls, "top_patches": by_patches, "both": (by_cls + by_patches) / 2}[self.config.image_score]
        if self.config.score_offset:
            # A shift of the logit moves the threshold and keeps the ranking.
            score = (score.logit(1e-6) - self.config.score_offset).sigmoid()
        return Scores(patch_map, score)


def _map_loss(maps: Sequence[Tensor], target: Tensor, config: LossConfig) -> Tensor:
    size = (int(target.shape[1]), int(target.shape[2]))
    if config.over_stages == "mean_map":
        maps = [torch.stack(list(maps)).mean(0)]
    return torch.stack([focal_dice(resize_map(one[:, None], size)[:, 0], target) for one in maps]).mean()


def _new(settings: AdDinoV3Config, config: ModelConfig, words: Mapping[str, str], offline: bool) -> Built[AdDinoV3]:
    encoder = load_backbone(config.encoder, stages=config.encoder_stages, offline=offline)
    learned = settings.prompts.source == "learned"
    text = {} if learned else _encoded(settings, words, offline)
    width = settings.width if learned else next(iter(text.values())).shape[-1]
    with torch.random.fork_rng(devices=[]):  # the seed decides the adapters, and nothing of the caller's
        torch.manual_seed(config.train.seed)
        head = AdDinoV3(settings, encoder.spec.widths, width, tuple(words))
    if text:
        head.set_prompts(text)
    return Built(encoder, head)


def _shell(
    settings: AdDinoV3Config, config: ModelConfig, state: Mapping[str, Tensor], offline: bool
) -> Built[AdDinoV3]:
    encoder = load_backbone(config.encoder, stages=config.encoder_stages, offline=offline)
    text_width = state["prompts"].shape[-1] if "prompts" in state else settings.width
    return Built(encoder, AdDinoV3(settings, encoder.spec.widths, text_width, config.class_names))


def _add_prompts(head: AdDinoV3, config: ModelConfig, words: Mapping[str, str], offline: bool) -> None:
    if head.learned_prompts:
        return
    known = dict(zip(head.class_names, head.prompts.detach(), strict=True))
    new = _encoded(head.config, words, offline)
    head.set_prompts(known | {name: rows.to(head.prompts.device) for name, rows in new.items()})


def _encoded(settings: AdDinoV3Config, words: Mapping[str, str], offline: bool) -> dict[str, Tensor]:
    """Prompt embeddings of classes, class name -> (2, D)."""
    from ad_dinov3.encoders.clip_text import load_clip_text  # takes a second, and known prompts do not need it

    chosen = settings.prompts
    prompts = _sentences(settings)
    said = prompts.class_names if chosen.raw_class_names else {**words, **prompts.class_names}
    prompts = replace(prompts, class_names=said, raw_class_names=chosen.raw_class_names)
    encoder = load_clip_text(chosen.text_encoder, activation=chosen.activation, offline=offline)
    return encode_classes(encoder, prompts, tuple(words))


def _sentences(settings: AdDinoV3Config) -> PromptSet:
    file = settings.prompts.file
    return (read_prompt_file(Path(file)) if file else DEFAULT_PROMPTS).saying(settings.states)


def _ensemble(settings: AdDinoV3Config) -> PromptSet | None:
    return None if settings.prompts.source == "learned" else _sentences(settings)


def _settle(head: AdDinoV3, settings: AdDinoV3Config) -> None:
    head.config = settings


def _written(head: AdDinoV3) -> dict[str, object]:
    return dict(to_released(head))


PARTS = Parts(_new, _shell, _add_prompts, load_released, _written, ensemble=_ensemble, settle=_settle)
