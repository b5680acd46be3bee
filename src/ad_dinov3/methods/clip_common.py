"""What the methods on CLIP share: baked prompts, frozen towers and how they are read, and the Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import Activation, ClassWords
from ad_dinov3.encoders.clip_text import ClipTextEncoder, build_clip_text
from ad_dinov3.errors import ConfigError
from ad_dinov3.weights import ClipWeights, load_clip_weights, resolve_weights

M = TypeVar("M", bound=nn.Module)


class BakedPrompts(nn.Module):
    """The normal and abnormal embedding of each known class, frozen, as the columns that images are compared with.

    Args:
        class_names: K names.
        width: length D of an embedding.
    """

    def __init__(self, class_names: Sequence[str], width: int) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.rows = nn.Parameter(torch.zeros(len(self.class_names), 2, width), requires_grad=False)

    def bake(self, embeddings: Mapping[str, Tensor]) -> None:
        """Take embeddings, class name -> (2, D), row 0 normal, in place of the present ones."""
        self.class_names = tuple(embeddings)
        rows = torch.stack([embeddings[name] for name in self.class_names])  # (K, 2, D)
        self.rows = nn.Parameter(rows.to(self.rows.device, torch.float32), requires_grad=False)

    def columns(self, class_names: Sequence[str]) -> Tensor:
        """L2-normalised embeddings of B classes: (B, D, 2).

        Raises:
            ConfigError: a class has no baked prompt.
        """
        rows = self.rows[class_rows(class_names, self.class_names)]  # (B, 2, D)
        return F.normalize(rows, dim=-1).mT  # (B, D, 2): a product with tokens (B, T, D) gives their two cosines


def class_rows(class_names: Sequence[str], known: Sequence[str]) -> list[int]:
    """The row of each of B names.

    Raises:
        ConfigError: a name is not known.
    """
    unknown = sorted(set(class_names) - set(known))
    if unknown:
        raise ConfigError(f"no prompts for {', '.join(unknown)}; baked are {', '.join(known)}")
    return [known.index(name) for name in class_names]


class Frozen(Generic[M]):
    """A frozen tower beside a head: neither among its parameters nor saved with it, and shared by its copies.

    Args:
        tower: None for a head that only scores with what is baked.
    """

    def __init__(self, tower: M | None) -> None:
        self.tower = None if tower is None else tower.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, object]) -> Frozen[M]:
        return self  # a tower never changes, so a copied head need not carry another 500 MB

    def needed(self) -> M:
        """The tower.

        Raises:
            ConfigError: there is none.
        """
        if self.tower is None:
            raise ConfigError("learned prompts run through CLIP's text tower, and this head was made without one")
        return self.tower

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or convert the tower as a head is moved or converted."""
        if self.tower is not None:
            self.tower._apply(fn)  # type: ignore[no-untyped-call]


def read_both_towers(config: ModelConfig, offline: bool) -> ClipWeights:
    """The tensors of the CLIP that a model's settings name.

    Raises:
        WeightsError: they are missing, broken or of another model.
    """
    return load_clip_weights(resolve_weights(config.encoder, offline=offline), towers="both")


def read_text_tower(config: ModelConfig, activation: Activation, offline: bool) -> ClipTextEncoder:
    """The text tower of the CLIP that a model's settings name.

    Raises:
        WeightsError: its tensors are missing, broken or of another model.
    """
    return build_clip_text(load_clip_weights(resolve_weights(config.encoder, offline=offline)), activation)


def spoken(words: Mapping[str, str], rule: ClassWords) -> dict[str, str]:
    """Class name -> what prompts say for it: the folder's name, as published, or its words."""
    return {name: name if rule == "folder" else said for name, said in words.items()}


def gaussian(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of (B, H, W), equal to ``scipy.ndimage.gaussian_filter`` with its defaults on each map.

    The kernel ends at 4 sigma and the border is mirrored with the edge pixel repeated, however small the map.
    """
    if sigma <= 0:
        return maps
    radius = int(4 * sigma + 0.5)  # scipy truncates there
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)  # (2 radius + 1,), summed in float64 as scipy does
    # A Gaussian is separable: one pass along the columns, one along the rows.
    for axis in (1, 2):
        lines = maps.movedim(axis, -1)
        padded = lines[..., _mirrored(lines.shape[-1], radius, maps.device)]  # by index: F.pad cannot mirror twice
        smooth = F.conv1d(padded.flatten(0, 1)[:, None], kernel[None, None])[:, 0]
        maps = smooth.reshape(lines.shape).movedim(-1, axis)
    return maps


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius .. size + radius - 1 folded back into 0 .. size - 1 (d c b a | a b c d | d c b a)."""
    folded = torch.arange(-radius, size + radius, device=device) % (2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)
