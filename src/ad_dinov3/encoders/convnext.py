"""DINOv3's ConvNeXt: the network behind the public checkpoints, under the names that they have on Hugging Face.

It is written here because the class in ``transformers`` takes longer to import than everything else that loading a
model does. Source: Liu et al. 2022, "A ConvNet for the 2020s", section 2, as DINOv3 uses it; a test holds it against
``transformers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ad_dinov3.config.settings import Settings
from ad_dinov3.errors import ConfigError

STEM_STRIDE = 4  # of the first stage; each further stage halves the grid
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class ConvNextConfig(Settings, extra="ignore"):
    """What a checkpoint's ``config.json`` says of a ConvNeXt; the defaults are those of every public one.

    Attributes:
        hidden_sizes: channels C_l of each stage.
        depths: layers of each stage.
        hidden_act: between the two pointwise convolutions of a layer.
        layer_norm_eps: of every LayerNorm.
    """

    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


class ConvNeXt(nn.Module):
    """The parts of the network; `encoders.stages` walks them.

    Attributes:
        stages: each takes (B, C_(l-1), h, w) to (B, C_l, h / 2, w / 2), the first (B, 3, H, W) to a quarter.
        layer_norm: the final one, over the last stage's channels.

    Raises:
        ConfigError: an activation that is not in the table.
    """

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        if config.hidden_act not in _ACTIVATIONS:
            raise ConfigError(f"expected a ConvNeXt with {', '.join(_ACTIVATIONS)}, got {config.hidden_act!r}")
        before = (3, *config.hidden_sizes)
        self.stages = nn.ModuleList(_Stage(config, index, before[index]) for index in range(len(config.hidden_sizes)))
        self.layer_norm = nn.LayerNorm(config.hidden_sizes[-1], eps=config.layer_norm_eps)


class ChannelsFirstNorm(nn.LayerNorm):
    """A LayerNorm over the channels of (B, C, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, config: ConvNextConfig, index: int, width_in: int) -> None:
        super().__init__()
        width, eps = config.hidden_sizes[index], config.layer_norm_eps
        stem = [nn.Conv2d(width_in, width, STEM_STRIDE, stride=STEM_STRIDE), ChannelsFirstNorm(width, eps=eps)]
        entry = [ChannelsFirstNorm(width_in, eps=eps), nn.Conv2d(width_in, width, 2, stride=2)]
        self.downsample_layers = nn.ModuleList(entry if index else stem)
        self.layers = nn.ModuleList(_Layer(width, config) for _ in range(config.depths[index]))

    def forward(self, features: Tensor) -> Tensor:
        for layer in (*self.downsample_layers, *self.layers):
            features = layer(features)
        return features


class _Layer(nn.Module):
    """Depthwise 7x7, LayerNorm, two pointwise convolutions (as linear layers), a scale per channel, and the skip."""

    def __init__(self, width: int, config: ConvNextConfig) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pointwise_conv1 = nn.Linear(width, 4 * width)
        self.activation = _ACTIVATIONS[config.hidden_act]()
        self.pointwise_conv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        changed = self.layer_norm(self.depthwise_conv(features).permute(0, 2, 3, 1))  # (B, h, w, C)
        changed = self.pointwise_conv2(self.activation(self.pointwise_conv1(changed)))
        scaled: Tensor = changed * self.gamma
        return features + scaled.permute(0, 3, 1, 2)
