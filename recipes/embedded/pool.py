"""Drawn once, encoded once: the pairs of a pool as the frozen backbone's tokens on disk.

pool/NAME/tokens_0.npy ...   (N, h_l, w_l, C_l) float16, as the head sees each stage; 2i and 2i + 1 are a pair
pool/NAME/masks.npy          (N, 64, 64) uint8, share of each 4 x 4 px that is anomalous, of 255
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.methods.ad_dinov3 import pooled
from recipes.embedded.samples import SETS, SIZE, pairs_of, photographs

CONFIG = PRESETS["embedded"]
PAIRS = {"rendered": 1050, "photo": 1000, "plain": 300} | dict.fromkeys(SETS, 300)
MASK_CELL_PX = 4
_BATCH_PAIRS = 8
_LOG = logging.getLogger("pool")


@dataclass(frozen=True)
class Pool:
    """A finished pool, memory-mapped.

    Attributes:
        name: of the pool.
        tokens: of each stage.
        masks: see above.
    """

    name: str
    tokens: tuple[NDArray[np.float16], ...]
    masks: NDArray[np.uint8]

    def pairs(self, chosen: NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """Tokens (2K, h_l, w_l, C_l) of each stage and masks (2K, 64, 64) in [0, 1] of K pairs."""
        rows = np.stack([2 * chosen, 2 * chosen + 1], 1).ravel()
        tokens = [torch.from_numpy(stage[rows]).float() for stage in self.tokens]
        return tokens, torch.from_numpy(self.masks[rows]).float() / 255

    def __len__(self) -> int:
        return len(self.masks) // 2


def open_pool(folder: Path) -> Pool:
    """A pool that `fill_pool` has written."""
    stages = sorted(folder.glob("tokens_*.npy"), key=lambda path: int(path.stem.partition("_")[2]))
    return Pool(folder.name, tuple(np.load(path, mmap_mode="r") for path in stages), np.load(folder / "masks.npy"))


def fill_pool(root: Path, name: str, folder: Path, count: int) -> None:
    """Draw and encode ``count`` pairs into ``folder``, unless it is there; it appears when it is whole."""
    if folder.is_dir() or (name == "photo" and not photographs(root)):
        return
    started, draw = time.monotonic(), pairs_of(root, name)
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    masks = np.zeros((2 * count, SIZE // MASK_CELL_PX, SIZE // MASK_CELL_PX), np.uint8)
    tokens: list[NDArray[np.float16]] = []
    for first in range(0, count, _BATCH_PAIRS):
        batch = [sample for i in range(first, min(first + _BATCH_PAIRS, count)) for sample in draw(i)]
        rows = slice(2 * first, 2 * first + len(batch))
        masks[rows] = [_shares(mask) for _, mask in batch]
        images = np.stack([np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8) for image, _ in batch])
        for stage, values in enumerate(encoded(images)):
            if first == 0:
                shape = (2 * count, *values.shape[1:])
                tokens.append(np.lib.format.open_memmap(unfinished / f"tokens_{stage}.npy", "w+", np.float16, shape))
            tokens[stage][rows] = values.numpy()
    np.save(unfinished / "masks.npy", masks)
    os.replace(unfinished, folder)
    _LOG.info("%s: %d pairs, %.0f s", name, count, time.monotonic() - started)


@torch.no_grad()
def encoded(images: NDArray[np.uint8]) -> list[Tensor]:
    """Pooled tokens of each stage as float16, of images (B, S, S, 3)."""
    features = _ENCODER.encode(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    stages = zip(features.patch_tokens, CONFIG.method.pooling, strict=True)
    return [pooled(patch, side).half().contiguous() for patch, side in stages]


def _shares(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    side = len(mask) // MASK_CELL_PX
    cells = (mask > 0.35).reshape(side, MASK_CELL_PX, side, MASK_CELL_PX)
    return (cells.mean((1, 3)) * 255).astype(np.uint8)


_ENCODER = load_backbone(CONFIG.encoder, offline=True)


def main() -> None:
    """Reads the command line and fills what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--to", type=Path, required=True, help="folder of the pools; 0.3 MB an image")
    parser.add_argument("--at-most", type=int, default=max(PAIRS.values()), help="pairs in each pool")
    parser.add_argument("names", nargs="*", default=list(PAIRS), help="which pools; by default all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    for name in arguments.names:
        fill_pool(arguments.data, name, arguments.to / name, min(PAIRS[name], arguments.at_most))


if __name__ == "__main__":
    main()
