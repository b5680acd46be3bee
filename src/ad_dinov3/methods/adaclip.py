"""AdaCLIP (Cao et al., ECCV 2024): prompts in both towers, learned ones plus ones made from the image itself.

Facts from the authors' code, caoyunkang/AdaCLIP. The prompts enter the towers, so patches and sentences are computed
anew for each image and cannot be cached; what comes before the first prompt can: the embedded patches, and the image
embedding of the plain tower from which the dynamic prompts are made. These two are the Features here, and they save one
of the two passes through the image tower. Deviations: batches of any size (the released code takes one image), k-means
with a seed (its is not seeded), float32 throughout (its runs in autocast float16 without loss scaling).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import AdaClipConfig
from ad_dinov3.encoders.backbone import quarters
from ad_dinov3.encoders.clip_image import ClipVision, as_grid, build_clip_vision
from ad_dinov3.encoders.clip_text import ClipTextEncoder, build_clip_text
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.encoders.prompts import ADACLIP_PROMPTS, PromptSet
from ad_dinov3.encoders.stages import StageTokens, checked_stages
from ad_dinov3.methods.clip_common import Frozen, class_rows, gaussian, read_both_towers, read_text_tower, spoken
from ad_dinov3.methods.head import Built, Parts, TrainableHead
from ad_dinov3.methods.kmeans import kmeans
from ad_dinov3.methods.losses import dice, focal, focal_dice, loss_size
from ad_dinov3.ops import on_grid
from ad_dinov3.types import Features, Scores


class ClipStart(nn.Module):
    """What of AdaCLIP is frozen and depends on the image: embedded patches, and the plain tower's image embedding.

    Args:
        vision: the tower, which the head goes on with.
    """

    def __init__(self, vision: ClipVision) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, pixels: Tensor) -> StageTokens:
        """One stage: patches (B, h, w, C) as they enter the first block, and the image's embedding (B, D)."""
        tokens = self.vision.embed(pixels)  # (B, 1 + h*w, C)
        # This pass has no prompts, so that it never changes while prompts are learned.
        embedding = self.vision.project(self.vision.run(tokens)[:, 0])
        return StageTokens((as_grid(tokens[:, 1:], self.vision.grid(pixels)),), (embedding,))


@dataclass(frozen=True)
class Sentences:
    """Token ids of one class's sentences: normal (S_n, T), abnormal (S_a, T); the end token has the largest id."""

    normal: Tensor
    abnormal: Tensor


@dataclass(frozen=True)
class Joint:
    """Images and prompts in their common space, all L2-normalised.

    Attributes:
        patches: L of (B, h*w, D).
        cls: (B, D).
        text: (B, D, 2), normal and abnormal.
    """

    patches: tuple[Tensor, ...]
    cls: Tensor
    text: Tensor


class AdaClip(TrainableHead):
    """Static prompts, generators of dynamic prompts, and projections, around two frozen towers that are not saved.

    Features are those of ``ClipStart``.

    Args:
        config: the switches.
        vision: the image tower, shared with the encoder, which moves it between devices.
        tower: the text tower, shared with nobody.
        stages: 1-based block counts, ascending, after which the patches are taken.

    Raises:
        ConfigError: stages that are not ascending or not within the depth.
    """

    def __init__(self, config: AdaClipConfig, vision: ClipVision, tower: ClipTextTower, stages: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.stages = checked_stages(stages, len(vision.blocks))
        self.vision = Frozen(vision)
        self.frozen = Frozen(tower)
        self.sentences: dict[str, Sentences] = {}  # by class; only token ids can be baked here
        length, depth = config.prompt_length, config.prompt_depth
        width, shared = vision.width, vision.text_width
        self.visual_prompts = nn.ParameterList(0.02 * torch.randn(length, width) for _ in range(depth))
        # One fewer than the released code has: it puts none into the first text block, so its first never learns.
        self.text_prompts = nn.ParameterList(0.02 * torch.randn(length, tower.width) for _ in range(depth - 1))
        self.visual_generators = nn.ModuleList(nn.Linear(shared, width) for _ in range(length))
        self.text_generators = nn.ModuleList(nn.Linear(shared, tower.width) for _ in range(length))
        self.patch_layers = nn.ModuleList(nn.Linear(width, shared) for _ in self.stages)
        self.cls_layer = nn.Linear(shared, shared)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.frozen.apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes with tokenized sentences."""
        return tuple(self.sentences)

    def set_sentences(self, sentences: Mapping[str, Sentences]) -> None:
        """Take the token ids of the classes' sentences in place of the present ones."""
        self.sentences = dict(sentences)

    def forward(self, features: Features, class_names: Sequence[str]) -> Joint:
        """Both towers with the prompts of B images in them.

        Raises:
            ConfigError: a class has no sentences.
        """
        image = features.cls_tokens[0]  # (B, D), of the plain tower
        visual = torch.stack([layer(image) for layer in self.visual_generators], 1)  # (B, P, C)
        textual = torch.stack([layer(image) for layer in self.text_generators], 1)  # (B, P, C of the text tower)
        cls, taps = self.prompted_tokens(features.patch_tokens[0].flatten(1, 2), visual)
        # cls (B, D); each tap (B, h*w, C) to (B, h*w, D)
        patches = [F.normalize(layer(tokens), dim=-1) for layer, tokens in zip(self.patch_layers, taps, strict=True)]
        class_rows(class_names, self.class_names)
        rows = zip(textual, class_names, strict=True)
        # Sentence by image: dynamic prompts differ between images, so that nothing can be shared in the batch.
        text = torch.stack([self.prompted_text(one, self.sentences[name]) for one, name in rows])
        return Joint(tuple(patches), F.normalize(self.cls_layer(cls), dim=-1), text)

    def prompted_tokens(self, patches: Tensor, dynamic: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The image's embedding (B, D) and the patches (B, h*w, C) of each stage, with prompts behind the patches.

        Args:
            patches: (B, h*w, C) as they enter the first block.
            dynamic: (B, P, C), added to each block's static prompts.
        """
        vision, length = self.vision.needed(), self.config.prompt_length
        tokens = torch.cat([vision.start().expand(patches.shape[0], 1, -1), patches], 1)  # (B, 1 + h*w, C)
        taps = []
        for index, block in enumerate(vision.blocks):
            if index < self.config.prompt_depth:
                own = tokens if index == 0 else tokens[:, :-length]  # the last block's prompts make room for the next
                tokens = torch.cat([own, self._rounded(self.visual_prompts[index] + dynamic)], 1)  # (B, 1 + h*w + P, C)
            tokens = block(tokens, None)
            if index + 1 in self.stages:
                taps.append(tokens[:, 1:-length])  # patches alone, without CLS in front and prompts behind
        return vision.project(tokens[:, 0]), taps

    def prompted_text(self, dynamic: Tensor, sentences: Sentences) -> Tensor:
        """Embeddings of one image's normal and abnormal sentences, (D, 2): mean over sentences, L2-normalised.

        The first block has no prompts (released code); in the next ones they take the place of the first words.

        Args:
            dynamic: (P, C), added to each block's static prompts.
            sentences: of the image's class.
        """
        tower = self.frozen.needed()
        deep = [self._rounded(static + dynamic)[None] for static in self.text_prompts]
        columns = []
        for ids in (sentences.normal, sentences.abnormal):
            ids = ids.to(dynamic.device)
            # (S, D); one image's prompts serve all sentences of a side
            embedded = F.normalize(tower(tower.token_embedding(ids), ids.argmax(1), deep), dim=-1)
            columns.append(F.normalize(embedded.mean(0), dim=-1))
        return torch.stack(columns, 1)

    def stage_logits(self, joint: Joint, grid: tuple[int, int]) -> list[Tensor]:
        """Gain times the cosine of patches and prompts for each stage, (B, 2, h, w); channel 1 is abnormal."""
        return [on_grid(self.config.gain * (patches @ joint.text), grid) for patches in joint.patches]

    def image_probabilities(self, joint: Joint, logits: Sequence[Tensor]) -> Tensor:
        """Abnormal probability of B images, from the CLS token and the clusters of the most abnormal patches (HSF)."""
        share = self.config.cluster_weight
        abnormal = torch.stack(list(logits)).mean(0).softmax(1)[:, 1].flatten(1)  # (B, h*w)
        clusters = self.cluster_embedding(joint.patches, abnormal)  # (B, D)
        # The CLS token sees the whole object, the clusters what is most abnormal on it.
        image = F.normalize(share * clusters + (1 - share) * joint.cls, dim=-1)
        return (self.config.gain * (image[:, None] @ joint.text)[:, 0]).softmax(1)[:, 1]

    def cluster_embedding(self, patches: Sequence[Tensor], abnormal: Tensor) -> Tensor:
        """Hybrid semantic fusion: L2-normalised mean of the clusters' centres, (B, D).

        The most abnormal patches are clustered on the concatenation of their stages; a centre is the mean of its
        members over the patches and the stages, and all centres count alike.

        Args:
            patches: L of (B, T, D).
            abnormal: (B, T), by which the patches are chosen.
        """
        count = min(abnormal.shape[1], self.config.cluster_patches)
        chosen = abnormal.topk(count, dim=1).indices  # (B, count)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        stacked = torch.stack([one[rows, chosen] for one in patches], 2)  # (B, count, L, D)
        points = stacked.detach().flatten(2).cpu().numpy()  # (B, count, L*D): k-means itself has no gradient
        embeddings = []
        for tokens, concatenated in zip(stacked.mean(2), points, strict=True):
            labels = torch.from_numpy(kmeans(concatenated, min(self.config.clusters, count), self.config.cluster_seed))
            members = F.one_hot(labels).to(tokens)  # (count, clusters)
            sizes = members.sum(0)
            # Through these means the gradient reaches the patches. A cluster may have lost its last member.
            centres = (members.T @ tokens)[sizes > 0] / sizes[sizes > 0, None]  # (clusters, D)
            embeddings.append(centres.mean(0))
        return F.normalize(torch.stack(embeddings), dim=-1)

    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Focal loss of the image, and focal and both dice losses of each stage; see ``TrainableHead``.

        Raises:
            ConfigError: a class has no sentences.
        """
        size = loss_size(features.grid, features.image_size, self.config.loss_resolution)
        target = F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]  # (B, *size)
        joint = self(features, class_names)
        logits = self.stage_logits(joint, features.grid)
        image = focal(self.image_probabilities(joint, logits), labels.float())
        maps = [self._resized(one, size).softmax(1)[:, 1] for one in logits]
        stages = torch.stack([focal_dice(one, target) + dice(1 - one, 1 - target) for one in maps]).sum()
        return {"total": image + stages, "image": image, "maps": stages}

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images.

        Raises:
            ConfigError: a class has no sentences.
        """
        joint = self(features, class_names)
        logits = self.stage_logits(joint, features.grid)
        size = features.image_size
        if self.config.merge == "logits":
            patch_map = self._resized(torch.stack(logits).mean(0), size).softmax(1)[:, 1]
        else:
            patch_map = torch.stack([self._resized(one, size).softmax(1)[:, 1] for one in logits]).mean(0)
        return Scores(gaussian(patch_map, self.config.sigma_px), self.image_probabilities(joint, logits))

    def _resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(maps, size, mode="bilinear", align_corners=self.config.align_corners)

    def _rounded(self, prompts: Tensor) -> Tensor:
        return prompts.half().float() if self.config.half_prompts else prompts


def adaclip_prompts(config: AdaClipConfig, words: Mapping[str, str]) -> PromptSet:
    """The ensemble of 7 + 5 states in 4 templates, around the words of each class; hyphens become spaces."""
    return replace(_ensemble(config), class_names={name: said.replace("-", " ") for name, said in words.items()})


def from_authors(head: AdaClip, state: Mapping[str, Tensor], origin: str = "checkpoint") -> None:
    """Put a checkpoint of the authors', a flat dictionary, into the head.

    Its ``text_prompter.static_prompts.0`` is checked and dropped: their code never reads it.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    checked = checked_state(origin, state, to_authors(head))
    head.load_state_dict({name: checked[_authors_name(name)] for name in head.state_dict()})


def to_authors(head: AdaClip) -> dict[str, Tensor]:
    """The head's tensors under the authors' names; the text prompts that they never read are zero."""
    unread = torch.zeros(head.config.prompt_length, head.frozen.needed().width)
    state = {_authors_name(name): tensor.detach() for name, tensor in head.state_dict().items()}
    return state | {"clip_model.text_prompter.static_prompts.0": unread}


_NAMES = {
    "visual_prompts": "visual_prompter.static_prompts",
    "text_prompts": "text_prompter.static_prompts",
    "visual_generators": "dynamic_visual_prompt_generator.head",
    "text_generators": "dynamic_text_prompt_generator.head",
    "patch_layers": "patch_token_layer.head",
    "cls_layer": "cls_token_layer.head.0",
}


def _authors_name(name: str) -> str:
    part, _, rest = name.partition(".")
    rest = str(int(rest) + 1) if part == "text_prompts" else rest
    return f"clip_model.{_NAMES[part]}.{rest}"


def _new(settings: AdaClipConfig, config: ModelConfig, words: Mapping[str, str], offline: bool) -> Built[AdaClip]:
    weights = read_both_towers(config, offline)
    loaded = build_clip_vision(weights, settings.activation, settings.position_resize)
    text = build_clip_text(weights, settings.activation)
    stages = config.encoder_stages or quarters(len(loaded.vision.blocks))
    with torch.random.fork_rng(devices=[]):  # the seed decides prompts and layers, and nothing of the caller's
        torch.manual_seed(config.train.seed)
        head = AdaClip(settings, loaded.vision, ClipTextTower(text.module), stages)
    _tokenize(head, text, words)
    return Built(loaded.encoder(ClipStart(loaded.vision), (loaded.vision.width,), {}), head.eval())


def _shell(settings: AdaClipConfig, config: ModelConfig, state: Mapping[str, Tensor], offline: bool) -> Built[AdaClip]:
    # The sentences run through the text tower with every image, so that it is needed, and with it their words.
    return _new(settings, config, {name: name for name in config.class_names}, offline)


def _add_prompts(head: AdaClip, config: ModelConfig, words: Mapping[str, str], offline: bool) -> None:
    _tokenize(head, read_text_tower(config, head.config.activation, offline), words)


def _tokenize(head: AdaClip, text: ClipTextEncoder, words: Mapping[str, str]) -> None:
    prompts = adaclip_prompts(head.config, spoken(words, head.config.class_words))
    new = {name: Sentences(*(text.tokenize(side) for side in prompts.sentences(name))) for name in words}
    head.set_sentences(head.sentences | new)


def _written(head: AdaClip) -> dict[str, object]:
    return dict(to_authors(head))


def _ensemble(settings: AdaClipConfig) -> PromptSet:
    return ADACLIP_PROMPTS.saying(settings.states)


def _settle(head: AdaClip, settings: AdaClipConfig) -> None:
    head.config = settings


PARTS = Parts(_new, _shell, _add_prompts, from_authors, _written, ensemble=_ensemble, settle=_settle)
