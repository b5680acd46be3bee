"""Chooses the threshold of a run on its own side: `python threshold.py --run fold_a --data ROOT`.

Pixels of its training sets and of rendered images that no training saw; the threshold with the best F1 averaged over
these sources. Prints what share of normal and of abnormal images has a region above it.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from network import Network
from numpy.typing import NDArray
from PIL import Image
from pretrain import FOLDS
from samples import Source, list_items, load

_UNSEEN_SEED = 1_000_003
_STEPS = np.linspace(0.3, 0.98, 69)
_log = logging.getLogger("threshold")
Floats = NDArray[np.float32]


def of_set(root: Path, name: str, count: int, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Up to ``count`` images (N, size, size, 3) in [0, 1] and masks of a set, half of them normal if it has any."""
    items = list_items(root, name)
    chosen = []
    for group in ([i for i in items if i.mask is None], [i for i in items if i.mask is not None]):
        chosen += group[:: max(1, 2 * len(group) // count)][: count // 2]
    pairs = [load(item) for item in chosen]
    images = [np.asarray(Image.fromarray(image).resize((size, size)), np.float32) / 255 for image, _ in pairs]
    masks = [np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.BOX)) > 90 for _, mask in pairs]
    return np.stack(images), np.stack(masks)


def rendered(count: int, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Rendered images and masks from seeds that training does not use."""
    source = Source([], size, (0.0, 0.0, 1.0))
    pairs = [source.sample(np.random.default_rng([_UNSEEN_SEED, k])) for k in range(count)]
    return np.stack([image for image, _ in pairs]), np.stack([mask > 0.5 for _, mask in pairs])


@torch.no_grad()
def maps_of(network: Network, images: Floats) -> Floats:
    """Maps (N, size, size) in [0, 1]."""
    size = images.shape[1:3]
    maps = [network(torch.from_numpy(image).permute(2, 0, 1)[None]).map for image in images]
    return F.interpolate(torch.cat(maps), size=size, mode="bilinear")[:, 0].numpy()


def f1_curve(maps: Floats, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixel F1 at each of the tried thresholds."""
    hits = np.array([(maps[masks] >= step).sum() for step in _STEPS])
    called = np.array([(maps >= step).sum() for step in _STEPS])
    return 2 * hits / (called + masks.sum())


def main() -> None:
    """Reads the command line and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fold", choices=sorted(FOLDS), required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    network = Network(0)
    network.load_state_dict(torch.load(args.run / "state.pt", weights_only=True)["average"])
    results = {}
    for name in ("rendered", *FOLDS[args.fold]):
        own = name != "rendered"
        images, masks = of_set(args.data, name, args.count, args.size) if own else rendered(args.count, args.size)
        results[name] = maps_of(network.eval(), images), masks
    curves = {name: f1_curve(*pair) for name, pair in results.items()}
    best = int(np.mean(list(curves.values()), axis=0).argmax())
    _log.info("threshold %.2f", _STEPS[best])
    for name, (maps, masks) in results.items():
        above = (maps >= _STEPS[best]).mean((1, 2)) > 0
        is_bad = masks.any((1, 2))
        shares = [100 * above[group].mean() if group.any() else float("nan") for group in (~is_bad, is_bad)]
        _log.info("%s F1 %.3f (best %.3f), marked: %.0f %% normal, %.0f %% abnormal",
                  name, curves[name][best], curves[name].max(), *shares)  # fmt: skip


if __name__ == "__main__":
    main()
