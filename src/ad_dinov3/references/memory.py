"""What is remembered of normal images, and how far the tokens of another image are from it.

Two distances that fail differently, each divided by what it is among the normal images themselves, and averaged: to
the nearest remembered token, and out of the subspace that most of their variance lies in (SubspaceAD, CVPR 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.references.tokens import Floats

MOST_TOKENS = 4096
"""Tokens that a memory keeps for the nearest neighbour, a random share of each image's; all shape the subspace."""

_FEW = 4
_ENERGY, _ENERGY_OF_FEW = 0.99, 0.95
_LARGEST_SHARE = 0.75  # of the dimensions that a subspace may have
_ROWS = 2048  # query tokens at a time, which bounds the block of similarities


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
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
        bank: (D, M) unit comparison tokens as columns.
        subspace: of the tokens of all normal images.
        nearest_scale: median distance of a normal image's tokens to the nearest token of another normal image.
        residual_scale: median residual of a normal image's tokens in the subspace of the others.
    """

    bank: Floats
    subspace: Subspace
    nearest_scale: float
    residual_scale: float

    def distances(self, tokens: Floats) -> Floats:
        """How far tokens (T, D) are from what is normal: (T,), about 1 for a normal image's.

        Raises:
            ShapeError: the tokens have another width.
        """
        if tokens.ndim != 2 or tokens.shape[1] != len(self.bank):
            raise ShapeError(f"expected tokens (T, {len(self.bank)}), got {tokens.shape}")
        near = nearest(tokens, self.bank) / self.nearest_scale
        far = (near + self.subspace.residual(tokens) / self.residual_scale) / 2
        return far.astype(np.float32, copy=False)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything, as arrays; the bank in half precision, which moves a cosine by less than 1e-3."""
        return {
            "bank": self.bank.astype(np.float16),
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
        if not {"bank", "mean", "basis", "scales"} <= tensors.keys() or tensors["bank"].ndim != 2:
            raise ShapeError(f"expected bank (D, M), mean, basis and scales, got {', '.join(sorted(tensors))}")
        bank, mean, basis = (tensors[key].astype(np.float32) for key in ("bank", "mean", "basis"))
        if mean.shape != bank.shape[:1] or basis.shape[:1] != mean.shape or tensors["scales"].shape != (2,):
            raise ShapeError(f"expected arrays of {len(bank)} channels, got {mean.shape} and {basis.shape}")
        near, residual = (float(scale) for scale in tensors["scales"])
        return cls(bank, Subspace(mean, basis), near, residual)


class Remembered:
    """Normal images that a memory can be made of, with all of them or without one.

    Args:
        images: unit comparison tokens (T, D) of each; T may differ.

    Raises:
        ConfigError: there are no images.
    """

    def __init__(self, images: Sequence[Floats], most_tokens: int = MOST_TOKENS) -> None:
        if not images:
            raise ConfigError("there are no normal images to remember")
        self._images = [np.asarray(image, np.float32) for image in images]
        if len(images) == 1:  # its halves, every other token, stand in for two images
            self._images = [self._images[0][::2], self._images[0][1::2]]
        share = max(1, most_tokens // len(self._images))
        # half precision, as a memory is saved
        self._kept = [_some(image, share).astype(np.float16).astype(np.float32) for image in self._images]
        self._moments = [Moments.of(image) for image in self._images]
        self._whole = sum(self._moments[1:], self._moments[0])
        self._energy = _ENERGY if len(images) >= _FEW else _ENERGY_OF_FEW
        left_out = [self._parts(index) for index in range(len(self._images))]
        self._scales = [max(float(np.median(np.concatenate(part))), 1e-6) for part in zip(*left_out, strict=True)]
        self.left_out = [(near / self._scales[0] + rest / self._scales[1]) / 2 for near, rest in left_out]
        """Distances (T,) of each image's tokens from the memory without it; of a single image those of its halves."""

    def memory(self, without: int | None = None) -> Memory:
        """A memory of all images, or of all but one."""
        moments = self._whole if without is None else self._whole - self._moments[without]
        return Memory(self._bank(without), moments.subspace(self._energy), self._scales[0], self._scales[1])

    def _bank(self, without: int | None) -> Floats:
        kept = [tokens for index, tokens in enumerate(self._kept) if index != without]
        return np.ascontiguousarray(np.concatenate(kept).T)

    def _parts(self, index: int) -> tuple[Floats, Floats]:
        """Nearest distances and residuals of an image's tokens among the others'."""
        subspace = (self._whole - self._moments[index]).subspace(self._energy)
        return nearest(self._images[index], self._bank(index)), subspace.residual(self._images[index])


def nearest(tokens: Floats, bank: Floats) -> Floats:
    """1 minus the largest cosine of unit tokens (T, D) to the columns of a bank (D, M): (T,), in [0, 2]."""
    found = [(tokens[start : start + _ROWS] @ bank).max(axis=1) for start in range(0, len(tokens), _ROWS)]
    return np.asarray(np.maximum(1 - np.concatenate(found), 0), np.float32)


def _some(tokens: Floats, count: int) -> Floats:
    """A random choice of tokens (T, D) that depends on their number alone."""
    if len(tokens) <= count:
        return tokens
    return tokens[np.sort(np.random.default_rng(len(tokens)).permutation(len(tokens))[:count])]
