"""Trains a head on the pools: `python -m recipes.embedded.train --pools POOLS --fold A --out RUN`.

Stopped at any time, the same command goes on from the last checkpoint to the same result.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.files import replacing, write_text
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.methods.losses import dice
from ad_dinov3.ops import top_mean
from recipes.embedded.pool import CONFIG, Pool, open_pool
from recipes.embedded.samples import SETS

FOLDS = {
    "none": (),
    "A": ("bsdata", "neu_seg", "crackforest", "lgg_mri"),
    "B": ("mtd", "aws_cookies", "busi"),
    "all": SETS,
}
GRID = (32, 32)
_SCORED = 0.01  # share of the map that the image term looks at
_DRAWN = {"rendered": 0.5, "photo": 0.38, "plain": 0.12}
_LOG = logging.getLogger("train")


@dataclass(frozen=True)
class Recipe:
    """Every choice of a run (docs/embedded.md says what decided them)."""

    fold: str
    steps: int = 1000
    seed: int = 0
    pairs: int = 8  # a step
    rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    average: float = 0.995  # decay of the weight average that is the result
    real: float = 1 / 3  # share of the fold's own data sets among the pairs
    image: float = 0.1  # weight of the loss on the image score
    photographs: bool = True

    def rate_at(self, step: int) -> float:
        """Warm-up, then a cosine to 2 %."""
        return (
            self.rate
            * min(1.0, (step + 1) / self.warm_up)
            * (0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps)))
        )


def new_head(seed: int) -> AdDinoV3:
    """The preset's head, started so that what is rare looks abnormal at once."""
    torch.manual_seed(seed)
    method, widths = CONFIG.method, load_backbone(CONFIG.encoder, offline=True).spec.widths
    head = AdDinoV3(method, widths, method.width)
    with torch.no_grad():
        abnormal = F.normalize(torch.randn(method.width), dim=0)
        head.prompts.copy_(torch.stack([-abnormal, abnormal])[None])
        head.bias.fill_(2.0)
        for adapter, width in zip(head.patch_adapters, widths, strict=True):
            adapter.second.weight.mul_(0.5).add_(torch.eye(method.width))
            adapter.first.weight[:, 2 * width : 2 * width + 2] += 0.3 * abnormal[:, None]  # the two distances
    return head


def margins(head: AdDinoV3, tokens: list[Tensor]) -> Tensor:
    """How much each stage takes each cell for abnormal, in logits: (L, B, h, w)."""
    images = len(tokens[0])
    outputs = head.judge(tokens, [stage.mean((1, 2)) for stage in tokens], ["object"] * images, GRID)
    return torch.stack([out.patch_logits[:, 1] - out.patch_logits[:, 0] for out in outputs])


def balanced(probability: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy: the mean over normal pixels plus the mean over abnormal ones; small defects weigh as much."""
    loss = F.binary_cross_entropy(probability.clamp(1e-5, 1 - 1e-5), target, reduction="none")
    normal = (loss * (1 - target)).sum((1, 2)) / (1 - target).sum((1, 2)).clamp(min=1)
    abnormal = (loss * target).sum((1, 2)) / target.sum((1, 2)).clamp(min=1)
    return (normal + abnormal).mean()


def total_loss(stages: Tensor, masks: Tensor, recipe: Recipe) -> Tensor:
    """Balanced cross-entropy and Dice of the fused map, the former of each stage's too, and the image score's.

    Each stage's own map is trained beside the fused one, so that the fusion is a vote of detectors and not a sum that
    is right on training images alone. The image term is on the map's highest margins, from which the score comes.
    """
    target = (masks > 0.25).float()
    size = (int(target.shape[1]), int(target.shape[2]))
    fused = stages.mean(0)
    anomaly = F.interpolate(fused[:, None].sigmoid(), size, mode="bilinear")[:, 0]
    each = F.interpolate(stages.flatten(0, 1)[:, None].sigmoid(), size, mode="bilinear")[:, 0]
    on_map = balanced(anomaly, target) + 0.5 * dice(anomaly, target)
    on_each = balanced(each, target.repeat(len(stages), 1, 1))
    score = top_mean(fused, _SCORED)
    image = F.binary_cross_entropy_with_logits(score, target.flatten(1).amax(1))
    return 0.3 * (on_map + on_each) + recipe.image * image


class Run:
    """The state of a training run and its checkpoint."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.step = recipe, 0
        self.head = new_head(recipe.seed)
        self.average = copy.deepcopy(self.head).requires_grad_(False)
        parameters = [one for name, one in self.head.named_parameters() if not name.startswith("cls_adapters")]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))

    def advance(self, tokens: list[Tensor], masks: Tensor) -> float:
        """One step; returns the loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        loss = total_loss(margins(self.head, tokens), masks, self.recipe)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"expected a finite loss, got {loss.item()} at step {self.step}")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.recipe.average, self.step / (self.step + 30))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.head.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return loss.item()

    def save(self, out: Path) -> None:
        """Checkpoint, written beside and renamed."""
        state = {"step": self.step, "optimiser": self.optimiser.state_dict()}
        state |= {"head": self.head.state_dict(), "average": self.average.state_dict()}
        with replacing(out / "state.pt") as unfinished:
            torch.save(state, unfinished)

    def resume(self, out: Path) -> None:
        """Go on from the checkpoint in ``out`` if there is one."""
        if (out / "state.pt").exists():
            state = torch.load(out / "state.pt", weights_only=True)
            self.step = state["step"]
            self.head.load_state_dict(state["head"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            _LOG.info("resumed at step %d", self.step)

    def export(self, out: Path) -> None:
        """The averaged weights and the recipe; the head is written last."""
        recipe = {**asdict(self.recipe), "sets": FOLDS[self.recipe.fold]}
        write_text(out / "recipe.json", json.dumps(recipe, indent=2) + "\n")
        tensors = {name: value.contiguous() for name, value in self.average.state_dict().items()}
        with replacing(out / "head.safetensors") as unfinished:
            save_file(tensors, unfinished)


def batch(pools: list[Pool], shares: list[float], recipe: Recipe, step: int) -> tuple[list[Tensor], Tensor]:
    """The pairs of a step, of seed and step alone: tokens of each stage and masks."""
    rng = np.random.default_rng([recipe.seed, step])
    parts = [
        pool.pairs(rng.integers(len(pool), size=count))
        for pool, count in zip(pools, rng.multinomial(recipe.pairs, shares), strict=True)
        if count
    ]
    tokens = [torch.cat(stage) for stage in zip(*(part[0] for part in parts), strict=True)]
    return tokens, torch.cat([part[1] for part in parts])


def chosen_pools(folder: Path, recipe: Recipe) -> tuple[list[Pool], list[float]]:
    """Drawn pools and the fold's own, with their shares; a drawn pool that is not there leaves its share to others."""
    drawn = {name: share for name, share in _DRAWN.items() if (folder / name).is_dir()}
    if not recipe.photographs:
        drawn.pop("photo", None)
    real = FOLDS[recipe.fold]
    rest = (1 - recipe.real if real else 1) / sum(drawn.values())
    shares = [rest * share for share in drawn.values()] + [recipe.real / len(real) for _ in real]
    return [open_pool(folder / name) for name in (*drawn, *real)], shares


def train(run: Run, pools: list[Pool], shares: list[float], out: Path) -> None:
    """All steps that are left; a checkpoint every 100."""
    started, losses = time.monotonic(), deque(maxlen=100)
    while run.step < run.recipe.steps:
        losses.append(run.advance(*batch(pools, shares, run.recipe, run.step)))
        if run.step % 100 == 0 or run.step == run.recipe.steps:
            run.save(out)
            _LOG.info("step %d loss %.4f, %.0f s", run.step, np.mean(losses), time.monotonic() - started)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=Path, required=True, help="folder that recipes.embedded.pool has filled")
    parser.add_argument("--fold", choices=sorted(FOLDS), required=True, help="which sets to train on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--without-photographs", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recipe = Recipe(arguments.fold, arguments.steps, arguments.seed, photographs=not arguments.without_photographs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe)
    run.resume(arguments.out)
    train(run, *chosen_pools(arguments.pools, recipe), arguments.out)
    run.export(arguments.out)


if __name__ == "__main__":
    main()
