"""EfficientNet-Lite (Google, 2020) as stages: plain convolutions with ReLU6, no attention, made for small machines.

The network is written here, its batch norms already folded into the convolutions; `recipes/embedded/convert_lite.py`
makes such weights from the published ones. Nothing here needs ``transformers``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_dinov3.encoders.stages import StageTokens, checked_stages, to_grid
from ad_dinov3.errors import ConfigError, WeightsError

_STEM_WIDTH = 32
_STEM_STRIDE = 2


class Group(NamedTuple):
    """A run of alike blocks, of which the first carries the stride.

    Attributes:
        repeats: how many blocks.
        kernel: side of the depthwise kernel, 3 or 5.
        stride: of the first block.
        expansion: how many times wider a block is inside.
        width: channels of its output.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


class SameConv(nn.Conv2d):
    """A convolution with a bias and TensorFlow's SAME padding: where a stride leaves an odd rest, more at the end.

    Args:
        width_in, width_out: channels.
        kernel: side in px, odd.
        stride: 1, or 2 on sides that are even.
        groups: as `nn.Conv2d` takes them.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        around = kernel // 2 if stride == 1 else 0
        super().__init__(width_in, width_out, kernel, stride, around, groups=groups)
        total = kernel - stride
        self.beyond = None if stride == 1 else (total // 2, total - total // 2) * 2

    def forward(self, features: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # what compiles or exports knows plain convolutions best
            return super().forward(features if self.beyond is None else F.pad(features, self.beyond))
        if self.kernel_size == (1, 1):
            # The same product without a copy into another layout and back, which torch makes on one thread.
            products = F.linear(features.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
            return products.permute(0, 3, 1, 2)
        if self.beyond is None:
            return super().forward(features)
        # One step more at the front is padded by the convolution itself, and what it gives there dropped: no padded
        # copy is made of an input that is four times as large as the output.
        front = self.beyond[0] + self.stride[0]
        return F.conv2d(features, self.weight, self.bias, self.stride, front, groups=self.groups)[:, :, 1:, 1:]


class Block(nn.Module):
    """An inverted residual (MobileNetV2): expand, filter each channel, project; a skip where the shape stays.

    Args:
        width_in: channels of the input.
        group: the run that it belongs to.
        stride: its own.
    """

    def __init__(self, width_in: int, group: Group, stride: int) -> None:
        super().__init__()
        inner = width_in * group.expansion
        self.expand = SameConv(width_in, inner, 1) if group.expansion > 1 else None
        self.depthwise = SameConv(inner, inner, group.kernel, stride, groups=inner)
        self.project = SameConv(inner, group.width, 1)
        self.skips = stride == 1 and width_in == group.width

    def forward(self, features: Tensor) -> Tensor:
        inner = features if self.expand is None else F.relu6(self.expand(features), inplace=True)
        # In place only on what is whole: a part of a map is copied by the same step.
        filtered = F.relu6(self.depthwise(inner), inplace=self.depthwise.beyond is None)
        out: Tensor = self.project(filtered)
        return out.add_(features) if self.skips else out


class StagedLite(nn.Module):
    """The outputs of chosen blocks on one grid, and their means over positions as global tokens.

    Finer stages are averaged down to the grid, coarser ones enlarged bilinearly. Blocks after the last stage are not
    computed.

    Args:
        groups: the architecture; Lite0 has seven groups of 16 blocks in all.
        stages: 1-based counts of blocks, ascending, such as (3, 5, 11, 16).
        grid_stride: pixels per side of a cell of the common grid: a power of 2 up to the coarsest stage's.

    Raises:
        ConfigError: stages or a grid stride that the network does not have.
    """

    def __init__(self, groups: Sequence[Group], stages: Sequence[int], grid_stride: int) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM_WIDTH, 3, _STEM_STRIDE)
        blocks, widths, strides = [], [], []
        width, stride = _STEM_WIDTH, _STEM_STRIDE
        for group in groups:
            for index in range(group.repeats):
                own = group.stride if index == 0 else 1
                blocks.append(Block(width, group, own))
                width, stride = group.width, stride * own
                widths.append(width)
                strides.append(stride)
        self.stages = checked_stages(stages, len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.block_widths, self.block_strides = tuple(widths), tuple(strides)
        self.strides = tuple(strides[stage - 1] for stage in self.stages)
        if grid_stride not in {1 << power for power in range(stride.bit_length())}:
            raise ConfigError(f"expected a grid stride that is a power of 2 up to {stride}, got {grid_stride}")
        self.widths = tuple(widths[stage - 1] for stage in self.stages)
        self.patch_size = self.size_multiple = grid_stride
        self.step = max(grid_stride, self.strides[-1])

    def of_stages(self, stages: Sequence[int]) -> StagedLite:
        """The same network, its tensors shared, with other stages.

        Raises:
            ConfigError: stages that it does not have.
        """
        other = copy.copy(self)  # its modules are this one's
        other.stages = checked_stages(stages, len(self.blocks))
        other.strides = tuple(self.block_strides[stage - 1] for stage in other.stages)
        other.widths = tuple(self.block_widths[stage - 1] for stage in other.stages)
        other.step = max(self.patch_size, other.strides[-1])
        return other

    def forward(self, pixels: Tensor) -> StageTokens:
        """Stage tokens of normalised images (B, 3, H, W) float; H and W multiples of ``size_multiple``.

        Sides that the coarsest stage's stride does not divide are continued by their last pixels and cut off again.
        """
        height, width = pixels.shape[2:]
        rows, columns = height // self.patch_size, width // self.patch_size
        beyond = (0, -width % self.step, 0, -height % self.step)
        features = F.pad(pixels, beyond, mode="replicate") if any(beyond) else pixels
        features = F.relu6(self.stem(features.contiguous(memory_format=torch.channels_last)))
        patches, globals_ = [], []
        for count, block in enumerate(self.blocks[: self.stages[-1]], start=1):
            features = block(features)  # (B, C_l, H / stride, W / stride)
            if count in self.stages:
                stride = self.strides[self.stages.index(count)]
                on_grid = to_grid(features, stride, self.patch_size)
                patches.append(on_grid.permute(0, 2, 3, 1)[:, :rows, :columns])
                globals_.append(features.mean((2, 3)))
        return StageTokens(tuple(patches), tuple(globals_))


def read_groups(config: Mapping[str, object], path: Path) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """The architecture and the usual stages from a backbone's ``config.json``.

    Raises:
        WeightsError: ``groups`` or ``stages`` is missing or of another form.
    """
    groups, stages = config.get("groups"), config.get("stages")
    if not isinstance(groups, list) or not isinstance(stages, list) or not all(len(row) == 5 for row in groups):
        raise WeightsError(
            f"{path}: expected a config.json beside it with groups (rows of {', '.join(Group._fields)}) and stages "
            f"(counts of blocks), found {groups!r} and {stages!r}; take the whole folder"
        )
    return tuple(Group(*map(int, row)) for row in groups), tuple(map(int, stages))
