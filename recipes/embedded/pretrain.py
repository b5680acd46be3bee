"""Trains the embedded model from scratch.

Two stages by one command: `--fold none` sees rendered images alone and is shared by all folds; a fold goes on from it
with its data sets. Stopped at any time, the same command goes on from the last checkpoint to the same result.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ad_dinov3.methods.ad_dinov3 import AdDinoV3, StageOutputs
from ad_dinov3.ops import top_mean
from recipes.embedded.network import HEAD, Network
from recipes.embedded.samples import SETS, Source, list_items

FOLDS = {
    "none": (),
    "A": ("bsdata", "neu_seg", "crackforest", "lgg_mri"),
    "B": ("mtd", "aws_cookies", "busi"),
    "all": SETS,
}
_log = logging.getLogger("pretrain")


@dataclass(frozen=True)
class Recipe:
    """Every choice of a run; the values were chosen on training-side data sets (docs/embedded.md)."""

    fold: str
    steps: int
    seed: int = 0
    size_px: int = 192
    fresh: int = 4  # new samples a step
    replayed: int = 4  # samples seen in one of the last `memory / fresh` steps, in another orientation
    memory: int = 600
    rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: int = 100
    average: float = 0.998  # decay of the weight average that is exported
    mix: tuple[float, float, float] = (0.3, 0.2, 0.5)  # real defects, drawn ones on real images, rendered images
    materials: float = 0.65  # share of the package's own renderer among rendered images
    schedule: str = "cosine"
    frozen: bool = False  # the backbone keeps its start; only the head is trained

    def rate_at(self, step: int) -> float:
        """Warm-up, then constant (another run goes on from there) or a cosine to 2 %."""
        share = min(1.0, (step + 1) / self.warm_up)
        if self.schedule == "constant":
            return self.rate * share
        return self.rate * share * (0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps)))


class Fresh(Dataset[tuple[Tensor, Tensor]]):
    """The new samples of each step: images (fresh, 3, S, S), masks (fresh, 1, S, S); of seed and step alone."""

    def __init__(self, source: Source, recipe: Recipe, steps: range) -> None:
        self.source, self.recipe, self.steps = source, recipe, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        seeds = ([self.recipe.seed, self.steps[index], k] for k in range(self.recipe.fresh))
        samples = [self.source.sample(np.random.default_rng(seed)) for seed in seeds]
        images = torch.from_numpy(np.stack([image for image, _ in samples])).permute(0, 3, 1, 2)
        return images, torch.from_numpy(np.stack([mask for _, mask in samples]))[:, None]


def batches(source: Source, recipe: Recipe, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, S, S) in [0, 1] and masks (B, 1, S, S) in {0, 1} of each step from ``start`` on.

    Samples are drawn ahead by a process of their own. A resumed run sees what an unbroken one sees: what the memory of
    replayed samples held before ``start`` is drawn again first.
    """
    memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=recipe.memory)
    first = max(0, start - recipe.memory // recipe.fresh)
    fresh = Fresh(source, recipe, range(first, recipe.steps))
    for step, new in enumerate(DataLoader(fresh, batch_size=None, num_workers=1, prefetch_factor=16), start=first):
        memory.extend(zip(*new, strict=True))
        if step < start:
            continue
        rng = np.random.default_rng([recipe.seed, step, recipe.fresh])
        old = [memory[int(k)] for k in rng.integers(len(memory), size=recipe.replayed)]
        images, masks = (torch.cat([new[i], torch.stack([sample[i] for sample in old])]) for i in (0, 1))
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        images, masks = images.rot90(turns, (2, 3)), masks.rot90(turns, (2, 3))
        yield (images.flip(3), masks.flip(3)) if mirrored else (images, masks)


def focal(probability: Tensor, target: Tensor) -> Tensor:
    """Focal loss with gamma 2 of (B, 1, h, w) probabilities, as AD-DINOv3."""
    right = torch.where(target > 0.5, probability, 1 - probability)
    return (-((1 - right) ** 2) * (right + 1e-5).log()).mean()


def dice(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice per image, with 1 added above and below."""
    both = (probability * target).sum((1, 2, 3))
    return (1 - (2 * both + 1) / (probability.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)).mean()


def balanced(probability: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy: the mean over normal pixels plus the mean over abnormal ones; small defects weigh as much."""
    loss = F.binary_cross_entropy(probability.clamp(1e-5, 1 - 1e-5), target, reduction="none")
    normal = (loss * (1 - target)).sum((1, 2, 3)) / (1 - target).sum((1, 2, 3)).clamp(min=1)
    abnormal = (loss * target).sum((1, 2, 3)) / target.sum((1, 2, 3)).clamp(min=1)
    return (normal + abnormal).mean()


def total_loss(head: AdDinoV3, outputs: list[StageOutputs], masks: Tensor) -> Tensor:
    """Eq. 6 with balanced cross-entropy in place of the map's focal term, at a quarter of the image's size.

    Each stage's own map is trained beside the fused one, so that the fusion is a vote of detectors and not a sum that
    is right on training images alone. The image term is on the map's highest margins, from which the score comes.
    """
    target = (F.avg_pool2d(masks, 4) > 0.25).float()
    size = (int(target.shape[2]), int(target.shape[3]))
    stages = torch.stack([out.patch_logits[:, 1:] - out.patch_logits[:, :1] for out in outputs])  # (L, B, 1, h, w)
    margins = stages.mean(0)
    anomaly = F.interpolate(margins.sigmoid(), size=size, mode="bilinear")
    each = F.interpolate(stages.flatten(0, 1).sigmoid(), size=size, mode="bilinear")
    aacm = F.interpolate(torch.stack(head.aacm_maps(outputs, size)).mean(0)[:, None], size=size, mode="bilinear")
    image = F.binary_cross_entropy_with_logits(
        top_mean(margins[:, 0], HEAD.top_fraction), masks.flatten(1).any(1).float()
    )
    on_map = balanced(anomaly, target) + 0.5 * dice(anomaly, target)
    on_each = balanced(each, target.repeat(len(stages), 1, 1, 1))
    return 0.3 * (on_map + on_each) + 0.25 * (focal(aacm, target) + dice(aacm, target)) + 0.1 * image


class Run:
    """The state of a training run and its checkpoint."""

    def __init__(self, recipe: Recipe, start: Path | None) -> None:
        self.recipe, self.step = recipe, 0
        self.network = Network(recipe.seed)
        self.network.backbone.requires_grad_(not recipe.frozen)
        if start is not None:
            self.network.load_state_dict(torch.load(start / "state.pt", weights_only=True)["average"])
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))

    def advance(self, images: Tensor, masks: Tensor) -> float:
        """One step; returns the loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        loss = total_loss(self.network.head, self.network(images), masks)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"expected a finite loss, got {loss.item()} at step {self.step}")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.recipe.average, self.step / (self.step + 30))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return loss.item()

    def save(self, out: Path) -> None:
        """Checkpoint, written beside and renamed."""
        state = {"step": self.step, "optimiser": self.optimiser.state_dict()}
        state |= {"network": self.network.state_dict(), "average": self.average.state_dict()}
        torch.save(state, out / "state.tmp")
        os.replace(out / "state.tmp", out / "state.pt")

    def resume(self, out: Path) -> None:
        """Go on from the checkpoint in ``out`` if there is one."""
        if (out / "state.pt").exists():
            state = torch.load(out / "state.pt", weights_only=True)
            self.step = state["step"]
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            _log.info("resumed at step %d", self.step)

    def export(self, out: Path) -> None:
        """The averaged weights: backbone in the Hugging Face layout (fp16), head.safetensors, recipe.json."""
        average = copy.deepcopy(self.average)
        average.backbone.half().save_pretrained(out / "backbone")
        head = {name: value.contiguous() for name, value in average.head.state_dict().items()}
        save_file(head, out / "head.safetensors", metadata={"format": "1"})
        recipe = {**self.recipe.__dict__, "sets": FOLDS[self.recipe.fold]}
        (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


def train(run: Run, source: Source, out: Path) -> None:
    """All steps that are left; a checkpoint every 200."""
    started, losses = time.monotonic(), deque(maxlen=200)
    for images, masks in batches(source, run.recipe, run.step):
        losses.append(run.advance(images, masks))
        if run.step % 200 == 0 or run.step == run.recipe.steps:
            run.save(out)
            _log.info("step %d loss %.4f, %.0f s", run.step, np.mean(losses), time.monotonic() - started)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets, MVTec AD layout")
    parser.add_argument("--fold", choices=sorted(FOLDS), required=True, help="which sets to train on")
    parser.add_argument("--start", type=Path, help="folder of a finished run to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedule", choices=("cosine", "constant"), default="cosine")
    parser.add_argument("--frozen", action="store_true", help="train the head alone, on the backbone's start")
    args = parser.parse_args()
    if FOLDS[args.fold] and args.data is None:
        parser.error("--fold A, B and all need --data")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recipe = Recipe(
        args.fold,
        args.steps,
        args.seed,
        mix=Recipe.mix if FOLDS[args.fold] else (0.0, 0.0, 1.0),
        schedule=args.schedule,
        frozen=args.frozen,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, args.start)
    run.resume(args.out)
    items = [list_items(args.data, name) for name in FOLDS[args.fold]]
    train(run, Source(items, recipe.size_px, recipe.mix, recipe.materials), args.out)
    run.export(args.out)


if __name__ == "__main__":
    main()
