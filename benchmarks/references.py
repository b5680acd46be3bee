"""Images compared with normal ones and with each other, on real images: what it gains, what is promised, what it costs.

    python benchmarks/references.py DATA --cache DIR [--model SET=MODEL ...] [--parts few folder promises cost]

DATA holds sets in the MVTec AD layout. Of each set at most 200 normal and 80 anomalous images are encoded once and kept
in the cache; all rules then work on the same tokens and the same zero-shot maps. Normal images are drawn one of a group
(a patient, a place, a part that was photographed twice: what its file's name tells), and their groups leave the test.
Pixel AUROC at 128 px; nothing is chosen here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from ad_dinov3.data.decode import decode_image
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.metrics.ranking import auroc, count_ranking
from ad_dinov3.references.conformal import Promise, promise_for, threshold
from ad_dinov3.references.memory import Remembered, nearest
from ad_dinov3.references.mutual import compare_folder, content_digest
from ad_dinov3.references.normals import KnownNormals, Scale, log_odds, squashed
from ad_dinov3.references.tokens import Floats

GROUP_PARTS = {"bsdata": slice(2, 4), "lgg_mri": slice(0, 3)}
"""Set -> which parts of a file's name, between underscores, say what its images have in common."""
SIDE, BATCH, DRAWS = 128, 8, 5
Maps = NDArray[np.float32]
Metrics = tuple[float, float]
Rule = Callable[[Floats], Callable[[Floats], Floats]]
"""A map's values (N, cells) on N images -> values of other maps in deviations from these."""
JOINS: Mapping[str, Rule] = {"joined with zero-shot": Scale.of}
"""How the two maps of a folder are put on one scale."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A set's images: tokens (N, h, w, D), stages (N, h, w, C), zero-shot maps and scores, masks, labels, groups."""

    tokens: NDArray[np.float16]
    zero_shot: Maps
    scores: NDArray[np.float64]
    masks: NDArray[np.bool_]
    is_bad: NDArray[np.bool_]
    groups: NDArray[np.str_]

    @property
    def grid(self) -> tuple[int, int]:
        """Cells (h, w) of the tokens."""
        return self.tokens.shape[1], self.tokens.shape[2]

    def of(self, index: int) -> Floats:
        """One image's tokens (T, D)."""
        return self.tokens[index].reshape(-1, self.tokens.shape[3]).astype(np.float32)


def encode(folder: Path, detector: Detector, most: tuple[int, int] = (200, 80)) -> Encoded:
    """Encode a sample of a set, at most so many normal and so many anomalous images."""
    good, bad = files_of(folder, most)
    files = good + bad
    tokens, maps, scores = [], [], []
    for start in range(0, len(files), BATCH):
        batch = np.stack([detector.prepare(decode_image(path)) for path in files[start : start + BATCH]])
        answer = detector.answer(batch, ["object"] * len(batch))
        tokens.append(answer.tokens.astype(np.float16))
        maps.append(answer.scores.maps)
        scores.append(answer.scores.scores)
    parts = GROUP_PARTS.get(folder.name)
    return Encoded(
        np.concatenate(tokens),
        np.concatenate(maps),
        np.concatenate(scores).astype(np.float64),
        np.stack([_mask(path) for path in files]),
        np.array([False] * len(good) + [True] * len(bad)),
        np.array(["_".join(path.stem.split("_")[parts]) if parts else path.stem for path in files]),
    )


def files_of(folder: Path, most: tuple[int, int] = (200, 80)) -> tuple[list[Path], list[Path]]:
    """At most so many normal and so many anomalous images of a set, drawn in the same way each time."""
    category = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    draw = np.random.default_rng(0)
    good = _some(draw, [*category.glob("test/good/*"), *category.glob("train/good/*")], most[0])
    return good, _some(draw, [path for path in category.glob("test/*/*") if path.parent.name != "good"], most[1])


def _some(draw: np.random.Generator, paths: Sequence[Path], count: int) -> list[Path]:
    ordered = sorted(paths)
    return [ordered[index] for index in sorted(draw.permutation(len(ordered))[:count])]


def _mask(path: Path) -> NDArray[np.bool_]:
    if path.parent.name == "good":
        return np.zeros((SIDE, SIDE), bool)
    file = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
    small = np.asarray(Image.open(file).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
    return small >= min(128, max(1, int(small.max())))


def draw_normals(encoded: Encoded, count: int, seed: int) -> tuple[list[int], list[int]]:
    """One normal image of each of ``count`` groups, and the images of all other groups."""
    draw = np.random.default_rng(seed)
    good = np.flatnonzero(~encoded.is_bad)
    groups = draw.permutation(np.unique(encoded.groups[good]))[:count]
    normals = [int(draw.choice(good[encoded.groups[good] == group])) for group in groups]
    return normals, np.flatnonzero(~np.isin(encoded.groups, groups)).tolist()


def measured(maps: Maps, encoded: Encoded, test: Sequence[int]) -> Metrics:
    """Image AUROC of the maps' peaks, and pixel AUROC."""
    enlarged = np.stack([upsample(one, (SIDE, SIDE))[::2, ::2] for one in maps])
    masks = encoded.masks[test][:, ::2, ::2]
    return auroc_of(maps.max(axis=(1, 2)), encoded.is_bad[test]), auroc_of(enlarged.ravel(), masks.ravel())


def auroc_of(scores: NDArray[np.floating], is_bad: NDArray[np.bool_]) -> float:
    """Of some scores; NaN where all are of one kind."""
    value = auroc(count_ranking(scores, is_bad))
    return float("nan") if value is None else value


def few(encoded: Encoded, count: int, seed: int) -> dict[str, Metrics]:
    """All few-shot rules with one draw of normal images."""
    normals, test = draw_normals(encoded, count, seed)
    tokens = [encoded.of(index) for index in normals]
    known = KnownNormals(tokens, list(encoded.zero_shot[normals])).known()
    memory, grid = known.memory, encoded.grid
    near = _smooth([nearest(encoded.of(index), memory.bank).reshape(grid) for index in test])
    rest = _smooth([memory.subspace.residual(encoded.of(index)).reshape(grid) for index in test])
    both = near / memory.nearest_scale + rest / memory.residual_scale
    far = known.far(both / 2)
    size = encoded.zero_shot.shape[1:]
    joined = [known.join(upsample(one, size), encoded.zero_shot[index]) for one, index in zip(far, test, strict=True)]
    zero_shot = measured(encoded.zero_shot[test], encoded, test)
    return {
        "zero-shot": (auroc_of(encoded.scores[test], encoded.is_bad[test]), zero_shot[1]),
        "nearest (AnomalyDINO's rule)": measured(near, encoded, test),
        "subspace (SubspaceAD's rule)": measured(rest, encoded, test),
        "both": measured(both, encoded, test),
        "joined with zero-shot": measured(np.stack(joined), encoded, test),
    }


def _smooth(maps: Sequence[Maps]) -> Maps:
    return np.stack([gaussian_filter(one, 0.5) for one in maps])


def folder(encoded: Encoded, seed: int, joins: Mapping[str, Rule] = JOINS, most: int = 100) -> dict[str, Metrics]:
    """The rules that compare a folder with itself, on at most 100 images with a third of defects."""
    draw = np.random.default_rng(seed)
    good, bad = (draw.permutation(np.flatnonzero(encoded.is_bad == kind)) for kind in (False, True))
    test = sorted([*good[: most * 2 // 3].tolist(), *bad[: most // 3].tolist()])
    digests = [content_digest(encoded.tokens[index].tobytes()) for index in test]
    found = sorted(compare_folder(lambda place: encoded.of(test[place]), digests), key=lambda one: one.index)
    maps = _smooth([one.distances.reshape(encoded.grid) for one in found])
    odds, size = log_odds(encoded.zero_shot[test]), encoded.zero_shot.shape[1:]
    joined = {}
    for title, rule in joins.items():
        far, zero_shot = (rule(one.reshape(len(test), -1)) for one in (maps, odds))
        both = [upsample(far(one), size) + zero_shot(other) for one, other in zip(maps, odds, strict=True)]
        joined[title] = measured(squashed(np.stack(both) * np.float32(0.5)), encoded, test)
    ratio = float(np.median([one.ratio for one in found]))
    return {
        "zero-shot": measured(encoded.zero_shot[test], encoded, test),
        "one search (ours)": measured(maps, encoded, test),
        **joined,
        "likeness ratio": (ratio, ratio),
    }


def promises(encoded: Encoded, count: int, rate: float, draws: int = 200) -> tuple[float, float, float]:
    """Mean false-alarm rate on the other normal images, share of draws within the 95 % bound, and the rate promised.

    The score is the zero-shot score, which no normal image has a share in; calibration images are one of a group, and
    so are those that are tested.
    """
    draw = np.random.default_rng(count)
    good = np.flatnonzero(~encoded.is_bad)
    promise = promise_for(rate, count)
    rates = []
    for _ in range(draws):
        groups = draw.permutation(np.unique(encoded.groups[good]))
        ones = [float(encoded.scores[draw.choice(good[encoded.groups[good] == group])]) for group in groups]
        level = threshold(ones[:count], promise)
        rates.append(float(np.mean(np.array(ones[count:]) > level)))
    left = len(np.unique(encoded.groups[good])) - count
    return float(np.mean(rates)), float(np.mean(np.array(rates) <= within(promise, left))), promise.rate


def within(promise: Promise, left: int) -> float:
    """What 95 % of draws stay below when the rate is counted on ``left`` images (beta-binomial)."""
    draw = np.random.default_rng(0)
    true = draw.beta(promise.rank, promise.images + 1 - promise.rank, 20_000)
    return float(np.quantile(draw.binomial(left, true) / left, 0.95, method="higher"))


def cost(encoded: Encoded) -> dict[str, float]:
    """Processor milliseconds an image: a memory of 16, a folder in one search, and MuSc's twelve over all pairs."""
    images = [encoded.of(index) for index in range(min(60, len(encoded.tokens)))]
    memory = Remembered(images[:16]).memory()
    one = _ms(lambda: memory.distances(images[20]))
    pair = _ms(lambda: (images[0] @ images[1].T).max(axis=1))
    both_ways = _ms(lambda: [(product := images[0] @ images[1].T).max(axis=1), product.max(axis=0)])
    return {
        "memory of 16": one,
        "folder of 200, one search, 48 compared": both_ways * 24,
        "folder of 200, as MuSc does it (3 x 4 searches, all pairs)": pair * 199 * 12,
    }


def _ms(work: Callable[[], object], rounds: int = 15) -> float:
    work()
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return 1000 * float(np.median(seconds))


def cached(data: Path, name: str, cache: Path, model: str, most: tuple[int, int] = (200, 80)) -> Encoded:
    """A set's images, encoded once."""
    file = cache / f"{name}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        detector = load(model, offline=True)
        if not isinstance(detector, Detector):
            raise SystemExit(f"{model}: expected a model for torch")
        np.savez(file, **vars(encode(data / name, detector, most)))
    with np.load(file) as arrays:
        return Encoded(**dict(arrays))


def command_line(text: str) -> argparse.ArgumentParser:
    """A parser of what all measurements of references take, described by a docstring's first line."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--model", nargs="*", default=[], metavar="SET=MODEL", help="default: embedded")
    return parser


def each_set(arguments: argparse.Namespace, most: tuple[int, int] = (200, 80)) -> Iterator[tuple[str, Encoded]]:
    """Names of the sets, and their images."""
    models = dict(word.split("=", 1) for word in arguments.model)
    for name in arguments.sets:
        yield name, cached(arguments.data, name, arguments.cache, models.get(name, "embedded"), most)


def _row(label: str, draws: Sequence[Metrics]) -> str:
    values = np.array(draws)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    return f"{label:44s} {mean[0]:.3f} ± {spread[0]:.3f}   {mean[1]:.3f} ± {spread[1]:.3f}"


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", default=["few", "folder", "promises", "cost"])
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 4, 8, 16])
    arguments = parser.parse_args()
    gathered: dict[str, list[Metrics]] = {}
    for name, encoded in each_set(arguments):
        print(f"\n{name}: {np.sum(~encoded.is_bad)} normal, {np.sum(encoded.is_bad)} anomalous, grid {encoded.grid}")
        for title, draws in tables(encoded, arguments.parts, arguments.counts).items():
            gathered.setdefault(title, []).append((float(np.mean(draws, 0)[0]), float(np.mean(draws, 0)[1])))
            print(_row(title, draws), flush=True)
        if "promises" in arguments.parts:
            print_promises(encoded)
        if "cost" in arguments.parts:
            for title, milliseconds in cost(encoded).items():
                print(f"{title:60s} {milliseconds:10.1f} ms")
    print("\nmean over the sets, and the deviation between them")
    for title, values in gathered.items():
        print(_row(f"{title} ({len(values)} sets)", values))


def tables(encoded: Encoded, parts: Sequence[str], counts: Sequence[int]) -> dict[str, list[Metrics]]:
    """Rule -> its metrics in each draw."""
    found: dict[str, list[Metrics]] = {}
    for count in counts if "few" in parts else ():
        if len(np.unique(encoded.groups[~encoded.is_bad])) < count + 4:
            continue
        for seed in range(DRAWS):
            for title, metrics in few(encoded, count, seed).items():
                found.setdefault(f"{count} normal: {title}", []).append(metrics)
    for seed in range(DRAWS) if "folder" in parts else ():
        for title, metrics in folder(encoded, seed).items():
            found.setdefault(f"folder: {title}", []).append(metrics)
    return found


def print_promises(encoded: Encoded) -> None:
    """False-alarm rates over 200 draws."""
    groups = len(np.unique(encoded.groups[~encoded.is_bad]))
    for count, rate in ((10, 0.1), (20, 0.1), (20, 0.05), (59, 0.1), (59, 0.05)):
        if groups >= count + 4:
            mean, within, promised = promises(encoded, count, rate)
            print(
                f"n = {count}, promised {promised:.3f}: {mean:.3f} on average, {within:.0%} of draws within the bound"
            )


if __name__ == "__main__":
    main()
