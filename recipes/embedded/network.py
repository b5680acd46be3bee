"""The small network: a DINOv3 ConvNeXt with context, started from classical filters, and the AD-DINOv3 head."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from ad_dinov3.config import MethodConfig
from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.encoders.stages import StagedConvNeXt
from ad_dinov3.methods.ad_dinov3 import AdDinoV3, StageOutputs
from ad_dinov3.types import Features
from ad_dinov3.weights.table import IMAGENET_MEAN, IMAGENET_STD

GRID_STRIDE = 8
HEAD = MethodConfig(
    width=48,
    adapter="bottleneck",
    rarity=24,
    fusion="logits",
    gain=10,
    learned_gain=True,
    image_score="top_patches",
)
_MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
_DEVIATION = torch.tensor(IMAGENET_STD)[:, None, None]


def small_backbone() -> DINOv3ConvNextModel:
    """0.6 M parameters in DINOv3's ConvNeXt form; ReLU, since GELU costs a quarter more time on CPUs."""
    config = DINOv3ConvNextConfig(
        hidden_sizes=[32, 64, 96, 128], depths=[1, 2, 2, 2], hidden_act="relu", layer_scale_init_value=0.3
    )
    return DINOv3ConvNextModel(config)


def start_from_filters(model: nn.Module, rng: np.random.Generator) -> None:
    """Stem and depthwise kernels become smoothing, edge, bar and Gabor filters; the rest is drawn after He et al.

    From plain noise, as many steps again pass before the first useful feature.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.8 * math.sqrt(2 / module.in_features))
            elif isinstance(module, nn.Conv2d) and module.groups > 1:
                for kernel in module.weight:  # (1, 7, 7)
                    kernel[0] = torch.from_numpy(filter_kernel(rng, kernel.shape[-1])) + 0.02 * torch.randn(7, 7)
            elif isinstance(module, nn.Conv2d) and module.in_channels == 3:
                for kernel in module.weight:  # (3, 4, 4), on grey or on a colour direction
                    colour = torch.ones(3) / 3 if rng.random() < 0.6 else torch.randn(3) * 0.6
                    kernel.copy_(colour[:, None, None] * torch.from_numpy(filter_kernel(rng, kernel.shape[-1])) * 2)
            elif isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, math.sqrt(1 / (4 * module.in_channels)))


def filter_kernel(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """One (size, size) kernel out of: identity, Gaussian, difference of Gaussians, edge, bar, Gabor."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    kind, sigma, angle = rng.integers(6), rng.uniform(0.6, size / 2.8), rng.uniform(0, np.pi)
    smooth, wide = (np.exp(-(x**2 + y**2) / (2 * s**2)) for s in (sigma, 1.8 * sigma))
    smooth, wide = smooth / smooth.sum(), wide / wide.sum()
    across = np.cos(angle) * x + np.sin(angle) * y
    if kind == 0 and size % 2:
        smooth = ((x == 0) & (y == 0)).astype(np.float64)
    if kind <= 1:
        return smooth.astype(np.float32)
    if kind == 2:
        return (2 * (smooth - wide)).astype(np.float32)
    shapes = {
        3: -across * smooth,
        4: ((across / sigma) ** 2 - 1) * smooth,
        5: np.cos(2 * np.pi * across * rng.uniform(0.12, 0.45) + rng.uniform(0, 2 * np.pi)) * smooth,
    }
    kernel = shapes[int(kind)]
    return (0.7 * kernel / np.sqrt((kernel**2).sum() + 1e-9)).astype(np.float32)


def small_head(widths: tuple[int, ...]) -> AdDinoV3:
    """AD-DINOv3's head with learned prompts and rarity, started so that what is rare looks abnormal at once."""
    head = AdDinoV3(HEAD, widths, HEAD.width, learned_prompts=True)
    with torch.no_grad():
        abnormal = F.normalize(torch.randn(HEAD.width), dim=0)
        head.prompts.copy_(torch.stack([-abnormal, abnormal])[None])
        head.bias.fill_(2.0)
        for adapter, width in zip(head.patch_adapters, widths, strict=True):
            adapter.second.weight.mul_(0.5).add_(torch.eye(HEAD.width))
            adapter.first.weight[:, width : width + 2] += 0.3 * abnormal[:, None]  # the columns of the two distances
    return head


class Network(nn.Module):
    """Backbone, its stages and context on a grid of 8 px, head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = small_backbone()
        start_from_filters(self.backbone, np.random.default_rng(seed))
        own = StagedConvNeXt(self.backbone, (1, 2, 3, 4), GRID_STRIDE).to(memory_format=torch.channels_last)
        # Not registered: its modules are the backbone's own.
        self._staged = [ContextStages(own, IMAGENET_MEAN, IMAGENET_STD)]
        self.head = small_head(self._staged[0].widths)

    def forward(self, pixels: Tensor) -> list[StageOutputs]:
        """What the head says of images (B, 3, H, W) in [0, 1], H and W multiples of 8."""
        tokens = self._staged[0]((pixels - _MEAN) / _DEVIATION)
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        return self.head(Features(tokens.patch_tokens, tokens.cls_tokens, size), ["object"] * len(pixels))
