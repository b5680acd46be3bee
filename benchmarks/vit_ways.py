"""The ways that `benchmarks.without_vnni` tries to run a DINOv3 ViT: by other settings, fewer tokens or fewer bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DINOv3ViTModel

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
QUARTERS = 4
_PATCH_PX = 16


class Stages(nn.Module):
    """Patch tokens (4, T, C) at the ends of the four quarters of a ViT, of a normalised image (1, 3, size, size).

    Args:
        model: any DINOv3 ViT.
        size: of the input in px.
        merged: share of the patch tokens, up to 0.5, that take part in no block: at the start of each quarter those
            that are most like one in an even column, whose updates they copy.
        registers: whether the register tokens are computed.
    """

    def __init__(self, model: DINOv3ViTModel, size: int, merged: float = 0.0, registers: bool = True) -> None:
        super().__init__()
        self.embeddings, self.layers, self.norm = model.embeddings, model.model.layer, model.norm
        self.side = size // _PATCH_PX
        self.merged = round(merged * self.side**2)
        self.dropped = 0 if registers else model.config.num_register_tokens
        self.prefix = 1 + model.config.num_register_tokens - self.dropped
        with torch.no_grad():
            cos, sin = model.rope_embeddings(torch.zeros(1, 3, size, size))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat(list(self.quarters(pixels)))

    def quarters(self, pixels: Tensor, count: int = QUARTERS) -> list[Tensor]:
        """The first stages' patch tokens (1, T, C)."""
        tokens = self.embeddings(pixels)
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + self.dropped :]], 1)
        each = len(self.layers) // QUARTERS
        found = []
        for quarter in range(count):
            used, back = self._merging(tokens[0, self.prefix :]) if self.merged else (None, None)
            for layer in self.layers[quarter * each : (quarter + 1) * each]:
                tokens = self._block(layer, tokens, used, back)
            found.append(self.norm(tokens)[:, self.prefix :])
        return found

    def _block(self, layer: nn.Module, tokens: Tensor, used: Tensor | None, back: Tensor | None) -> Tensor:
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        if used is None or back is None:
            return layer(tokens, position_embeddings=(cos, sin))  # type: ignore[no-any-return]
        rows = used[self.prefix :] - self.prefix
        positions = (cos.index_select(-2, rows), sin.index_select(-2, rows))
        update, _ = layer.attention(layer.norm1(tokens.index_select(1, used)), position_embeddings=positions)
        tokens = tokens + layer.layer_scale1(update).index_select(1, back)
        update = layer.layer_scale2(layer.mlp(layer.norm2(tokens.index_select(1, used))))
        return tokens + update.index_select(1, back)

    def _merging(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens take part, and for each token the place among them whose updates it takes."""
        places = torch.arange(self.side**2, device=patches.device).view(self.side, self.side)
        even, odd = places[:, ::2].flatten(), places[:, 1::2].flatten()
        directions = F.normalize(patches, dim=-1)
        likeness, partner = (directions[odd] @ directions[even].T).max(1)
        order = likeness.argsort(descending=True)  # of the odd ones
        rank = order.argsort()
        kept = odd[order[self.merged :]]
        prefix = torch.arange(self.prefix, device=patches.device)
        used = torch.cat([prefix, self.prefix + even, self.prefix + kept])
        own = self.prefix + len(even) + rank - self.merged
        of_odd = torch.where(rank < self.merged, self.prefix + partner, own)
        of_even = self.prefix + torch.arange(len(even), device=patches.device)
        rows = torch.stack([of_even.view(self.side, -1), of_odd.view(self.side, -1)], 2)
        return used, torch.cat([prefix, rows.flatten()])


class SmallerInput(nn.Module):
    """The first two stages of the whole image, the last two of a smaller one, enlarged to the same grid.

    Args:
        model: any DINOv3 ViT.
        size: of the input in px.
        small_px: of the smaller one.
    """

    def __init__(self, model: DINOv3ViTModel, size: int, small_px: int) -> None:
        super().__init__()
        self.fine, self.coarse, self.small_px = Stages(model, size), Stages(model, small_px), small_px

    def forward(self, pixels: Tensor) -> Tensor:
        small = F.interpolate(pixels, (self.small_px, self.small_px), mode="bilinear")
        coarse = self.coarse.quarters(small)[QUARTERS // 2 :]
        return torch.cat([*self.fine.quarters(pixels, QUARTERS // 2), *map(self._enlarged, coarse)])

    def _enlarged(self, tokens: Tensor) -> Tensor:
        grid = tokens.mT.unflatten(2, (self.coarse.side, self.coarse.side))
        return F.interpolate(grid, (self.fine.side, self.fine.side), mode="bilinear").flatten(2).mT


def _converted(module: nn.Module, size: int) -> object:
    import openvino

    with torch.no_grad():
        return openvino.convert_model(torch.export.export(module.eval(), (torch.zeros(1, 3, size, size),)))


def _compiled(model: object, settings: Mapping[str, object]) -> Run:
    import openvino

    fixed = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    ready = openvino.compile_model(model, "CPU", fixed | dict(settings))
    return lambda pixels: ready(pixels)[0].copy()


def settings_way(model: DINOv3ViTModel, size: int, settings: Mapping[str, object]) -> Run:
    """OpenVINO in float with settings of its own."""
    return _compiled(_converted(Stages(model, size), size), settings)


def tokens_way(model: DINOv3ViTModel, size: int, merged: float = 0.0, registers: bool = True) -> Run:
    """OpenVINO in float with fewer tokens."""
    return _compiled(_converted(Stages(model, size, merged, registers), size), {})


def eager_tokens_way(model: DINOv3ViTModel, size: int, merged: float) -> Run:
    """Eager torch with fewer tokens."""
    stages = Stages(model, size, merged).eval()

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = stages(torch.from_numpy(pixels)).numpy()
            return found

    return run


def smaller_way(model: DINOv3ViTModel, size: int, small_px: int) -> Run:
    """OpenVINO in float with a smaller input for the last two stages."""
    return _compiled(_converted(SmallerInput(model, size, small_px), size), {})


def weights_way(model: DINOv3ViTModel, size: int, mode: str) -> Run:
    """OpenVINO with the weights alone in 8 bits."""
    import nncf

    packed = nncf.compress_weights(_converted(Stages(model, size), size), mode=nncf.CompressWeightsMode(mode))
    return _compiled(packed, {})


def int8_way(model: DINOv3ViTModel, size: int) -> Run:
    """OpenVINO with weights and activations in 8 bits, ranges set by rendered pictures."""
    from ad_dinov3.export.build import quantize
    from benchmarks.backbone import CALIBRATION, normalised
    from recipes.synthetic import render

    samples = [normalised(render(seed, 384).image, size) for seed in range(CALIBRATION)]
    return _compiled(quantize(_converted(Stages(model, size), size), samples), {})  # type: ignore[arg-type]


def onnx_way(model: DINOv3ViTModel, size: int, in_8_bits: bool) -> Run:
    """ONNX Runtime, in float or with weights and activations quantized as it runs."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    folder = tempfile.mkdtemp()
    file = f"{folder}/model.onnx"
    torch.onnx.export(Stages(model, size).eval(), (torch.zeros(1, 3, size, size),), file, dynamo=True, verbose=False)
    if in_8_bits:
        quantize_dynamic(file, f"{folder}/small.onnx")
        file = f"{folder}/small.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {name: pixels})[0]
        return found

    return run


BUILDERS: dict[str, Callable[[DINOv3ViTModel, int], Run]] = {
    "OpenVINO": partial(settings_way, settings={}),
    "OpenVINO, throughput": partial(settings_way, settings={"PERFORMANCE_HINT": "THROUGHPUT"}),
    "OpenVINO, one stream, no pinning": partial(settings_way, settings={"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}),
    "OpenVINO, denormals as zero": partial(settings_way, settings={"CPU_DENORMALS_OPTIMIZATION": True}),
    "OpenVINO, no registers": partial(tokens_way, registers=False),
    "eager, a quarter of the tokens merged": partial(eager_tokens_way, merged=0.25),
    "eager, half of the tokens merged": partial(eager_tokens_way, merged=0.5),
    "OpenVINO, a quarter of the tokens merged": partial(tokens_way, merged=0.25),
    "OpenVINO, half of the tokens merged": partial(tokens_way, merged=0.5),
    "OpenVINO, last two stages at 384 px": partial(smaller_way, small_px=384),
    "OpenVINO, last two stages at 256 px": partial(smaller_way, small_px=256),
    "OpenVINO, weights alone in 8 bits, asymmetric": partial(weights_way, mode="int8_asym"),
    "OpenVINO, weights alone in 8 bits, symmetric": partial(weights_way, mode="int8_sym"),
    "OpenVINO, all in 8 bits": int8_way,
    "OpenVINO, not held": partial(settings_way, settings={}),
    "ONNX Runtime, not held": partial(onnx_way, in_8_bits=False),
    "ONNX Runtime, 8 bits as it runs, not held": partial(onnx_way, in_8_bits=True),
}
"""A way's name -> what builds it."""

NOT_HELD = {name for name in BUILDERS if name.endswith("not held")}
