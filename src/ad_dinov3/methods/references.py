"""What few-shot methods remember: tokens of normal images, by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.errors import ConfigError, WeightsError

_MOST_COSINES = 1 << 24  # computed at once

Memory = tuple[Tensor, ...]
"""What a normal image leaves: for each level of a method a tensor (N, C)."""


class References:
    """What a few-shot method keeps of normal reference images, by class: tokens as a rule; levels are its own."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[Tensor, ...]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> References:
        # Tokens are replaced and never changed, so that copies may share them.
        copied = References()
        copied._levels = dict(self._levels)
        return copied

    def __len__(self) -> int:
        return len(self._levels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes with reference images."""
        return tuple(self._levels)

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered: ``LEVEL/CLASS`` -> (N, C), on the CPU."""
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
        # Normalised once here, so that a product of tokens and memory is their cosines.
        self.keep(class_name, [F.normalize(tokens, dim=-1) for tokens in levels])

    def keep(self, class_name: str, levels: Sequence[Tensor]) -> None:
        """Keep what a method makes of a class's reference images as it is: for each level a tensor (N, C)."""
        self._levels[class_name] = tuple(tokens.detach() for tokens in levels)

    def of(self, class_name: str) -> tuple[Tensor, ...]:
        """The levels of a class.

        Raises:
            ConfigError: it has no reference images.
        """
        self.check([class_name])
        return self._levels[class_name]

    def check(self, class_names: Sequence[str]) -> None:
        """Refuse classes without reference images.

        Raises:
            ConfigError: one has none.
        """
        unknown = sorted(set(class_names) - self._levels.keys())
        if unknown:
            there = f"there are {', '.join(self._levels)}" if self._levels else "give normal images with --normals"
            raise ConfigError(f"no reference images of {', '.join(unknown)}; {there}")

    def distances(self, levels: Sequence[Tensor], class_names: Sequence[str]) -> list[Tensor]:
        """1 minus the largest cosine to a reference token, for each level (B, T, C): (B, T) in [0, 2].

        Raises:
            ConfigError: a class has no reference images.
        """
        self.check(class_names)
        found = []
        for level, tokens in enumerate(levels):
            # Classes remember different numbers of tokens, so each image (T, C) meets its own memory (N, C).
            memory = [self._levels[name][level].to(tokens.device) for name in class_names]
            rows = zip(F.normalize(tokens, dim=-1), memory, strict=True)
            found.append(torch.stack([1 - _largest_cosines(one, known) for one, known in rows]))
        return found


def _largest_cosines(tokens: Tensor, memory: Tensor) -> Tensor:
    """(T,) of unit tokens (T, C) to unit tokens (N, C), in blocks: all cosines at once would take gigabytes."""
    rows = max(1, _MOST_COSINES // len(memory))
    return torch.cat([(block @ memory.T).amax(1) for block in torch.split(tokens, rows)])


def joined(memories: Iterable[Sequence[Tensor]]) -> Memory:
    """The levels of several memories as one."""
    return tuple(torch.cat(level) for level in zip(*memories, strict=True))
