"""Makes 0.5 the threshold of a model: `python -m recipes.embedded.calibrate --model DIR [--data SET ...]`.

Two numbers are chosen on labelled images, each as the best compromise over the sources (every data set given, and
rendered images from seeds that no training used): the map value with the highest mean pixel F1, and the image score
with the highest mean balanced accuracy. The first is taken from the stages' biases, the second becomes the score's
offset, so that one threshold, 0.5, serves map and score. No ranking within a map changes.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ad_dinov3.data.catalog import read_data
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask, resize_mask
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import load_model, save_model
from recipes.synthetic import render

_UNSEEN_SEED = 2_000_003
_SIDE_PX = 256
_STEPS = np.linspace(-4.0, 8.0, 121)  # logits
_LOG = logging.getLogger("calibrate")

Labelled = list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]


def of_set(spec: str, count: int) -> Labelled:
    """Up to ``count`` images of a data set with masks, half of them normal where it has normal images."""
    samples = read_data(spec)
    groups = ([s for s in samples if not s.is_anomalous], [s for s in samples if s.is_anomalous])
    chosen = [group[i * len(group) // count] for group in groups for i in range(0, count, 2) if group]
    return [(decode_image(s.image_path), load_mask(s, (_SIDE_PX, _SIDE_PX))) for s in chosen]


def rendered(count: int) -> Labelled:
    """Rendered images with masks, half of them normal."""
    scenes = [render(_UNSEEN_SEED + i, _SIDE_PX, defect="good" if i % 2 else None) for i in range(count)]
    return [(scene.image, resize_mask(scene.mask, (_SIDE_PX, _SIDE_PX))) for scene in scenes]


def best_steps(detector: Detector, sources: Sequence[Labelled]) -> tuple[float, float]:
    """The logits that the map and the score are best cut at."""
    f1, accuracy = [], []
    for source in sources:
        batch = np.stack([detector.prepare(image) for image, _ in source])
        raw = [detector.score(batch[i : i + 8], ["object"] * len(batch[i : i + 8])) for i in range(0, len(batch), 8)]
        maps = logits(np.stack([upsample(m, (_SIDE_PX, _SIDE_PX)) for part in raw for m in part.maps]))
        scores = logits(np.concatenate([part.scores for part in raw]))
        masks = np.stack([mask for _, mask in source])
        abnormal = masks.any((1, 2))
        hits = np.array([(maps[masks] >= step).sum() for step in _STEPS])
        called = np.array([(maps >= step).sum() for step in _STEPS])
        f1.append(2 * hits / (called + masks.sum()))
        if not abnormal.all():
            found = np.array([(scores[abnormal] >= step).mean() for step in _STEPS])
            passed = np.array([(scores[~abnormal] < step).mean() for step in _STEPS])
            accuracy.append((found + passed) / 2)
    _LOG.info("pixel F1 at the cut: %s", [round(float(c[np.mean(f1, 0).argmax()]), 3) for c in f1])
    _LOG.info("balanced accuracy: %s", [round(float(c[np.mean(accuracy, 0).argmax()]), 3) for c in accuracy])
    return float(_STEPS[np.mean(f1, 0).argmax()]), float(_STEPS[np.mean(accuracy, 0).argmax()])


def logits(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits of probabilities."""
    clipped = np.clip(values.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def main() -> None:
    """Reads the command line and writes the model anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", nargs="*", default=[], help="data sets of the model's training side")
    parser.add_argument("--count", type=int, default=60, help="images of each source")
    parser.add_argument("--card", type=Path, help="Markdown that goes into the model card")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    model = load_model(arguments.model, offline=True)
    if not isinstance(model.head, AdDinoV3):
        raise SystemExit(f"{arguments.model}: expected an AD-DINOv3 head")
    sources = [rendered(arguments.count), *(of_set(spec, arguments.count) for spec in arguments.data)]
    map_step, _ = best_steps(Detector(model, offline=True), sources)
    with torch.no_grad():
        model.head.bias += map_step
    _, score_step = best_steps(Detector(model, offline=True), sources)
    offset = model.config.method.score_offset + score_step
    config = model.config.with_settings({"method.score_offset": round(offset, 3), "threshold": 0.5})
    card = arguments.card.read_text() if arguments.card else ""
    save_model(type(model)(config, model.encoder, model.head, model.training_images), arguments.model, card)
    _LOG.info("map moved by %.2f, score by %.2f (logits)", map_step, offset)


if __name__ == "__main__":
    main()
