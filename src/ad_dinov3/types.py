"""The values that flow through the package, and the behaviours that meet at them.

pixels -> tokens -> maps -> decisions. Shape letters: B images, T tokens, C channels, H x W pixels, h x w patch grid,
K classes, L stages. Importing this module costs nothing heavy: torch is named for type checkers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ad_dinov3.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor, device


DEFAULT_CLASS = "object"
"""What an image shows of which nobody says more."""


@dataclass(frozen=True)
class Sample:
    """One labelled image of a data set.

    Attributes:
        image_path: the image's file.
        mask_path: the ground truth's file; None for a normal image, whose mask is all zero, and for an anomalous one
            of which only the label is known.
        class_name: the category's folder name, such as ``metal_nut``.
        is_anomalous: the image-level label.
        defect: the defect type's folder name, ``good`` for normal images.
        mask_above: mask values above it are anomalous; None: 127 for JPEG, whose compression is noisy, else 0.
    """

    image_path: Path
    mask_path: Path | None
    class_name: str
    is_anomalous: bool
    defect: str = "good"
    mask_above: int | None = None

    @property
    def has_pixel_labels(self) -> bool:
        """Whether it is known of each pixel if it is anomalous."""
        return self.mask_path is not None or not self.is_anomalous


def class_words(class_name: str) -> str:
    """A class's folder name as people write it: ``metal_nut`` and ``metal-nut`` are "metal nut"."""
    return " ".join(class_name.replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class Features:
    """What a frozen encoder says of a batch: patch tokens and the CLS token of each stage.

    Attributes:
        patch_tokens: L tensors (B, h, w, C_l), float; one grid for all stages, C_l may differ (ConvNeXt).
        cls_tokens: L tensors (B, D_l), float; D_l is C_l except where the encoder projects its CLS token (CLIP).
        image_size: (H, W) of the encoder's input in px.
    """

    patch_tokens: tuple[Tensor, ...]
    cls_tokens: tuple[Tensor, ...]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.patch_tokens or len(self.patch_tokens) != len(self.cls_tokens):
            raise ShapeError(
                f"expected patch and CLS tokens of the same stages, "
                f"got {len(self.patch_tokens)} and {len(self.cls_tokens)}"
            )
        for patch, cls in zip(self.patch_tokens, self.cls_tokens, strict=True):
            if patch.ndim != 4 or patch.shape[:3] != self.patch_tokens[0].shape[:3]:
                raise ShapeError(f"expected patch tokens (B, h, w, C) on one grid, got {tuple(patch.shape)}")
            if cls.ndim != 2 or cls.shape[0] != patch.shape[0]:
                raise ShapeError(f"expected CLS tokens ({patch.shape[0]}, D), got {tuple(cls.shape)}")

    @property
    def batch_size(self) -> int:
        return int(self.patch_tokens[0].shape[0])

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (h, w)."""
        _, height, width, _ = self.patch_tokens[0].shape  # not through int(), which ties a traced graph to one size
        return height, width

    def to(self, target: device | str) -> Features:
        """The same features as float32 on another device."""
        return Features(
            tuple(tokens.to(target).float() for tokens in self.patch_tokens),
            tuple(tokens.to(target).float() for tokens in self.cls_tokens),
            self.image_size,
        )


@dataclass(frozen=True)
class Scores:
    """What a method says of a batch, before anyone decides.

    Attributes:
        patch_map: (B, h, w) float in [0, 1], the anomaly map at the method's own resolution: the patch grid, or the
            input's size where the method interpolates before its softmax.
        image_score: (B,) float in [0, 1].
    """

    patch_map: Tensor
    image_score: Tensor


@dataclass(frozen=True)
class EncoderSpec:
    """What others must know of an encoder without running it.

    Attributes:
        name: the model's name, such as ``dinov3-vitl16``.
        patch_size: pixels per side of a patch; image sides must be multiples of ``size_multiple``.
        size_multiple: what height and width of the input must be multiples of, in px.
        widths: channels C_l of each stage.
        fingerprint: hex digest over weights, stages and settings; equal fingerprints give equal features.
        licence: name of the weights' licence.
        trained_on: names of the data sets that the weights have seen, as far as they say.
        training_images: sha256 of the files that they have seen, as far as they say.
    """

    name: str
    patch_size: int
    size_multiple: int
    widths: tuple[int, ...]
    fingerprint: str
    licence: str
    trained_on: tuple[str, ...] = ()
    training_images: frozenset[str] = field(default=frozenset(), repr=False)


class ImageEncoder(Protocol):
    """A frozen image encoder."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, images: Tensor) -> Features:
        """Features of (B, 3, H, W) uint8 RGB images, on the encoder's device; it normalises them itself."""
        ...

    def to(self, target: device | str) -> ImageEncoder: ...


class TextEncoder(Protocol):
    """A frozen text encoder."""

    @property
    def fingerprint(self) -> str: ...

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """One embedding per sentence, (len(sentences), D) float32, not normalised."""
        ...
