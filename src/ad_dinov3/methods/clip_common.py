"""What the methods on CLIP share: baked prompts, reference images, the Gaussian, and strict checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.errors import ConfigError, WeightsError


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
        rows = torch.stack([embeddings[name] for name in self.class_names])
        self.rows = nn.Parameter(rows.to(self.rows.device, torch.float32), requires_grad=False)

    def columns(self, class_names: Sequence[str]) -> Tensor:
        """L2-normalised embeddings of B classes: (B, D, 2).

        Raises:
            ConfigError: a class has no baked prompt.
        """
        rows = self.rows[class_rows(class_names, self.class_names)]
        return F.normalize(rows, dim=-1).mT


def class_rows(class_names: Sequence[str], known: Sequence[str]) -> list[int]:
    """The row of each of B names.

    Raises:
        ConfigError: a name is not known.
    """
    unknown = sorted(set(class_names) - set(known))
    if unknown:
        raise ConfigError(f"no prompts for {', '.join(unknown)}; baked are {', '.join(known)}")
    return [known.index(name) for name in class_names]


class References:
    """Tokens of normal reference images by class, the memory of the few-shot variants; levels are the method's own."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes with reference images."""
        return tuple(self._levels)

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered: ``LEVEL/CLASS`` -> L2-normalised tokens (N, C), on the CPU."""
        return {
            f"{level}/{name}": tokens.cpu() for name, kept in self._levels.items() for level, tokens in enumerate(kept)
        }

    def restore(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take what `tensors` gave, in place of everything remembered.

        Raises:
            WeightsError: a level of a class is missing, or a key has another form.
        """
        by_class: dict[str, dict[int, Tensor]] = {}
        for key, tokens in tensors.items():
            level, slash, name = key.partition("/")
            if not (slash and level.isdigit() and tokens.ndim == 2):
                raise WeightsError(f"{origin}: expected tensors LEVEL/CLASS of tokens (N, C), got {key!r}")
            by_class.setdefault(name, {})[int(level)] = tokens
        depths = {len(levels) for levels in by_class.values()}
        if len(depths) > 1 or any(set(levels) != set(range(len(levels))) for levels in by_class.values()):
            raise WeightsError(f"{origin}: expected the same levels of every class, got {', '.join(sorted(tensors))}")
        self._levels = {name: tuple(levels[i] for i in range(len(levels))) for name, levels in by_class.items()}

    def remember(self, class_name: str, levels: Sequence[Tensor]) -> None:
        """Keep the tokens of a class's reference images: for each level a tensor (N, C), in place of earlier ones."""
        self._levels[class_name] = tuple(F.normalize(tokens.detach(), dim=-1) for tokens in levels)

    def distances(self, levels: Sequence[Tensor], class_names: Sequence[str]) -> list[Tensor]:
        """1 minus the largest cosine to a reference token, for each level (B, T, C): (B, T) in [0, 2].

        Raises:
            ConfigError: a class has no reference images.
        """
        unknown = sorted(set(class_names) - self._levels.keys())
        if unknown:
            raise ConfigError(f"no reference images of {', '.join(unknown)}; there are {', '.join(self._levels)}")
        found = []
        for level, tokens in enumerate(levels):
            memory = [self._levels[name][level].to(tokens.device) for name in class_names]
            rows = zip(F.normalize(tokens, dim=-1), memory, strict=True)
            found.append(torch.stack([(1 - one @ known.T).amin(1) for one, known in rows]))
        return found


class FrozenText:
    """A frozen text tower inside a head that is not part of the head's parameters nor of what is saved.

    Args:
        tower: None for a head that only scores.
    """

    def __init__(self, tower: ClipTextTower | None) -> None:
        self.tower = None if tower is None else tower.eval().requires_grad_(False)

    def needed(self) -> ClipTextTower:
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


def gaussian(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of (B, H, W), equal to ``scipy.ndimage.gaussian_filter`` with its defaults on each map.

    The kernel ends at 4 sigma and the border is mirrored with the edge pixel repeated, however small the map.
    """
    if sigma <= 0:
        return maps
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    for axis in (1, 2):
        lines = maps.movedim(axis, -1)
        padded = lines[..., _mirrored(lines.shape[-1], radius, maps.device)]
        smooth = F.conv1d(padded.flatten(0, 1)[:, None], kernel[None, None])[:, 0]
        maps = smooth.reshape(lines.shape).movedim(-1, axis)
    return maps


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius .. size + radius - 1 folded back into 0 .. size - 1 (d c b a | a b c d | d c b a)."""
    folded = torch.arange(-radius, size + radius, device=device) % (2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def loss_size(grid: tuple[int, int], full: tuple[int, int], resolution: str) -> tuple[int, int]:
    """Where maps meet masks, (h, w): the patch ``grid``, four times it (``mid``) or the input's size (``full``)."""
    mid = (min(4 * grid[0], full[0]), min(4 * grid[1], full[1]))
    return {"grid": grid, "mid": mid, "full": full}[resolution]


def checked_state(origin: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The found tensors as float32, after every name and shape was compared with the wanted ones.

    Raises:
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted.keys() & found.keys()
        if wanted[key].shape != found[key].shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(wrong),
    }
    told = [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise WeightsError(f"{origin}: the tensors do not fit this model; {'; '.join(told)}")
    return {key: tensor.to(wanted[key].dtype) for key, tensor in found.items()}
