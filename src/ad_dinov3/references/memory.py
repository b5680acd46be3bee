"""What is remembered of normal images, and how far the tokens of another image are from it.

Two distances that fail differently, each divided by what it is among the normal images themselves, and averaged: to
the nearest remembered token, and out of the subspace that most of their variance lies in (SubspaceAD, CVPR 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.references.tokens import Floats

MOST_REMEMBERED = 32
"""Images whose tokens a memory keeps; further ones shape the subspace and calibrate."""

_FEW = 4
_ENERGY, _ENERGY_OF_FEW = 0.99, 0.95
_LARGEST_SHARE = 0.75  # of the dimensions that a subspace may have
_ROWS = 2048  # query tokens at a time, so that a block of similarities stays in the cache's reach


@dataclass(frozen=True)
class Subspace:
    """The affine subspace that holds most of the variance of some tokens.

    Attributes:
        mean: (D,).
        basis: (D, k) orthonormal columns.
    """

    mean: Floats
    basis: Floats

    def residual(self, tokens: Floats) -> Floats:
        """Squared distance of tokens (T, D) from the subspace: (T,), >= 0."""
        centred = tokens - self.mean
        along = centred @ self.basis
        rest = np.einsum("td,td->t", centred, centred) - np.einsum("tk,tk->t", along, along)
        outside: Floats = np.maximum(rest, 0)
        return outside


@dataclass(frozen=True)
class Moments:
    """Number, sum (D,) and sum of outer products (D, D) of some tokens, float64; they add and subtract."""

    count: int
    total: NDArray[np.float64]
    outer: NDArray[np.float64]

    @classmethod
    def of(cls, tokens: Floats) -> Moments:
        """Of tokens (T, D)."""
        return cls(len(tokens), tokens.sum(0, dtype=np.float64), (tokens.T @ tokens).astype(np.float64))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def subspace(self, energy: float) -> Subspace:
        """The fewest principal directions that hold a share of the variance, at most 3/4 of all and count / 4."""
        mean = self.total / self.count
        values, vectors = np.linalg.eigh(self.outer / self.count - np.outer(mean, mean))
        values = np.maximum(values[::-1], 0)
        held = np.cumsum(values) / max(float(values.sum()), 1e-30)
        most = max(1, min(int(_LARGEST_SHARE * len(values)), self.count // 4))
        kept = min(most, int(np.searchsorted(held, energy)) + 1)
        return Subspace(mean.astype(np.float32), np.ascontiguousarray(vectors[:, ::-1][:, :kept], np.float32))


@dataclass(frozen=True, eq=False)
class Memory:
    """Tokens of normal images and their subspace.

    Attributes:
        tokens: (n, T, D) unit comparison tokens of the remembered images.
        subspace: of the tokens of all normal images.
        nearest_scale: median distance of a normal image's tokens to the nearest token of another normal image.
        residual_scale: median residual of a normal image's tokens in the subspace of the others.
    """

    tokens: Floats
    subspace: Subspace
    nearest_scale: float
    residual_scale: float

    def distances(self, tokens: Floats) -> Floats:
        """How far tokens (T, D) are from what is normal: (T,), about 1 for a normal image's.

        Raises:
            ShapeError: the tokens have another width.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.tokens.shape[2]:
            raise ShapeError(f"expected tokens (T, {self.tokens.shape[2]}), got {tokens.shape}")
        near = nearest(tokens, self._bank) / self.nearest_scale
        far = (near + self.subspace.residual(tokens) / self.residual_scale) / 2
        return far.astype(np.float32, copy=False)

    @cached_property
    def _bank(self) -> Floats:
        return np.ascontiguousarray(self.tokens.reshape(-1, self.tokens.shape[2]).T)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything, as arrays; tokens in half precision, which moves a cosine by less than 1e-3."""
        return {
            "tokens": self.tokens.astype(np.float16),
            "mean": self.subspace.mean,
            "basis": self.subspace.basis,
            "scales": np.array([self.nearest_scale, self.residual_scale], np.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Memory:
        """What `tensors` gave.

        Raises:
            ShapeError: an array is missing or the widths differ.
        """
        if not {"tokens", "mean", "basis", "scales"} <= tensors.keys() or tensors["tokens"].ndim != 3:
            raise ShapeError(f"expected tokens (n, T, D), mean, basis and scales, got {', '.join(sorted(tensors))}")
        tokens, mean, basis = (tensors[key].astype(np.float32) for key in ("tokens", "mean", "basis"))
        if mean.shape != tokens.shape[2:] or basis.shape[:1] != mean.shape or tensors["scales"].shape != (2,):
            raise ShapeError(f"expected arrays of {tokens.shape[2]} channels, got {mean.shape} and {basis.shape}")
        near, residual = (float(scale) for scale in tensors["scales"])
        return cls(tokens, Subspace(mean, basis), near, residual)


@dataclass(frozen=True, eq=False)
class Remembered:
    """A memory, and what each normal image is to a memory of the others.

    Attributes:
        memory: of all of them.
        left_out: distances (n, T) of each normal image's tokens from the memory without it; None for a single image.
    """

    memory: Memory
    left_out: Floats | None


def remember(images: Sequence[Floats] | Floats, most: int = MOST_REMEMBERED) -> Remembered:
    """A memory of normal images, with the leave-one-out distances that calibrate it.

    Args:
        images: (n, T, D) unit comparison tokens; may be a memory map.
        most: images whose tokens are kept for the nearest neighbour, evenly spread; all enter the subspace.

    Raises:
        ConfigError: there are no images.
    """
    if not len(images):
        raise ConfigError("no normal images to remember")
    kept = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))
    bank = np.stack([np.asarray(images[index], np.float32) for index in kept])
    moments = [Moments.of(np.asarray(image, np.float32)) for image in images]
    whole = sum(moments[1:], moments[0])
    energy = _ENERGY if len(images) >= _FEW else _ENERGY_OF_FEW
    subspace = whole.subspace(energy)
    if len(images) == 1:
        return Remembered(_single(bank, subspace), None)
    near, rest = [], []
    for index, image in enumerate(images):
        tokens = np.asarray(image, np.float32)
        others = bank[kept != index]
        near.append(nearest(tokens, np.ascontiguousarray(others.reshape(-1, bank.shape[2]).T)))
        rest.append((whole - moments[index]).subspace(energy).residual(tokens))
    scales = [max(float(np.median(part)), 1e-6) for part in (near, rest)]
    memory = Memory(bank, subspace, scales[0], scales[1])
    left_out = (np.stack(near) / scales[0] + np.stack(rest) / scales[1]) / 2
    return Remembered(memory, left_out.astype(np.float32))


def _single(bank: Floats, subspace: Subspace) -> Memory:
    """A memory of one image, whose scales are those of its two halves to each other, every other token."""
    tokens = bank[0]
    even, odd = tokens[::2], tokens[1::2]
    near = np.median(nearest(even, np.ascontiguousarray(odd.T)))
    rest = np.median(Moments.of(odd).subspace(_ENERGY_OF_FEW).residual(even))
    return Memory(bank, subspace, max(float(near), 1e-6), max(float(rest), 1e-6))


def nearest(tokens: Floats, bank: Floats) -> Floats:
    """1 minus the largest cosine of unit tokens (T, D) to the columns of a bank (D, M): (T,), in [0, 2]."""
    found = [(tokens[start : start + _ROWS] @ bank).max(axis=1) for start in range(0, len(tokens), _ROWS)]
    return np.asarray(np.maximum(1 - np.concatenate(found), 0), np.float32)
