"""Makes 0.5 the threshold of a model: `python -m recipes.embedded.calibrate --fold A MODEL ... --move MODEL TO ...`.

Each fold's model scores the kinds that it has not seen. Two logits are chosen on them: the image score above which, in
the mean over the kinds, one normal image in ten lies, and the map value with the highest mean pixel F1. The first
becomes the score's offset, the second is taken from the stages' biases, so that one threshold serves both; no ranking
changes. How well a cut holds on a kind that it was not chosen on is told by choosing it on the other kinds.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ad_dinov3.data.catalog import read_data
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.masks import load_mask
from ad_dinov3.files import write_text
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.ad_dinov3 import AdDinoV3
from ad_dinov3.model import load_model, save_model
from recipes.embedded.package import CARD
from recipes.embedded.samples import SETS, SIZE
from recipes.embedded.train import FOLDS

FALSE_ALARMS = 0.1
_STEPS = np.linspace(-4.0, 8.0, 241)  # logits
_LOG = logging.getLogger("calibrate")


@dataclass(frozen=True)
class Kind:
    """What a model says of a kind of images that it has not seen.

    Attributes:
        name: of the data set.
        highest: (N, K) logits of the cells that each image's score is the mean of.
        anomalous: (N,) bool.
        f1: pixel F1 of the maps cut at each of the steps.
    """

    name: str
    highest: NDArray[np.float64]
    anomalous: NDArray[np.bool_]
    f1: NDArray[np.float64]

    def rates(self, on_map: float, cut: float) -> tuple[float | None, float]:
        """Share of normal images called anomalous, None without normal images; and of anomalous ones found.

        Args:
            on_map: what is taken from the maps, in logits.
            cut: logit of the image score on such maps.
        """
        called = logits((1 / (1 + np.exp(on_map - self.highest))).mean(1)) >= cut
        alarms = None if self.anomalous.all() else float(called[~self.anomalous].mean())
        return alarms, float(called[self.anomalous].mean())


def judged(detector: Detector, spec: str, count: int) -> Kind:
    """A kind by up to ``count`` normal and as many anomalous images, evenly chosen."""
    samples = read_data(spec)
    groups = ([s for s in samples if not s.is_anomalous], [s for s in samples if s.is_anomalous])
    chosen = [group[i * len(group) // count] for group in groups if group for i in range(min(count, len(group)))]
    highest, hits, called, anomalous = [], np.zeros(len(_STEPS)), np.zeros(len(_STEPS)), 0
    for sample in chosen:
        raw = detector.score(detector.prepare(decode_image(sample.image_path))[None], ["object"])
        cells = np.sort(logits(raw.maps[0]).ravel())[::-1]
        highest.append(cells[: max(1, round(detector.config.method.top_fraction * cells.size))])
        values = logits(upsample(raw.maps[0], (SIZE, SIZE)))
        mask = load_mask(sample, (SIZE, SIZE))
        hits += [(values[mask] >= step).sum() for step in _STEPS]
        called += [(values >= step).sum() for step in _STEPS]
        anomalous += int(mask.sum())
    label = np.array([sample.is_anomalous for sample in chosen])
    return Kind(Path(spec).name, np.stack(highest), label, 2 * hits / (called + anomalous))


def logits(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits of probabilities."""
    clipped = np.clip(values.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def map_cut(kinds: Sequence[Kind]) -> float:
    """The step with the highest mean pixel F1."""
    return float(_STEPS[np.mean([kind.f1 for kind in kinds], 0).argmax()])


def score_cut(kinds: Sequence[Kind], on_map: float) -> float:
    """The lowest step at which, in the mean over the kinds, at most one normal image in ten is called anomalous."""
    alarms = np.array([[kind.rates(on_map, step)[0] for kind in kinds if not kind.anomalous.all()] for step in _STEPS])
    return float(_STEPS[np.argmax(alarms.mean(1) <= FALSE_ALARMS)])


def held_out(kinds: Sequence[Kind], on_map: float) -> dict[str, tuple[float | None, float]]:
    """False alarms and recall of each kind with normal images, at the cut that the other kinds choose."""
    return {
        kind.name: kind.rates(on_map, score_cut([other for other in kinds if other is not kind], on_map))
        for kind in kinds
        if not kind.anomalous.all()
    }


def move(folder: Path, to: Path, on_map: float, on_score: float) -> None:
    """Save a model anew with 0.5 as its threshold: maps lowered by ``on_map`` logits, the score's cut on those."""
    model = load_model(folder, offline=True)
    if not isinstance(model.head, AdDinoV3):
        raise SystemExit(f"{folder}: expected an AD-DINOv3 head")
    with torch.no_grad():
        model.head.bias += on_map
    config = model.config.with_settings({"method.score_offset": round(on_score, 3), "threshold": 0.5})
    save_model(type(model)(config, model.encoder, model.head, model.training_images), to, CARD.read_text())


def main() -> None:
    """Reads the command line, moves the models' thresholds and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--fold", nargs=2, action="append", metavar=("FOLD", "MODEL"), required=True)
    parser.add_argument(
        "--move", type=Path, nargs=2, action="append", metavar=("MODEL", "TO"), required=True, help="TO is written"
    )
    parser.add_argument("--count", type=int, default=60, help="normal and anomalous images of each kind")
    parser.add_argument("--report", type=Path, required=True, help="JSON file of the cuts and what they give")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    kinds = []
    for fold, model in arguments.fold:
        detector = Detector(load_model(model, offline=True), offline=True)
        unseen = [name for name in SETS if name not in FOLDS[fold]]
        kinds += [judged(detector, str(arguments.data / name), arguments.count) for name in unseen]
    on_map = map_cut(kinds)
    on_score = score_cut(kinds, on_map)
    at_cut = {kind.name: kind.rates(on_map, on_score) for kind in kinds}
    report = {"map": on_map, "score": on_score, "rates": at_cut, "rates_by_the_others": held_out(kinds, on_map)}
    _LOG.info("%s", json.dumps(report, indent=2))
    for folder, to in arguments.move:
        move(folder, to, on_map, on_score)
    write_text(arguments.report, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
