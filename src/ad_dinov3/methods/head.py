"""What a trainable method has beyond scoring."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ad_dinov3.config import LossConfig
from ad_dinov3.types import Features, Scores


class Head(nn.Module):
    """A trainable method on frozen features; the parameters that require gradients are the ones to train."""

    @abstractmethod
    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor, config: LossConfig
    ) -> dict[str, Tensor]:
        """The weighted terms of the training loss, means over the B images, and their sum as ``total``.

        Args:
            features: of B images.
            class_names: B names.
            masks: (B, H, W) float in [0, 1] at the input's size.
            labels: (B,) bool, which images are listed as anomalous, also where the mask is too small to survive.
            config: weights, and where maps meet masks.
        """

    @abstractmethod
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Scores of B images."""
