"""Whether turned copies, windows of places or registration help a memory of good images, and whether these can tell.

    python benchmarks/alignment.py DATA --cache DIR --sets ... [--model SET=MODEL ...]

Eight normal images, at most 15 normal and 15 anomalous others of each set, drawn and measured as
benchmarks/references.py does it, with its cache. Each rule changes where the nearest token is looked for: in copies of
the normal images turned by 90, 180 and 270 degrees too; at most two cells from the same place; or so after each normal
image was moved by the whole cells, at most eight, that make it most similar. The good images decide by their left-out
distances: turned copies are kept if these fall by 10 %, windows if they grow by less than 15 %, and moving the images
if distances within windows fall by 10 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import scipy
from scipy.ndimage import gaussian_filter

from ad_dinov3.data.decode import decode_image
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.references.memory import Moments, nearest
from ad_dinov3.references.normals import Scale, log_odds, squashed
from ad_dinov3.references.tokens import Floats
from references import DRAWS, Encoded, Metrics, cached, command_line, draw_normals, each_set, files_of, measured

COUNT, MOST_TESTED, REACH, MOST_MOVED = 8, 15, 2, 8
LIMITS = {"turned": ("plain", 0.9), "windows": ("plain", 1.15), "registered": ("windows", 0.9)}
"""Rule -> what its left-out distances are held against, and the ratio below which it is kept."""
Rule = Callable[[Floats, Sequence[Floats]], Floats]
"""Tokens (h, w, D) of an image and of normal ones -> distance (h, w) to the nearest."""


@dataclass(frozen=True)
class Found:
    """The median left-out distance of normal images, and image and pixel AUROC of the joined map on others."""

    distance: float
    metrics: Metrics


def anywhere(image: Floats, normals: Sequence[Floats]) -> Floats:
    """To the nearest token of all, wherever it lies; a memory keeps some, which would make far what is near."""
    bank = np.ascontiguousarray(np.concatenate([_flat(one) for one in normals]).T)
    return nearest(_flat(image), bank).reshape(image.shape[:2])


def in_window(image: Floats, normals: Sequence[Floats]) -> Floats:
    """To the nearest token at most ``REACH`` cells away in either direction."""
    best = np.full(image.shape[:2], -1, np.float32)
    for normal, (down, across) in product(normals, product(range(-REACH, REACH + 1), repeat=2)):
        here, there = _overlap(image.shape[:2], down, across)
        best[here] = np.maximum(best[here], np.einsum("hwd,hwd->hw", image[here], normal[there]))
    return np.maximum(1 - best, 0)


def registered(image: Floats, normals: Sequence[Floats]) -> Floats:
    """The same, each normal image moved to where it is most like the image; cells that it leaves take those beside."""
    return in_window(image, [_moved(normal, _offset(image, normal)) for normal in normals])


def _offset(image: Floats, normal: Floats) -> tuple[int, int]:
    """By how many cells (down, across) a normal image is moved to have the largest mean cosine where both overlap."""
    size = [side + MOST_MOVED for side in image.shape[:2]]
    spectra = [scipy.fft.rfft2(one, size, axes=(0, 1)) for one in (image, normal)]
    sums = scipy.fft.irfft2((spectra[0] * spectra[1].conj()).sum(axis=2), size)
    shifts = list(product(range(-MOST_MOVED, MOST_MOVED + 1), repeat=2))
    cells = [(image.shape[0] - abs(down)) * (image.shape[1] - abs(across)) for down, across in shifts]
    means = [sums[down, across] / count for (down, across), count in zip(shifts, cells, strict=True)]
    return shifts[int(np.argmax(means))]


def _moved(normal: Floats, offset: tuple[int, int]) -> Floats:
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for side, by in zip(normal.shape, offset, strict=False))
    return normal[rows][:, columns]


def _overlap(grid: tuple[int, ...], down: int, across: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The cells of a grid that have a neighbour so far away, and these neighbours."""
    (height, width), (up, left), (below, right) = grid, (max(-down, 0), max(-across, 0)), (max(down, 0), max(across, 0))
    here = slice(up, height - below), slice(left, width - right)
    return here, (slice(below, height - up), slice(right, width - left))


def few(
    rule: Rule, copies: Sequence[Sequence[Floats]], encoded: Encoded, normals: Sequence[int], test: Sequence[int]
) -> Found:
    """The joined map with the distance to the nearest token that a rule finds.

    Args:
        rule: finds the nearest token.
        copies: tokens (h, w, D) of each normal image, and of its turned copies where there are some.
        encoded: the set.
        normals: indices of the normal images.
        test: indices of the images to be measured.
    """
    moments = [sum((Moments.of(_flat(one)) for one in more), Moments.of(_flat(first))) for first, *more in copies]
    whole = sum(moments[1:], moments[0])

    def parts(index: int, without: int | None = None) -> tuple[Floats, Floats]:
        image = encoded.of(index).reshape(*encoded.grid, -1)
        others = list(chain.from_iterable(one for place, one in enumerate(copies) if place != without))
        subspace = (whole if without is None else whole - moments[without]).subspace(0.99)
        return rule(image, others), subspace.residual(_flat(image)).reshape(encoded.grid)

    left_out = [parts(index, place) for place, index in enumerate(normals)]
    scales = [max(float(np.median(part)), 1e-6) for part in zip(*left_out, strict=True)]

    def distance(near: Floats, rest: Floats) -> Floats:
        return (near / scales[0] + rest / scales[1]) / 2

    far = Scale.of_normal(np.stack([distance(*one) for one in left_out]))
    zero_shot = Scale.of_normal(log_odds(encoded.zero_shot[list(normals)]))
    maps = [far(gaussian_filter(distance(*parts(index)), 0.5)) for index in test]
    joined = [one + zero_shot(log_odds(encoded.zero_shot[index])) for one, index in zip(maps, test, strict=True)]
    return Found(scales[0], measured(squashed(np.stack(joined) / 2), encoded, test))


def _flat(tokens: Floats) -> Floats:
    return tokens.reshape(-1, tokens.shape[-1])


def turned_copies(data: Path, cache: Path, name: str, model: str) -> Mapping[int, Floats]:
    """Tokens (3, h, w, D) of each normal image that is drawn, turned by 90, 180 and 270 degrees; encoded once."""
    file = cache / "turned" / f"{name}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        detector, encoded = load(model, offline=True), cached(data, name, cache, model)
        if not isinstance(detector, Detector):
            raise SystemExit(f"{model}: expected a model for torch")
        paths, tokens = files_of(data / name)[0], {}
        for index in sorted({index for seed in range(DRAWS) for index in draw_normals(encoded, COUNT, seed)[0]}):
            image = detector.prepare(decode_image(paths[index]))
            turned = np.stack([np.rot90(image, quarter, (1, 2)) for quarter in (1, 2, 3)])
            tokens[str(index)] = detector.answer(turned, ["object"] * 3).tokens.astype(np.float16)
        np.savez(file, **tokens)
    with np.load(file) as arrays:
        return {int(index): arrays[index].astype(np.float32) for index in arrays.files}


def compared(encoded: Encoded, turned: Mapping[int, Floats], rules: Sequence[str], seed: int) -> dict[str, Found]:
    """What each rule finds with one draw of normal images."""
    normals, others = draw_normals(encoded, COUNT, seed)
    mixed = np.random.default_rng(seed).permutation(others)
    test = sorted(np.concatenate([mixed[encoded.is_bad[mixed] == bad][:MOST_TESTED] for bad in (False, True)]).tolist())
    plain = [[encoded.of(index).reshape(*encoded.grid, -1)] for index in normals]
    ways: dict[str, Rule] = {"windows": in_window, "registered": registered}
    found = {}
    for title in ("plain", *rules):
        copies = plain
        if title == "turned":
            copies = [[*one, *turned[index]] for one, index in zip(plain, normals, strict=True)]
        found[title] = few(ways.get(title, anywhere), copies, encoded, normals, test)
    return found


def main() -> None:
    """Reads the command line and prints lines of a Markdown table for each set."""
    parser = command_line(__doc__)
    parser.add_argument("--rules", nargs="+", default=list(LIMITS), choices=list(LIMITS))
    parser.add_argument("--draws", type=int, default=DRAWS, choices=range(1, DRAWS + 1))
    arguments = parser.parse_args()
    if "registered" in arguments.rules and "windows" not in arguments.rules:
        parser.error("registered is held against windows; give both")
    models = dict(word.split("=", 1) for word in arguments.model)
    print("| set | rule | image / pixel AUROC | distance | kept |", "|---|---|---|---|---|", sep="\n")
    for name, encoded in each_set(arguments):
        model = models.get(name, "embedded")
        turned = turned_copies(arguments.data, arguments.cache, name, model) if "turned" in arguments.rules else {}
        draws = [compared(encoded, turned, arguments.rules, seed) for seed in range(arguments.draws)]
        for title in ("plain", *arguments.rules):
            image, pixel = np.mean([draw[title].metrics for draw in draws], axis=0)
            against, limit = LIMITS.get(title, ("plain", 0.0))
            ratios = np.array([draw[title].distance / draw[against].distance for draw in draws])
            kept = f"{ratios.mean():.2f} of {against} | {np.sum(ratios < limit)} of {len(draws)}"
            print(f"| {name} | {title} | {image:.3f} / {pixel:.3f} | {kept if limit else ' | '} |", flush=True)


if __name__ == "__main__":
    main()
