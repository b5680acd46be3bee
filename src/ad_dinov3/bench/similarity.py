"""Figure 1: how alike one patch is to all others, in frozen DINOv3 and after the adapter.

The patches are chosen by a rule: the anomalous one is the centre of the largest anomalous region's inside, the normal
one is the patch farthest from any anomaly. Cosine similarity is drawn from 0 to 1; below 0 is drawn as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ad_dinov3.bench.gallery import heat, outlined, sheet
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.ad_dinov3 import AdDinoV3, enlarged, pooled
from ad_dinov3.ops import on_grid
from ad_dinov3.types import Sample

_DOT = (230, 40, 40)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PatchTokens:
    """Tokens of one image's patches, (h, w, C) each: frozen ones of the last stage, and the same after the adapter."""

    frozen: Floats
    adapted: Floats


def patch_tokens(detector: Detector, image: NDArray[np.uint8]) -> PatchTokens:
    """Tokens of an image (H, W, 3) uint8.

    Raises:
        ConfigError: the model has no trained adapters.
    """
    head = detector.model.head
    if not isinstance(head, AdDinoV3):
        raise ConfigError(f"figure 1 needs a trained AD-DINOv3 model, got {detector.config.preset}")
    tensor = torch.from_numpy(detector.prepare(image))[None]
    with torch.inference_mode():
        features = detector.model.encoder.encode(tensor)
        stages = [tokens.float() for tokens in features.patch_tokens[-len(head.widths) :]]
        last = stages[-1]  # (1, h, w, C)
        coarse = [pooled(one, side) for one, side in zip(stages, head.pooling, strict=True)]
        side, own = head.pooling[-1], (coarse[-1].shape[1], coarse[-1].shape[2])
        adapted = on_grid(head.patch_adapters[-1](head.prepare(coarse)[-1]), own)
        adapted = enlarged(adapted, side, features.grid)[0].permute(1, 2, 0)
    return PatchTokens(last[0].cpu().numpy(), adapted.cpu().numpy())


def cosine_to(tokens: NDArray[np.floating], patch: tuple[int, int]) -> Floats:
    """Cosine similarity of the patch at (row, column) to every patch: (h, w) in [-1, 1] from tokens (h, w, C)."""
    length = np.linalg.norm(tokens, axis=-1, keepdims=True)
    unit = tokens / np.maximum(length, np.finfo(np.float32).tiny)
    similarity: Floats = (unit @ unit[patch]).astype(np.float32)
    return similarity.clip(-1.0, 1.0)


def choose_patches(mask: NDArray[np.bool_], grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(row, column) of the normal and of the anomalous patch by the rule above.

    Args:
        mask: ground truth (H, W).
        grid: (h, w) patches.

    Raises:
        DataError: the mask is empty or full.
    """
    if not mask.any() or mask.all():
        raise DataError("figure 1 needs an image with both anomalous and normal pixels")
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    largest = labels == np.argmax(np.bincount(labels[mask]))
    inside, outside = ndimage.distance_transform_edt(largest), ndimage.distance_transform_edt(~mask)
    return _patch_at(outside, grid), _patch_at(inside, grid)


def draw_similarity(detector: Detector, sample: Sample) -> Image.Image:
    """The figure: a row for the normal and one for the anomalous patch; ground truth, frozen encoder, adapted.

    Raises:
        ConfigError: the model has no trained adapters.
        DataError: the mask is empty or full.
    """
    image, mask = decode_image(sample.image_path), load_mask(sample)
    tokens = patch_tokens(detector, image)
    grid = tokens.frozen.shape[:2]
    rows = []
    for name, patch in zip(("normal patch", "anomalous patch"), choose_patches(mask, (grid[0], grid[1])), strict=True):
        pictures = [_dotted(outlined(image, mask), patch, grid)]
        for kind in (tokens.frozen, tokens.adapted):
            similarity = upsample(cosine_to(kind, patch), mask.shape)
            pictures.append(_dotted(heat(similarity), patch, grid))
        rows.append((name, pictures))
    return sheet(("image and truth", f"{detector.model.encoder.spec.name}, frozen", "AD-DINOv3, adapted"), rows)


def _patch_at(distance: NDArray[np.float64], grid: tuple[int, int]) -> tuple[int, int]:
    """The patch that holds the greatest distance."""
    row, column = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return int(row * grid[0] // distance.shape[0]), int(column * grid[1] // distance.shape[1])


def _dotted(picture: NDArray[np.uint8], patch: tuple[int, int], grid: tuple[int, ...]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    y, x = (patch[0] + 0.5) * height / grid[0], (patch[1] + 0.5) * width / grid[1]
    rows, columns = np.ogrid[:height, :width]
    dotted = picture.copy()
    distance = np.hypot(rows - y, columns - x)
    radius = max(height, width) * 0.02
    dotted[distance <= radius * 1.5] = 255
    dotted[distance <= radius] = _DOT
    return dotted
