"""The small network: a DINOv3 ConvNeXt started from classical filters, and the AD-DINOv3 head with rarity."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from ad_dinov3.encoders.dinov3 import StagedConvNeXt

GRID_STRIDE = 8
_SLOPE = 0.01
_RIDGE = 0.02  # share of the mean variance added to the covariance before whitening
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to ImageNet's mean and deviation."""
    return (pixels - _MEAN) / _DEVIATION


def small_backbone() -> DINOv3ConvNextModel:
    """0.3 M parameters in DINOv3's ConvNeXt form; ReLU, since GELU costs a quarter more time on CPUs."""
    config = DINOv3ConvNextConfig(
        hidden_sizes=[32, 48, 64, 96], depths=[1, 2, 2, 2], hidden_act="relu", layer_scale_init_value=0.3
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


def standardise(tokens: Tensor) -> Tensor:
    """(B, N, C): mean 0 and deviation 1 of each channel over an image's tokens."""
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-6)


def whiten(tokens: Tensor) -> Tensor:
    """(B, N, K): rotated and scaled to identity covariance over an image's tokens."""
    centred = tokens - tokens.mean(1, keepdim=True)
    covariance = centred.mT @ centred / tokens.shape[1]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-8
    factor = torch.linalg.cholesky(covariance / variance + _RIDGE * torch.eye(tokens.shape[2]))
    return torch.linalg.solve_triangular(factor, (centred / variance.sqrt()).mT, upper=False).mT


class RarityAdapter(nn.Module):
    """Eq. 1 on standardised tokens and on how rare they are within their own image (our addition).

    K learned directions of the tokens are whitened inside the image; their squared length is the squared Mahalanobis
    distance from the image's mean token, which is what the classical rival measures on fixed filters.
    """

    def __init__(self, channels: int, rare: int, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.linalg.qr(torch.randn(channels, rare))[0].mT.contiguous())
        self.first = nn.Linear(channels + 2 + rare, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight.data.mul_(0.5).add_(torch.eye(width))
        self.rarity_columns = slice(channels, channels + 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h*w, width)."""
        batch, height, width, _ = tokens.shape
        plain = standardise(tokens.flatten(1, 2))  # (B, N, C)
        rare = whiten(plain @ self.directions.mT)  # (B, N, K)
        rarity = torch.log(rare.square().mean(2, keepdim=True) + 1e-2)
        grid = F.pad(rarity.reshape(batch, 1, height, width), (2, 2, 2, 2), mode="replicate")
        nearby = F.avg_pool2d(grid, 5, stride=1).flatten(2).mT  # (B, N, 1)
        known = torch.cat([plain, rarity, nearby, rare.abs()], 2)
        return F.leaky_relu(self.second(F.leaky_relu(self.first(known), _SLOPE)), _SLOPE)


class Outputs(NamedTuple):
    """Map and AACM map (B, 1, h, w) in [0, 1], and image logits (B,)."""

    map: Tensor
    aacm: Tensor
    image_logit: Tensor


class Head(nn.Module):
    """AD-DINOv3's head with learned prompts; stages agree in logits, each with a gain and a bias of its own."""

    def __init__(self, widths: tuple[int, ...], rare: int = 24, width: int = 48) -> None:
        super().__init__()
        self.patch_adapters = nn.ModuleList(RarityAdapter(channels, rare, width) for channels in widths)
        self.cls_adapters = nn.ModuleList(nn.Linear(channels, width, bias=False) for channels in widths)
        abnormal = 0.1 * torch.randn(width)
        self.prompts = nn.Parameter(torch.stack([-abnormal, abnormal]))  # (2, width): normal, abnormal
        self.log_gain = nn.Parameter(torch.full((len(widths),), math.log(10.0)))
        self.bias = nn.Parameter(torch.full((len(widths),), 2.0))
        for adapter in self.patch_adapters:  # what is rare looks abnormal from the first step on
            adapter.first.weight.data[:, adapter.rarity_columns] += 0.3 * F.normalize(abnormal, dim=0)[:, None]

    def forward(self, patches: tuple[Tensor, ...], globals_: tuple[Tensor, ...]) -> Outputs:
        """Patch grids (B, h, w, C_l) and global tokens (B, C_l) of each stage to maps on the grid."""
        normal, abnormal = F.normalize(self.prompts, dim=1)
        margins, aacm, image = [], [], []
        for i, (patch, token) in enumerate(zip(patches, globals_, strict=True)):
            adapted = F.normalize(self.patch_adapters[i](patch), dim=2)
            margins.append(self.log_gain[i].exp() * (adapted @ (abnormal - normal)) - self.bias[i])  # eq. 2
            token = F.normalize(F.leaky_relu(self.cls_adapters[i](token), _SLOPE), dim=1)
            aacm.append((10 * adapted @ token[:, :, None])[..., 0].sigmoid())  # eqs. 3 and 4
            image.append(10 * token @ (abnormal - normal))
        shape = (len(patches[0]), 1, *patches[0].shape[1:3])
        return Outputs(
            map=torch.stack(margins).mean(0).sigmoid().reshape(shape),
            aacm=torch.stack(aacm).mean(0).reshape(shape),
            image_logit=torch.stack(image).mean(0),
        )


class Network(nn.Module):
    """Backbone, stages on a grid of 8 px, head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = small_backbone()
        start_from_filters(self.backbone, np.random.default_rng(seed))
        # Not registered: its modules are the backbone's own.
        self._staged = [StagedConvNeXt(self.backbone, (1, 2, 3, 4), GRID_STRIDE)]
        self.head = Head(self._staged[0].widths)

    def forward(self, pixels: Tensor) -> Outputs:
        """Images (B, 3, H, W) in [0, 1], H and W multiples of 32."""
        return self.head(*self._staged[0](normalise(pixels)))
