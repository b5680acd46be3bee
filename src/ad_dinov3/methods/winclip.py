"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023): CLIP on small windows, without any training.

The authors published no code; facts from two rebuilds that agree on the zero-shot map, zqhang/Accurate-WinCLIP-pytorch
and anomalib. Deviation: with reference images Accurate-WinCLIP adds the two maps, in [0, 2]; ours is half of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import WinClipConfig
from ad_dinov3.encoders.clip_image import ClipVision, as_grid, build_clip_vision
from ad_dinov3.encoders.clip_text import build_clip_text
from ad_dinov3.encoders.prompts import WINCLIP_PROMPTS, PromptSet
from ad_dinov3.encoders.stages import StageTokens
from ad_dinov3.errors import ShapeError
from ad_dinov3.methods.clip_common import BakedPrompts, gaussian, read_both_towers, read_text_tower, spoken
from ad_dinov3.methods.head import Built, Head, Parts
from ad_dinov3.methods.references import Memory, References, joined
from ad_dinov3.types import Features, Scores, TextEncoder
from ad_dinov3.weights import ClipWeights

_WINDOW_BATCH = 512  # windows per pass: bounds the memory, whatever the batch
_DOUBLED, _MISSING = "a jpeg corrupted photo of the {}.", "a jpeg corrupted photo of a {}."
_LEFT_OUT = "a cropped photo of a {}."


class ClipWindows(nn.Module):
    """Embeds every window of patches by itself (section 4.1 of the paper): CLS token and the window's patches alone.

    Patches are embedded once, with the positions that they have in the image. A window is filed under its top left
    patch; where none begins, at the right and lower border, there are zeros. The last stage is not of windows: it holds
    the patches of the whole image after the last block, not projected, which only the reference memory looks at.

    Args:
        vision: the tower.
        config: ``scales`` and ``patch_norm`` are used.

    Attributes:
        window_batch: windows per pass; None: all at once, which a fixed graph needs.
    """

    def __init__(self, vision: ClipVision, config: WinClipConfig) -> None:
        super().__init__()
        self.vision = vision
        self.scales = config.scales
        self.patch_norm = config.patch_norm
        self.window_batch: int | None = _WINDOW_BATCH

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages: the text's width for each scale, then the tower's."""
        return (self.vision.text_width,) * len(self.scales) + (self.vision.width,)

    def forward(self, pixels: Tensor) -> StageTokens:
        """Window embeddings of each scale (B, h, w, D), patches (B, h, w, C), and the image's embedding (B, D).

        Raises:
            ShapeError: a window does not fit into the patch grid.
        """
        grid = self.vision.grid(pixels)
        if max(self.scales) > min(grid):
            raise ShapeError(f"expected windows within the {grid[0]}x{grid[1]} patch grid, got scales {self.scales}")
        tokens = self.vision.embed(pixels)  # (B, 1 + h*w, C)
        cls, patches = tokens[:, :1], as_grid(tokens[:, 1:], grid)
        windows = [self.embed_windows(cls, patches, scale) for scale in self.scales]  # (B, h, w, D) each
        whole = self.vision.run(tokens)  # the image as one more window, of all patches
        last = as_grid(whole[:, 1:], grid)  # (B, h, w, C)
        last = self.vision.post_norm(last) if self.patch_norm else last
        embedding = self.vision.project(whole[:, 0])  # (B, D)
        return StageTokens((*windows, last), (embedding,) * (len(windows) + 1))

    def embed_windows(self, cls: Tensor, patches: Tensor, side: int) -> Tensor:
        """Embeddings (B, h, w, D) of all windows of ``side`` x ``side`` patches.

        Args:
            cls: (B, 1, C), the embedded CLS token.
            patches: (B, h, w, C), embedded with their positions.
            side: in patches.
        """
        rows, columns = patches.shape[1] - side + 1, patches.shape[2] - side + 1
        covered = window_patches((patches.shape[1], patches.shape[2]), side).to(patches.device)  # (count, side * side)
        windows = patches.flatten(1, 2)[:, covered]  # (B, count, side * side, C)
        starts = cls[:, None].expand(-1, len(covered), -1, -1)
        tokens = torch.cat([starts, windows], 2).flatten(0, 1)  # (B * count, 1 + side * side, C)
        chunks = [tokens] if self.window_batch is None else torch.split(tokens, self.window_batch)
        embedded = torch.cat([self.vision.project(self.vision.run(chunk)[:, 0]) for chunk in chunks])
        placed = embedded.reshape(patches.shape[0], rows, columns, embedded.shape[-1])  # (B, h - side + 1, ..., D)
        return F.pad(placed, (0, 0, 0, side - 1, 0, side - 1))


def window_patches(grid: tuple[int, int], side: int) -> Tensor:
    """Places, row by row, of the patches of each ``side`` x ``side`` window at stride 1: (count, side * side)."""
    board = torch.arange(grid[0] * grid[1]).reshape(grid)  # (h, w) places, row by row
    # (h', w, side) and then (h', w', side, side), with h' = h - side + 1
    return board.unfold(0, side, 1).unfold(1, side, 1).flatten(2).flatten(0, 1)


class WinClip(Head):
    """Scores windows against prompts, and against reference images once it has some.

    Features are those of ``ClipWindows``.

    Args:
        config: the switches.
        text_width: length D of a prompt embedding.
        class_names: classes whose prompts it holds.
    """

    def __init__(self, config: WinClipConfig, text_width: int, class_names: Sequence[str]) -> None:
        super().__init__()
        self.config = config
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
        """Embeddings of the windows and patches of normal images."""
        return joined([tokens.flatten(0, 1) for tokens in self._levels(features)] for features in batches)

    def remember(self, class_name: str, memories: Sequence[Memory]) -> None:
        """Take normal reference images of one class; from then on that class is scored as WinCLIP+."""
        self.references.remember(class_name, joined(memories))

    @torch.no_grad()
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Maps at the input's size and image scores of B images.

        Raises:
            ConfigError: a class has no baked prompt, or no reference images while others have.
            ShapeError: the features are of other scales.
        """
        text = self.prompts.columns(class_names)  # (B, D, 2)
        of_image = self.probabilities(features.cls_tokens[0][:, None], text)[:, 0]  # (B,)
        levels = self._levels(features)
        grid = features.grid
        # Harmonic mean over the scales; the whole image counts as one more scale.
        inverse = (1 / of_image)[:, None, None].expand(-1, *grid)
        for side, windows in zip(self.config.scales, levels[:-1], strict=True):
            inverse = inverse + 1 / harmonic_map(self._on_windows(self.probabilities(windows, text), side, grid), side)
        grid_map = finite((len(self.config.scales) + 1) / inverse)
        image_score = of_image
        if self.references:
            by_references = self.reference_map(levels, class_names, grid)
            # WinCLIP+: language and vision count alike, in the map and in the score.
            grid_map = (grid_map + by_references) / 2
            image_score = (of_image + by_references.amax((1, 2))) / 2
        full = F.interpolate(
            grid_map[:, None], features.image_size, mode="bilinear", align_corners=self.config.align_corners
        )
        return Scores(gaussian(full[:, 0], self.config.sigma_px), image_score)

    def probabilities(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """Abnormal probability of embeddings (B, N, D) under prompts (B, D, 2): (B, N)."""
        cosines = F.normalize(embeddings, dim=-1) @ text  # (B, N, D) by (B, D, 2)
        return (cosines / self.config.temperature).softmax(-1)[..., 1]

    def reference_map(self, levels: Sequence[Tensor], class_names: Sequence[str], grid: tuple[int, int]) -> Tensor:
        """Mean over windows of each scale and patches of half the cosine distance to the references, (B, h, w)."""
        *windows, patches = [distance / 2 for distance in self.references.distances(levels, class_names)]
        maps = [patches.reshape(-1, *grid)]  # (B, h*w) to (B, h, w)
        for side, distance in zip(self.config.scales, windows, strict=True):
            maps.append(harmonic_map(self._on_windows(distance, side, grid), side))
        return finite(torch.stack(maps).mean(0))

    def _levels(self, features: Features) -> list[Tensor]:
        """The embeddings of real windows (B, h'*w', D) of each scale, then the patches (B, h*w, C)."""
        if len(features.patch_tokens) != len(self.config.scales) + 1:
            raise ShapeError(
                f"expected features of {len(self.config.scales)} scales and the patches, "
                f"got {len(features.patch_tokens)} stages"
            )
        rows, columns = features.grid
        # The encoder files windows by their top left patch; places where none begins hold zeros and are cut off here.
        windows = [
            tokens[:, : rows - side + 1, : columns - side + 1].flatten(1, 2)
            for side, tokens in zip(self.config.scales, features.patch_tokens[:-1], strict=True)
        ]
        return [*windows, features.patch_tokens[-1].flatten(1, 2)]

    @staticmethod
    def _on_windows(values: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
        return values.reshape(-1, grid[0] - side + 1, grid[1] - side + 1)


def harmonic_map(scores: Tensor, side: int) -> Tensor:
    """For each patch the harmonic mean of the scores of the windows that cover it.

    Args:
        scores: (B, h - side + 1, w - side + 1), of windows at stride 1 by their top left patch.
        side: a window's side, in patches.

    Returns:
        (B, h, w); 0 where a covering window has score 0.
    """

    def covering_sum(values: Tensor) -> Tensor:
        # Windows over a patch begin up to side - 1 places above and left of it, so their sum is a box filter.
        padded = F.pad(values[:, None], (side - 1,) * 4)  # (B, 1, h + side - 1, w + side - 1)
        return F.conv2d(padded, torch.ones(1, 1, side, side, device=values.device))[:, 0]

    # Count over sum of inverses; a score of 0 makes the sum infinite and the mean 0.
    return finite(covering_sum(torch.ones_like(scores[:1])) / covering_sum(1 / scores))


def finite(values: Tensor) -> Tensor:
    """The values with 0 in place of NaN and infinity, as both rebuilds have it."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def winclip_prompts(config: WinClipConfig, words: Mapping[str, str]) -> PromptSet:
    """The ensemble of 7 normal and 4 abnormal states in 22 templates, or in the 21 lines of the public rebuilds."""
    prompts = replace(WINCLIP_PROMPTS.saying(config.states), class_names=words)
    if config.templates == "paper":
        return prompts
    # Kept as both rebuilds have it, slips included, so that figures can be compared.
    lines = [_DOUBLED if line == _MISSING else line for line in prompts.templates if line != _LEFT_OUT]
    return replace(prompts, templates=tuple(lines))


def encode_winclip(encoder: TextEncoder, config: WinClipConfig, words: Mapping[str, str]) -> dict[str, Tensor]:
    """The two embeddings of each class, (2, D) float32, row 0 normal: means over sentences, not normalised."""
    prompts = winclip_prompts(config, words)
    found = {}
    for name in words:
        rows = []
        for said in prompts.sentences(name):
            embeddings = encoder.encode_sentences(said).float()  # (S, D)
            rows.append((F.normalize(embeddings, dim=-1) if config.normalise_sentences else embeddings).mean(0))
        found[name] = torch.stack(rows).cpu()  # (2, D)
    return found


def _new(settings: WinClipConfig, config: ModelConfig, words: Mapping[str, str], offline: bool) -> Built[WinClip]:
    weights = read_both_towers(config, offline)
    built = _built(settings, weights, ())
    _bake(built.head, build_clip_text(weights, settings.activation), words)
    return built


def _shell(settings: WinClipConfig, config: ModelConfig, state: Mapping[str, Tensor], offline: bool) -> Built[WinClip]:
    return _built(settings, read_both_towers(config, offline), config.class_names)


def _built(settings: WinClipConfig, weights: ClipWeights, class_names: Sequence[str]) -> Built[WinClip]:
    loaded = build_clip_vision(weights, settings.activation, settings.position_resize)
    windows = ClipWindows(loaded.vision, settings)
    encoder = loaded.encoder(windows, windows.widths, {"scales": settings.scales, "patch_norm": settings.patch_norm})
    return Built(encoder, WinClip(settings, loaded.vision.text_width, class_names).eval())


def _add_prompts(head: WinClip, config: ModelConfig, words: Mapping[str, str], offline: bool) -> None:
    _bake(head, read_text_tower(config, head.config.activation, offline), words)


def _bake(head: WinClip, text: TextEncoder, words: Mapping[str, str]) -> None:
    known = dict(zip(head.class_names, head.prompts.rows.detach().cpu(), strict=True))
    head.set_prompts(known | encode_winclip(text, head.config, spoken(words, head.config.class_words)))


def _references(head: WinClip) -> References:
    return head.references


def _ensemble(settings: WinClipConfig) -> PromptSet:
    return winclip_prompts(settings, {})


def _settle(head: WinClip, settings: WinClipConfig) -> None:
    head.config = settings


PARTS = Parts(
    _new,
    _shell,
    _add_prompts,
    memory=WinClip.memory,
    remember=WinClip.remember,
    references=_references,
    ensemble=_ensemble,
    settle=_settle,
)
