"""All methods beside each other in one run: CPU seconds per image, parameters and peak memory, on random weights.

    python benchmarks/methods.py [--size large|small] [--side 336] [--batch 1] [--rounds 3] [--method NAME ...]

Every method sees the same images, (side x side) px; 336 is a multiple of both patch sizes, 14 and 16. ``large`` means
the published towers: DINOv3 ViT-L/16, CLIP ViT-L/14, and for WinCLIP ViT-B/16-plus. Times are CPU seconds of one
thread, the median of the rounds, so other processes on the machine matter little; each method runs in a process of its
own, whose peak of resident memory is read at the end. Prompts are baked as at prediction; AdaCLIP, which cannot bake
them, runs its 48 sentences for every image.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, DINOv3ViTConfig, DINOv3ViTModel

from ad_dinov3.config import AdDinoV3Config
from ad_dinov3.config.methods import AdaClipConfig, AnomalyClipConfig, AprilGanConfig, WinClipConfig
from ad_dinov3.encoders.backbone import FrozenBackbone, quarters
from ad_dinov3.encoders.clip_image import ClipTaps, LoadedVision, build_clip_vision
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.encoders.stages import StagedViT
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.methods.adaclip import AdaClip, ClipStart, Sentences
from ad_dinov3.methods.anomalyclip import AnomalyClip, DualPath
from ad_dinov3.methods.april_gan import AprilGan
from ad_dinov3.methods.dinov3_plain import Dinov3Plain
from ad_dinov3.methods.head import Head
from ad_dinov3.methods.winclip import ClipWindows, WinClip
from ad_dinov3.types import EncoderSpec, ImageEncoder
from ad_dinov3.weights import ClipWeights

CLASS = "object"
_SENTENCES, _TOKENS = (28, 20), 14  # AdaCLIP's two ensembles; a usual length of a sentence


@dataclass(frozen=True)
class TowerSize:
    """Width, blocks, heads and patch size of an image tower; of the text tower width, blocks, heads; shared width."""

    width: int
    blocks: int
    heads: int
    patch: int
    text: tuple[int, int, int] = (768, 12, 12)
    shared: int = 768


SIZES = {
    "large": {
        "clip": TowerSize(1024, 24, 16, 14),
        "winclip": TowerSize(896, 12, 14, 16, (640, 12, 10), 640),
        "dinov3": TowerSize(1024, 24, 16, 16),
    },
    "small": {
        "clip": TowerSize(128, 6, 2, 14, (128, 4, 2), 64),
        "winclip": TowerSize(128, 6, 2, 16, (128, 4, 2), 64),
        "dinov3": TowerSize(128, 6, 2, 16),
    },
}


@dataclass(frozen=True)
class Built:
    """A method ready to score; the text tower where there is one, counted but not run unless the head holds it."""

    encoder: ImageEncoder
    head: Head
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    name: str
    seconds: float
    frozen: int
    learned: int
    peak_mb: float


def filled(module: nn.Module) -> nn.Module:
    """A module made on "meta" with small random weights, frozen."""
    module = module.to_empty(device="cpu")
    noise = 0.02 * torch.randn(1 << 20)  # drawn once and repeated: half a billion draws would take longer than the run
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(noise.repeat(-(-tensor.numel() // len(noise)))[: tensor.numel()].view_as(tensor))
    return module.eval().requires_grad_(False)


def random_clip(size: TowerSize) -> CLIPModel:
    text_width, text_blocks, text_heads = size.text
    vision = {"hidden_size": size.width, "intermediate_size": 4 * size.width, "num_hidden_layers": size.blocks}
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": text_blocks}
    vision |= {"num_attention_heads": size.heads, "patch_size": size.patch, "image_size": 24 * size.patch}
    text |= {"num_attention_heads": text_heads}
    vision["projection_dim"] = text["projection_dim"] = size.shared
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=size.shared)
    with torch.device("meta"):
        model = CLIPModel(config)
    return filled(model)  # type: ignore[return-value]


def clip_parts(
    size: TowerSize, config: AprilGanConfig | WinClipConfig | AnomalyClipConfig | AdaClipConfig
) -> tuple[LoadedVision, ClipTextTower]:
    """The image tower and the text tower of a random CLIP."""
    model = random_clip(size)
    weights = ClipWeights(
        name="random",
        text_config={},
        vision_config=model.config.vision_config.to_dict(),
        state=model.state_dict(),
        path=Path("random"),
        folder=Path("random"),
        activation=None,
        licence="none",
    )
    loaded = build_clip_vision(weights, config.activation, config.position_resize)
    return loaded, ClipTextTower(model)


def build_winclip(sizes: dict[str, TowerSize]) -> Built:
    config = WinClipConfig()
    loaded, text = clip_parts(sizes["winclip"], config)
    windows = ClipWindows(loaded.vision, config)
    head = WinClip(config, loaded.vision.text_width, ())
    head.set_prompts(random_prompts(loaded))
    return Built(loaded.encoder(windows, windows.widths, {}), head, (loaded.vision, text))


def build_april_gan(sizes: dict[str, TowerSize]) -> Built:
    config = AprilGanConfig()
    loaded, text = clip_parts(sizes["clip"], config)
    stages = quarters(len(loaded.vision.blocks))
    widths = (loaded.vision.width,) * len(stages)
    head = AprilGan(config, widths, loaded.vision.text_width, ())
    head.set_prompts(random_prompts(loaded))
    return Built(loaded.encoder(ClipTaps(loaded.vision, stages), widths, {}), head, (loaded.vision, text))


def build_anomalyclip(sizes: dict[str, TowerSize]) -> Built:
    config = AnomalyClipConfig()
    loaded, text = clip_parts(sizes["clip"], config)
    dual = DualPath(loaded.vision, (len(loaded.vision.blocks),), config)
    head = AnomalyClip(config, text.width, loaded.vision.text_width, text)
    ids = torch.randint(1, 999, (2, 77))
    ids[:, 16] = 49407
    head.set_tokens(ids)
    return Built(loaded.encoder(dual, dual.widths, {}), head.eval(), (loaded.vision, text))


def build_adaclip(sizes: dict[str, TowerSize]) -> Built:
    config = AdaClipConfig()
    loaded, text = clip_parts(sizes["clip"], config)
    head = AdaClip(config, loaded.vision, text, quarters(len(loaded.vision.blocks)))
    ids = [torch.randint(1, 999, (count, _TOKENS)) for count in _SENTENCES]
    for one in ids:
        one[:, -1] = 49407
    head.set_sentences({CLASS: Sentences(*ids)})
    return Built(loaded.encoder(ClipStart(loaded.vision), (loaded.vision.width,), {}), head, (loaded.vision, text))


def build_dinov3(sizes: dict[str, TowerSize]) -> FrozenBackbone:
    size = sizes["dinov3"]
    config = DINOv3ViTConfig(
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        patch_size=size.patch,
        num_register_tokens=4,
    )
    model = DINOv3ViTModel(config).eval()
    stages = quarters(size.blocks)
    spec = EncoderSpec("random", size.patch, size.patch, (size.width,) * len(stages), "random", "none")
    return FrozenBackbone(StagedViT(model, stages), spec, mean=(0.5,) * 3, std=(0.5,) * 3)


def build_ad_dinov3(sizes: dict[str, TowerSize]) -> Built:
    encoder = build_dinov3(sizes)
    text = ClipTextTower(random_clip(sizes["clip"]))
    head = AdDinoV3(AdDinoV3Config(), encoder.spec.widths, sizes["clip"].shared, (CLASS,))
    return Built(encoder, head, (encoder.module, text))


def build_dinov3_plain(sizes: dict[str, TowerSize]) -> Built:
    encoder = build_dinov3(sizes)
    return Built(encoder, Dinov3Plain(), (encoder.module,))


def random_prompts(loaded: LoadedVision) -> dict[str, torch.Tensor]:
    return {CLASS: torch.randn(2, loaded.vision.text_width)}


BUILDERS: dict[str, Callable[[dict[str, TowerSize]], Built]] = {
    "ad_dinov3": build_ad_dinov3,
    "dinov3_plain": build_dinov3_plain,
    "winclip": build_winclip,
    "april_gan": build_april_gan,
    "anomalyclip": build_anomalyclip,
    "adaclip": build_adaclip,
}


def measure(name: str, size: str, side: int, batch: int, rounds: int) -> Measured:
    """Build one method and score the same images ``rounds`` times, after one round that does not count."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    built = BUILDERS[name](SIZES[size])
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        built.head.score(built.encoder.encode(images), [CLASS] * batch)
        seconds.append((time.process_time() - start) / batch)
    learned = built.head.parameters() if isinstance(built.head, nn.Module) else ()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(
        name,
        statistics.median(seconds[1:] or seconds),
        sum(tensor.numel() for module in built.modules for tensor in module.parameters()),
        sum(tensor.numel() for tensor in learned if tensor.requires_grad),
        peak,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", action="append", choices=BUILDERS)
    options = parser.parse_args()
    print(f"{options.size}, {options.side}x{options.side} px, batch {options.batch}, torch {torch.__version__}\n")
    print("| method | CPU s per image | frozen parameters | learned parameters | peak memory |")
    print("|---|---:|---:|---:|---:|")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        for name in options.method or BUILDERS:
            row = pool.submit(measure, name, options.size, options.side, options.batch, options.rounds).result()
            sizes = f"{row.frozen / 1e6:.1f} M | {row.learned / 1e6:.2f} M | {row.peak_mb / 1024:.1f} GiB"
            print(f"| {row.name} | {row.seconds:.2f} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
