"""Whether good images, or a batch, can tell beforehand that references will hurt.

    python benchmarks/trust.py DATA --cache DIR --sets ... [--model SET=MODEL ...] [--parts normals drawn batch]

Eight normal images a draw, drawn and measured as benchmarks/references.py does it, with its cache. "normals" prints
what the good images show of themselves. "drawn" draws defects into each of them (those that heads are trained with),
scores them by the memory without that image, and holds what this says of the two maps, and of weights between them,
against what is true of real defects. "batch" chooses the map that puts more of a batch above the good images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).parents[1]))

from ad_dinov3.data.decode import decode_image
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.references.mutual import compare_folder, content_digest
from ad_dinov3.references.normals import KnownNormals, log_odds, squashed
from ad_dinov3.references.tokens import Floats
from recipes.synthetic.drawn import add_defect
from references import DRAWS, SIDE, Encoded, Maps, auroc_of, command_line, draw_normals, each_set, files_of, measured

COUNT, EACH, STRENGTHS = 8, 4, (1.0, 0.35)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the zero-shot map."""
_DRAWN = [f"{kind} {which}" for kind in ("image", "pixel") for which in ("drawn", "faint", "true")]
_ALONE = [f"{title}: {which}" for title in _DRAWN for which in ("zero-shot", "distances")]
_JOINED = [f"{kind}: {weight}" for kind in ("image", "pixel") for weight in ("1/2", "chosen", "3/4 zero-shot")]
PARTS = {
    "normals": ["peaks", "variation", "likeness"],
    "drawn": [*_ALONE, *_JOINED],
    "batch": ["above, zero-shot", "above, joined", "rank correlation", "zero-shot", "joined", "chosen"],
}
"""Part -> what its figures are."""


def both_maps(both: KnownNormals, images: Encoded, places: Sequence[int], without: Sequence[int | None]) -> Maps:
    """Deviations (2, N, h, w) of some images: the distance from a memory, perhaps without one image, and zero-shot."""
    known = {place: both.known(without=place) for place in set(without)}
    scale = known[without[0]].zero_shot
    tokens = [images.of(index).reshape(*images.grid, -1) for index in places]
    far = [gaussian_filter(known[place].distances(one), 0.5) for one, place in zip(tokens, without, strict=True)]
    return np.stack([np.stack(far), scale(log_odds(images.zero_shot[list(places)]))])


def weighed(maps: Maps, images: Encoded, test: Sequence[int]) -> Floats:
    """Image and pixel AUROC (5, 2) of the two maps with each weight of the zero-shot map, by peaks."""
    joined = [squashed((1 - weight) * maps[0] + weight * maps[1]) for weight in WEIGHTS]
    return np.array([measured(one, images, test) for one in joined], np.float32)


def drawn(paths: Sequence[Path], detector: Detector, seed: int, strength: float) -> Encoded:
    """The images, and each with a few defects drawn into it; a group is an image and its defective copies."""
    rng = np.random.default_rng(seed)
    plain = [detector.prepare(decode_image(path)).transpose(1, 2, 0) / np.float32(255) for path in paths]
    pictures, masks = list(plain), [np.zeros(plain[0].shape[:2], np.float32)] * len(plain)
    for picture in plain:
        for _ in range(EACH):
            mask = masks[0]
            while not mask.any():
                changed, mask = add_defect(rng, picture, lambda: plain[rng.integers(len(plain))])
            pictures.append(picture + strength * (changed - picture))
            masks.append(mask)
    batch = np.rint(np.stack(pictures).transpose(0, 3, 1, 2) * 255).astype(np.uint8)
    answers = [detector.answer(batch[start : start + 8], ["object"] * 8) for start in range(0, len(batch), 8)]
    step = len(masks[0]) // SIDE
    return Encoded(
        np.concatenate([one.tokens for one in answers]).astype(np.float16),
        np.concatenate([one.scores.maps for one in answers]),
        np.concatenate([one.scores.scores for one in answers]).astype(np.float64),
        np.stack(masks)[:, ::step, ::step] > 0,
        np.arange(len(batch)) >= len(plain),
        np.array([str(place) for place in [*range(len(plain)), *np.repeat(range(len(plain)), EACH)]]),
    )


def of_normals(encoded: Encoded, seed: int) -> list[float]:
    """Median left-out peak of distances over that of the zero-shot map, variation of the former, likeness."""
    normals = draw_normals(encoded, COUNT, seed)[0]
    both = KnownNormals([encoded.of(index) for index in normals], list(encoded.zero_shot[normals]))
    far, zero_shot = both_maps(both, encoded, normals, list(range(COUNT))).max(axis=(2, 3))
    digests = [content_digest(encoded.tokens[index].tobytes()) for index in normals]
    found = compare_folder(lambda place: encoded.of(normals[place]), digests)
    ratio = float(np.median([one.ratio for one in found]))
    return [float(np.median(far) / np.median(zero_shot)), float(far.std() / np.median(far)), ratio]


def of_drawn(encoded: Encoded, seed: int, paths: Sequence[Path], detector: Detector) -> list[float]:
    """Test of zero-shot and distances at both strengths, and the truth; that of weights 1/2, as chosen, and 3/4."""
    normals, test = draw_normals(encoded, COUNT, seed)
    both = KnownNormals([encoded.of(index) for index in normals], list(encoded.zero_shot[normals]))
    true = weighed(both_maps(both, encoded, test, [None] * len(test)), encoded, test)
    tests = []
    for strength in STRENGTHS:
        images = drawn([paths[index] for index in normals], detector, seed, strength)
        every = list(range(len(images.tokens)))
        tests.append(weighed(both_maps(both, images, every, [int(group) for group in images.groups]), images, every))
    best = np.mean(tests, axis=0).argmax(axis=0)
    columns = [one[place, kind] for kind in (0, 1) for one in (*tests, true) for place in (-1, 0)]
    return [*columns, true[2, 0], true[best[0], 0], true[3, 0], true[2, 1], true[best[1], 1], true[3, 1]]


def of_batch(encoded: Encoded, seed: int) -> list[float]:
    """How often a batch lies above the good images by either map, their rank correlation; AUROC of both and chosen."""
    normals, others = draw_normals(encoded, COUNT, seed)
    mixed = np.random.default_rng(seed).permutation(others)
    test = np.concatenate([mixed[encoded.is_bad[mixed] == bad][:most] for bad, most in ((False, 30), (True, 15))])
    both = KnownNormals([encoded.of(index) for index in normals], list(encoded.zero_shot[normals]))
    good = both_maps(both, encoded, normals, list(range(COUNT))).mean(axis=0).max(axis=(1, 2))
    joined = both_maps(both, encoded, test.tolist(), [None] * len(test)).mean(axis=0).max(axis=(1, 2))
    scores = [(encoded.scores[test], encoded.scores[normals]), (joined, good)]
    above = [float(np.mean(batch[:, None] > calm)) for batch, calm in scores]
    aurocs = [auroc_of(batch, encoded.is_bad[test]) for batch, _ in scores]
    return [*above, float(spearmanr(scores[0][0], joined).statistic), *aurocs, aurocs[int(above[1] >= above[0])]]


def main() -> None:
    """Reads the command line and prints a Markdown row for each part of each set, and their mean."""
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    arguments = parser.parse_args()
    models = dict(word.split("=", 1) for word in arguments.model)
    rows: dict[str, list[Floats]] = {part: [] for part in arguments.parts}
    for part in rows:
        print(f"| {part} | set | {' | '.join(PARTS[part])} |")
    for name, encoded in each_set(arguments):
        detector, paths = load(models.get(name, "embedded"), offline=True), files_of(arguments.data / name)[0]
        if not isinstance(detector, Detector):
            parser.error(f"the model of {name}: expected one for torch")
        ways: dict[str, Callable[[Encoded, int], list[float]]] = {
            "normals": of_normals,
            "drawn": partial(of_drawn, paths=paths, detector=detector),
            "batch": of_batch,
        }
        for part, values in rows.items():
            values.append(np.mean([ways[part](encoded, seed) for seed in range(DRAWS)], axis=0))
            print(f"| {part} | {name} | {' | '.join(f'{value:.3f}' for value in values[-1])} |", flush=True)
    for part, values in rows.items():
        print(f"| {part} | mean | {' | '.join(f'{value:.3f}' for value in np.mean(values, axis=0))} |")


if __name__ == "__main__":
    main()
