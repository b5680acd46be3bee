"""By what two maps are divided before they are added, and how the joined map becomes one image score.

    python benchmarks/joining.py DATA --cache DIR --sets ... [--model SET=MODEL ...] [--rules ...] [--counts 8]

Both maps, the distance from a memory of normal images and the log odds of the zero-shot map, are put on one scale by
what they are on the normal images, and averaged. A rule makes that scale; the library's is "largest tenth". Images are
drawn and measured as benchmarks/references.py does it, with its cache. Nothing is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ad_dinov3.infer.decide import upsample
from ad_dinov3.references.memory import Remembered
from ad_dinov3.references.normals import Scale, log_odds, squashed
from ad_dinov3.references.tokens import Floats
from references import (
    DRAWS,
    Encoded,
    Maps,
    Metrics,
    Rule,
    auroc_of,
    command_line,
    draw_normals,
    each_set,
    folder,
    measured,
)

Scores = NDArray[np.floating]


def _excess(normal: Floats, share: float) -> Scale:
    """How far the largest share of all values lies above the rest, in the mean."""
    level = np.quantile(normal, 1 - share)
    return Scale(float(np.median(normal)), float(np.maximum(normal - level, 0).mean()) / share)


def _excess_of_each(normal: Floats, common: bool) -> Scale:
    """The same of each image's largest tenth, or of what it has above the common quantile, in the median image."""
    level = np.quantile(normal, 0.9) if common else np.quantile(normal, 0.9, axis=1, keepdims=True)
    excess = np.maximum(normal - level, 0).mean(axis=1) / 0.1
    return Scale(float(np.median(normal)), max(float(np.median(excess)), 1e-6))


def _peaks(normal: Floats, of_peaks: Callable[[Floats], np.floating]) -> Scale:
    """Something of how far the images' peaks lie above the middle of all values."""
    middle = float(np.median(normal))
    return Scale(middle, max(float(of_peaks(normal.max(axis=1) - middle)), 1e-6))


def _rarity(normal: Floats) -> Callable[[Floats], Floats]:
    """Minus the logarithm of the share of values as large; beyond the 90 % quantile the tail is exponential."""
    ordered, level = np.sort(normal, axis=None), np.quantile(normal, 0.9)
    mean_excess = _excess(normal, 0.1).deviation

    def deviations(values: Floats) -> Floats:
        share = 1 - np.searchsorted(ordered, np.minimum(values, level)) / len(ordered)
        rare: Floats = (np.maximum(values - level, 0) / mean_excess - np.log(np.maximum(share, 0.1))).astype(np.float32)
        return rare

    return deviations


RULES: Mapping[str, Rule] = {
    "1.4826 MAD": Scale.of,
    **{f"largest {name}": partial(_excess, share=share) for name, share in (("half", 0.5), ("fifth", 0.2))},
    "largest tenth": Scale.of_normal,
    "largest twentieth": partial(_excess, share=0.05),
    "tenth of the median image": partial(_excess_of_each, common=False),
    "above a common quantile, median image": partial(_excess_of_each, common=True),
    "median of the peaks": partial(_peaks, of_peaks=np.median),
    "spread of the peaks": partial(_peaks, of_peaks=np.std),
    "tenth, and ranks below": _rarity,
}


def _largest(maps: Maps, share: float) -> Scores:
    """Mean of the largest share of each map's log odds, of one at least."""
    flat = log_odds(maps).reshape(len(maps), -1)
    count = max(1, int(share * flat.shape[1]))
    return np.asarray(np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1))


SCORES: Mapping[str, Callable[[Maps], Scores]] = {
    "peak": lambda maps: maps.max(axis=(1, 2)),
    "peak, smoothed by 0.7 cells more": lambda maps: gaussian_filter(maps, (0, 0.7, 0.7)).max(axis=(1, 2)),
    **{f"largest {share:.1%}": partial(_largest, share=share) for share in (0.002, 0.005, 0.01, 0.02, 0.05)},
}
"""How the joined maps become image scores."""


def joined_maps(encoded: Encoded, normals: list[int], test: list[int], rules: list[str]) -> dict[str, Maps]:
    """Rule -> joined maps (N, h, w) of the tested images, in [0, 1)."""
    remembered = Remembered([encoded.of(index) for index in normals])
    memory, size = remembered.memory(), encoded.zero_shot.shape[1:]
    far = [gaussian_filter(memory.distances(encoded.of(index)).reshape(encoded.grid), 0.5) for index in test]
    odds, normal_odds = log_odds(encoded.zero_shot[test]), log_odds(encoded.zero_shot[normals])
    found = {}
    for title in rules:
        scales = RULES[title](np.stack(remembered.left_out)), RULES[title](normal_odds.reshape(len(normals), -1))
        both = [upsample(scales[0](one), size) + scales[1](zero) for one, zero in zip(far, odds, strict=True)]
        found[title] = squashed(np.stack(both) * np.float32(0.5))
    return found


def compared(encoded: Encoded, seed: int, count: int, rules: list[str]) -> dict[str, Metrics]:
    """Image and pixel AUROC of each rule, and of the library's with each image score, in one draw of normal images."""
    normals, test = draw_normals(encoded, count, seed)
    is_bad, maps = encoded.is_bad[test], joined_maps(encoded, normals, test, rules)
    pixel = measured(encoded.zero_shot[test], encoded, test)[1]
    found = {"zero-shot": (auroc_of(encoded.scores[test], is_bad), pixel)}
    found |= {title: measured(one, encoded, test) for title, one in maps.items()}
    if "largest tenth" in maps:
        scores = {title: score(maps["largest tenth"]) for title, score in SCORES.items()}
        found |= {f"score: {title}": (auroc_of(one, is_bad), float("nan")) for title, one in scores.items()}
    return found


def in_folder(encoded: Encoded, seed: int, rules: list[str]) -> dict[str, Metrics]:
    """The same where a folder is compared with itself, and its own images are what both maps are scaled by."""
    found = folder(encoded, seed, {title: RULES[title] for title in rules})
    return {title: found[title] for title in ("zero-shot", *rules)}


def print_table(found: Mapping[str, Mapping[str, Metrics]], heading: str) -> None:
    """Image / pixel AUROC of each set, their mean, and the worst set beside zero-shot alone, as Markdown."""
    print(f"\n| {heading} | {' | '.join(found)} | mean | worst |", "|---" * (len(found) + 3) + "|", sep="\n")
    first = np.array([one["zero-shot"] for one in found.values()])
    for title in next(iter(found.values())):
        values = np.array([one[title] for one in found.values()])
        cells = [*values, values.mean(axis=0), (values - first).min(axis=0)]
        print(f"| {title} | {' | '.join(f'{image:.3f} / {pixel:.3f}' for image, pixel in cells)} |", flush=True)


def main() -> None:
    """Reads the command line and prints a table for each number of normal images."""
    parser = command_line(__doc__)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--counts", nargs="+", type=int, default=[8])
    parser.add_argument("--folder", action="store_true", help="without normal images: folders compared with themselves")
    arguments = parser.parse_args()
    ways: dict[str, Callable[[Encoded, int], dict[str, Metrics]]] = {
        f"{count} normal": partial(compared, count=count, rules=arguments.rules) for count in arguments.counts
    }
    if arguments.folder:
        ways = {"folder": partial(in_folder, rules=arguments.rules)}
    for heading, way in ways.items():
        found = {}
        for name, encoded in each_set(arguments):
            draws = [way(encoded, seed) for seed in range(DRAWS)]
            found[name] = {title: (*np.mean([one[title] for one in draws], axis=0),) for title in draws[0]}
        print_table(found, heading)


if __name__ == "__main__":
    main()
