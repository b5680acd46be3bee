"""DINOv3 ViT backbones at 512 px: OpenVINO fp32 and int8 against plain transformers, in one run and in turns.

    python -m benchmarks.backbone [S B L] [--rounds 5] [--threads 1] [--size 512]

Weights are random where there are no others: speed does not depend on them. Ratios are of processor time (which other
programs hardly move) and of wall-clock time, medians of interleaved rounds. The 8-bit ranges are set by rendered
pictures, agreement is measured on the package's sample images: cosine of patch tokens, and the mean absolute difference
of the map (in [0, 1]) that AD-DINOv3's head with random adapters makes of the tokens of four stages, at gain 10 (at 100
they saturate): of tokens as they are, the paper's way, and of tokens standardised over the image, as in `default`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from ad_dinov3.config import AdDinoV3Config, ModelConfig, PromptConfig
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.streams import find_images
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.export.build import SAMPLES, quantize
from ad_dinov3.export.graph import ScoreGraph
from ad_dinov3.export.graphs import score_graph
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.methods.table import borrowing
from ad_dinov3.model import new_model
from ad_dinov3.types import Features
from recipes.synthetic import render

SHAPES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}  # width, blocks, heads
REGISTERS = 4
CALIBRATION = 24  # rendered pictures
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class PatchTokens(nn.Module):
    """The four stages' patch tokens (4, T, C) of a normalised image (1, 3, H, W), rotary tables baked."""

    def __init__(self, graph: ScoreGraph) -> None:
        super().__init__()
        self.backbone = graph.backbone

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([stage.flatten(1, 2) for stage in self.backbone(pixels).patch_tokens])


def random_vit(shape: str) -> DINOv3ViTModel:
    """A ViT of a public shape with random weights, its layer scales at 1 so that every block counts."""
    width, depth, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_register_tokens=REGISTERS,
        layerscale_value=1.0,
    )
    return DINOv3ViTModel(config).eval()


def ways(shape: str, size: int, threads: int, samples: list[NDArray[np.float32]]) -> dict[str, Run]:
    """The yardstick and the two exports, as functions of normalised images (1, 3, H, W) float32."""
    eager, depth = random_vit(shape), SHAPES[shape][1]
    with tempfile.TemporaryDirectory() as folder:
        eager.save_pretrained(folder)
        settings = ModelConfig().with_settings({"encoder": folder, "input.height": size, "input.width": size})
        tokens = PatchTokens(score_graph(new_model(borrowing("dinov3_plain", settings)), (size, size))).eval()
    with torch.no_grad():
        model = openvino.convert_model(torch.export.export(tokens, (torch.zeros(1, 3, size, size),)))
    quantized = quantize(model, samples)
    settings_of = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}

    def plain(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = eager(torch.from_numpy(pixels), output_hidden_states=True)
            quarters = [eager.norm(found.hidden_states[depth * quarter // 4]) for quarter in (1, 2, 3)]
            return torch.cat([*quarters, found.last_hidden_state])[:, 1 + REGISTERS :].numpy()

    def compiled(which: openvino.Model) -> Run:
        ready = openvino.compile_model(which, "CPU", settings_of)
        return lambda pixels: ready(pixels)[0].copy()

    return {"transformers": plain, "OpenVINO fp32": compiled(model), "OpenVINO int8": compiled(quantized)}


def random_head(width: int, tokens: Literal["raw", "standardise"]) -> Run:
    """From patch tokens (4, T, C) of a square grid to the map (h, w) in [0, 1] of a head with random adapters."""
    torch.manual_seed(1)
    settings = AdDinoV3Config(prompts=PromptConfig(source="learned"), tokens=tokens, gain=10.0)
    head = AdDinoV3(settings, (width,) * 4, 768).eval()

    def scored(found: NDArray[np.float32]) -> NDArray[np.float32]:
        side = math.isqrt(found.shape[1])
        stages = tuple(torch.from_numpy(found).unflatten(1, (side, side)).split(1))
        means = tuple(stage.mean((1, 2)) for stage in stages)
        return head.score(Features(stages, means, (side, side)), ["object"]).patch_map[0].numpy()

    return scored


def normalised(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """The network's input (1, 3, size, size) of an image (H, W, 3)."""
    mean, std = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((resize_image(image, (size, size)) / 255 - mean) / std)[None].astype(np.float32)


def measure(shape: str, size: int, rounds: int, threads: int) -> None:
    """Print one table."""
    torch.set_num_threads(threads)
    held_out = [normalised(decode_image(item.path), size) for item in find_images([str(SAMPLES)])]
    runs = ways(shape, size, threads, [normalised(render(seed, 384).image, size) for seed in range(CALIBRATION)])
    heads = [random_head(SHAPES[shape][0], kind) for kind in ("raw", "standardise")]
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    tokens: dict[str, list[NDArray[np.float32]]] = {name: [] for name in runs}
    for round_ in range(-1, rounds):
        for name, run in runs.items():
            cpu_started, started = time.process_time(), time.perf_counter()
            found = run(held_out[round_ % len(held_out)])
            if round_ >= 0:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - cpu_started)
                tokens[name].append(found)
    base = "transformers"
    print(f"ViT-{shape}/16, {size} px, batch 1, {threads} threads, {rounds} rounds in turns, random weights")
    print(
        f"  {'way':16} {'CPU s':>7} {'ratio':>6} {'wall s':>7} {'ratio':>6} {'cosine':>9} {'lowest':>8} "
        f"{'map diff':>9} {'standard.':>9}"
    )
    for name in runs:
        pairs = list(zip(tokens[base], tokens[name], strict=True))
        cosine = np.concatenate([cosines(a[-1], b[-1]) for a, b in pairs])
        away = [np.mean([np.abs(mapped(a) - mapped(b)).mean() for a, b in pairs]) for mapped in heads]
        c, w = statistics.median(cpu[name]), statistics.median(wall[name])
        ratios = statistics.median(cpu[base]) / c, statistics.median(wall[base]) / w
        print(
            f"  {name:16} {c:7.3f} {ratios[0]:5.2f}x {w:7.3f} {ratios[1]:5.2f}x "
            f"{cosine.mean():9.6f} {cosine.min():8.5f} {away[0]:9.6f} {away[1]:9.6f}"
        )


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return (a * b).sum(-1).ravel() / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)).ravel()


def main() -> None:
    """Measure the shapes named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=["S"], choices=[*SHAPES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    for shape in arguments.shapes:
        measure(shape, arguments.size, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
