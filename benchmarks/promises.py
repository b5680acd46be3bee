"""Whether a memory of good images keeps what it promises, on real images, with the memory that users get.

    python benchmarks/promises.py DATA --cache DIR --sets aws_cookies mtd ... [--model SET=MODEL ...]

200 times, n of a set's normal images are remembered and calibrated by themselves, each by a memory without it; the
share of other normal images above the threshold is the false-alarm rate. Images of one group (a patient, a place: what
a file's name tells) are drawn once, or with --ungrouped as if they were strangers. At most 100 normal images of a set
are encoded, once, and each one's distances to each other's remembered tokens are found once, so that a draw costs
minima, subspaces and joins. The first draw is compared with `infer.compared`'s own memory: both must agree.

With --few-places, good images of few groups calibrate instead, as if a whole film of one place were given: 1,000 times,
the zero-shot score's threshold is set by n images of as few groups as hold them, and tried on one of each other group.
This needs more images, and takes the cache of benchmarks/references.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.infer.decide import smooth, upsample
from ad_dinov3.references.conformal import promise_for, threshold
from ad_dinov3.references.memory import MOST_TOKENS, Moments, nearest
from ad_dinov3.references.normals import Known, KnownNormals, Scale, log_odds, squashed
from ad_dinov3.references.tokens import Floats
from references import Encoded, command_line, each_set, within

COUNTS = {10: (0.1,), 20: (0.1, 0.05), 59: (0.1, 0.05)}
"""Good images -> rates to promise."""
MOST_NORMAL, MOST_TESTED = 100, 25


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distances (N, N, T) of each token of one image to the nearest remembered token of another, and moments."""

    near: NDArray[np.float16]
    moments: Sequence[Moments]


def pairs_of(images: Sequence[Floats], count: int) -> Pairs:
    """Of images (T, D), each remembered as one of ``count`` are."""
    share = MOST_TOKENS // count
    tokens = len(images[0])
    kept = np.sort(np.random.default_rng(tokens).permutation(tokens)[:share])
    banks = [np.ascontiguousarray(one[kept].astype(np.float16).astype(np.float32).T) for one in images]
    near = np.stack([np.stack([nearest(one, bank) for bank in banks]).astype(np.float16) for one in images])
    return Pairs(near, [Moments.of(one) for one in images])


def draw_scores(
    encoded: Encoded, images: Sequence[Floats], pairs: Pairs, normals: Sequence[int], tested: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Scores of n normal images by memories without them, and of tested images by the memory of all n."""
    whole = sum((pairs.moments[one] for one in normals[1:]), pairs.moments[normals[0]])
    energy = 0.99 if len(normals) >= 4 else 0.95
    parts = []
    for one in normals:
        others = [other for other in normals if other != one]
        rest = (whole - pairs.moments[one]).subspace(energy).residual(images[one])
        parts.append((pairs.near[one, others].min(axis=0).astype(np.float32), rest))
    scales = [max(float(np.median(np.concatenate(part))), 1e-6) for part in zip(*parts, strict=True)]
    left_out = [(near / scales[0] + rest / scales[1]) / 2 for near, rest in parts]
    far = Scale.of_normal(np.concatenate(left_out))
    zero_shot = Scale.of_normal(log_odds(encoded.zero_shot[list(normals)]))
    subspace = whole.subspace(energy)
    found = [
        (pairs.near[one, normals].min(axis=0) / scales[0] + subspace.residual(images[one]) / scales[1]) / 2
        for one in tested
    ]

    def peak(distances: Floats, index: int) -> float:
        grid, size = encoded.grid, encoded.zero_shot.shape[1:]
        one = upsample(smooth(far(distances).reshape(1, *grid), 0.5 / grid[0])[0], size)
        return float(squashed((one + zero_shot(log_odds(encoded.zero_shot[index]))) * np.float32(0.5)).max())

    return (
        [peak(distances, one) for distances, one in zip(left_out, normals, strict=True)],
        [peak(distances, one) for distances, one in zip(found, tested, strict=True)],
    )


def as_users_get_it(
    encoded: Encoded, images: Sequence[Floats], normals: Sequence[int], tested: Sequence[int]
) -> tuple[list[float], list[float]]:
    """The same by the library's own memory, slowly."""
    both = KnownNormals([images[one] for one in normals], list(encoded.zero_shot[list(normals)]))

    def peak(known: Known, index: int) -> float:
        grid, size = encoded.grid, encoded.zero_shot.shape[1:]
        far = known.distances(images[index].reshape(*grid, -1))
        return float(known.join(upsample(smooth(far[None], 0.5 / grid[0])[0], size), encoded.zero_shot[index]).max())

    left_out = [peak(both.known(without=place), one) for place, one in enumerate(normals)]
    return left_out, [peak(both.known(), one) for one in tested]


def simulate(encoded: Encoded, count: int, draws: int, grouped: bool) -> list[str]:
    """One line for each promised rate."""
    images = [encoded.of(index) for index in np.flatnonzero(~encoded.is_bad)]
    names = encoded.groups[~encoded.is_bad] if grouped else np.array([str(index) for index in range(len(images))])
    groups = np.unique(names)
    if len(groups) < count + 5:
        return []
    pairs = pairs_of(images, count)
    rates: dict[float, list[float]] = {rate: [] for rate in COUNTS[count]}
    draw = np.random.default_rng(count)
    for number in range(draws):
        picked = [int(draw.choice(np.flatnonzero(names == group))) for group in draw.permutation(groups)]
        normals, tested = picked[:count], picked[count : count + MOST_TESTED]
        known, found = draw_scores(encoded, images, pairs, normals, tested)
        if number == 0:
            slowly = as_users_get_it(encoded, images, normals, tested)
            np.testing.assert_allclose(np.concatenate([known, found]), np.concatenate(slowly), atol=2e-3)
        for rate, values in rates.items():
            values.append(float(np.mean(np.array(found) > threshold(known, promise_for(rate, count)))))
    lines = []
    for rate, values in rates.items():
        promise = promise_for(rate, count)
        bound = within(promise, min(MOST_TESTED, len(groups) - count))
        share = np.mean(np.array(values) <= bound)
        lines.append(
            f"n = {count}, promised {promise.rate:.1%}: {np.mean(values):.1%} on average, {share:.0%} of {draws} draws "
            f"within the 95 % bound of {bound:.0%}"
        )
    return lines


def few_places(encoded: Encoded, count: int, rate: float = 0.1, draws: int = 1000) -> str:
    """One line: false alarms of other groups where good images of few groups calibrate the zero-shot score."""
    draw = np.random.default_rng(count)
    good = np.flatnonzero(~encoded.is_bad)
    members = [good[encoded.groups[good] == group] for group in np.unique(encoded.groups[good])]
    promise = promise_for(rate, count)
    rates, used = [], []
    for _ in range(draws):
        order = [members[index] for index in draw.permutation(len(members))]
        enough = int(np.searchsorted(np.cumsum([len(one) for one in order]), count)) + 1
        if len(order) - enough < 4:
            continue
        level = threshold(encoded.scores[draw.permutation(np.concatenate(order[:enough]))[:count]], promise)
        rates.append(np.mean([encoded.scores[draw.choice(group)] > level for group in order[enough:]]))
        used.append(enough)
    return (
        f"n = {count} of {np.mean(used):.1f} groups of {len(members)}, promised {promise.rate:.1%}: "
        f"{np.mean(rates):.1%} of other groups' images flagged in {len(rates)} draws"
    )


def main() -> None:
    """Reads the command line and prints a few lines for each set."""
    parser = command_line(__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--ungrouped", action="store_true", help="near-duplicates are drawn as if they were strangers")
    parser.add_argument("--few-places", action="store_true", help="good images of few groups calibrate")
    arguments = parser.parse_args()
    if arguments.few_places:
        for name, encoded in each_set(arguments):
            print(name, *(few_places(encoded, count) for count in (10, 20)), sep="\n  ", flush=True)
        return
    for name, encoded in each_set(arguments, (MOST_NORMAL, 40)):
        print(f"{name}: {np.sum(~encoded.is_bad)} normal images", flush=True)
        for count in COUNTS:
            for line in simulate(encoded, count, arguments.draws, not arguments.ungrouped):
                print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
