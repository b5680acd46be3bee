"""What few-shot methods remember: tokens of normal images, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_dinov3.errors import ConfigError, WeightsError


class References:
    """Tokens of normal reference images by class, the memory of the few-shot variants; levels are the method's own."""

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
        # Normalised once here, so that a product of tokens and memory is their cosines.
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
            # Classes remember different numbers of tokens, so each image (T, C) meets its own memory (N, C).
            memory = [self._levels[name][level].to(tokens.device) for name in class_names]
            rows = zip(F.normalize(tokens, dim=-1), memory, strict=True)
            found.append(torch.stack([(1 - one @ known.T).amin(1) for one, known in rows]))
        return found
