"""Ours against the usual implementations: time, extra memory and difference, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py            # 120 maps of 512 x 512, about three minutes
    OMP_NUM_THREADS=1 python benchmarks/metrics.py --large    # also 1,725 maps (452 million pixels), peak memory

Times are CPU seconds of this process (one thread), with wall seconds beside them; shared machines disturb the wall
clock, and the ratios are of CPU seconds. Maps are smoothed noise with blobs, masks have 1-4 blobs in two of three
images (about 1.5 % of all pixels). Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ad_dinov3.metrics import (
    StreamingPixels,
    aupro,
    aupro_200,
    auroc,
    average_precision,
    count_regions,
    f1_max,
    ranking_metrics,
)

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]
Triple = tuple[float, float, float]
Result = Triple | float | None
SIZE = 512


@dataclass(frozen=True)
class Timed:
    """What a call returned, and its CPU and wall seconds."""

    result: Result
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Bar:
    """A figure and the bound that it has to keep."""

    name: str
    measured: float
    bound: float
    is_minimum: bool

    @property
    def is_kept(self) -> bool:
        return self.measured >= self.bound if self.is_minimum else self.measured <= self.bound


def make_set(count: int, seed: int = 0) -> tuple[Maps, Masks]:
    """Maps (512, 512) in (0, 1) and masks; the noise is shifted, not drawn anew, so that large sets are cheap."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 3, mode="wrap") * 7
    fine = rng.normal(size=(SIZE, SIZE)) * 0.4
    y, x = np.ogrid[:SIZE, :SIZE]
    maps, masks = [], []
    for i in range(count):
        mask = np.zeros((SIZE, SIZE), bool)
        for _ in range(rng.integers(1, 5) if i % 3 else 0):
            cy, cx, ry, rx = *rng.integers(50, SIZE - 50, 2), *rng.integers(8, 52, 2)
            mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        found = ndimage.uniform_filter(mask.astype(np.float32), 9) * rng.uniform(1.0, 5.0)
        shifts = tuple(rng.integers(0, SIZE, 2))
        logit = np.roll(noise, shifts, (0, 1)) + np.roll(fine, shifts[::-1], (0, 1)) + found - 3.0
        maps.append((1 / (1 + np.exp(-logit))).astype(np.float32))
        masks.append(mask)
    return maps, masks


def exact(maps: Maps, masks: Masks) -> Triple:
    result = ranking_metrics(maps, masks)
    return result.auroc or 0.0, result.average_precision or 0.0, result.f1_max.value if result.f1_max else 0.0


def streaming(maps: Maps, masks: Masks) -> Triple:
    state = StreamingPixels.empty()
    for start in range(0, len(maps), 8):
        state = state.update(maps[start : start + 8], masks[start : start + 8], with_regions=False)
    ranking = state.counts().ranking
    best = f1_max(ranking)
    return auroc(ranking) or 0.0, average_precision(ranking) or 0.0, best.value if best else 0.0


def scikit_learn(maps: Maps, masks: Masks) -> Triple:
    """The three calls that evaluation scripts make, on arrays that are already concatenated."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores)), float(f1)


def loop_200(maps: Maps, masks: Masks) -> float:
    """AUPRO by the usual loop: each of 200 thresholds over each region of each image, with scikit-image."""
    from skimage.measure import label, regionprops

    scores, truth = np.stack(maps), np.stack(masks)
    low, high = scores.min(), scores.max()
    fprs, pros = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        called = scores > threshold
        overlaps = [
            called[i, region.coords[:, 0], region.coords[:, 1]].sum() / region.area
            for i, mask in enumerate(truth)
            for region in regionprops(label(mask))
        ]
        pros.append(np.mean(overlaps))
        fprs.append(np.logical_and(~truth, called).sum() / (~truth).sum())
    fpr, pro = np.array(fprs), np.array(pros)
    kept = fpr < 0.3
    stretched = (fpr[kept] - fpr[kept].min()) / np.ptp(fpr[kept])
    return float(-np.trapezoid(pro[kept], stretched))


def brute_force_aupro(maps: Maps, masks: Masks) -> float:
    """AUPRO with every unique score as a threshold and the definition applied to each; for small sets."""
    regions = [(i, ndimage.label(m, np.ones((3, 3)))[0] == k) for i, m in enumerate(masks) for k in _ids(m)]
    normal = np.concatenate([s[~m] for s, m in zip(maps, masks, strict=True)])
    fprs, pros = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        fprs.append(float(np.mean(normal >= threshold)))
        pros.append(float(np.mean([np.mean(maps[i][region] >= threshold) for i, region in regions])))
        if fprs[-1] > 0.3:
            break
    edge = float(np.interp(0.3, fprs, pros))
    return float(np.trapezoid([*pros[:-1], edge], [*fprs[:-1], 0.3])) / 0.3


def _ids(mask: NDArray[np.bool_]) -> range:
    return range(1, int(ndimage.label(mask, np.ones((3, 3)))[1]) + 1)


def timed(call: Callable[[], Result], repeats: int = 1) -> Timed:
    """The fastest of some calls, by CPU seconds."""
    runs = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        runs.append(Timed(result, time.process_time() - cpu, time.perf_counter() - wall))
    return min(runs, key=lambda run: run.cpu_s)


def extra_bytes(call: Callable[[], object]) -> int:
    """Greatest memory that a call holds beyond what was held before."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def compare(count: int) -> list[Bar]:
    """All bars of the small set; prints a line for each measured call."""
    maps, masks = make_set(count)
    pixels = sum(m.size for m in maps)
    print(f"{count} maps, {pixels / 1e6:.0f} M pixels, {np.mean([m.mean() for m in masks]):.2%} anomalous")
    runs = {
        "exact": timed(lambda: exact(maps, masks), 3),
        "streaming": timed(lambda: streaming(maps, masks), 3),
        "scikit-learn": timed(lambda: scikit_learn(maps, masks)),
        "AUPRO exact": timed(lambda: aupro(count_regions(maps, masks)), 3),
        "AUPRO 200": timed(lambda: aupro_200(maps, masks), 3),
        "AUPRO 200 loop": timed(lambda: loop_200(maps, masks)),
    }
    for name, run in runs.items():
        print(f"{name:16s} cpu {run.cpu_s:8.3f} s  wall {run.wall_s:8.3f} s  {run.result}")
    print(f"AUPRO 200 differs from exact AUPRO by {_gap(runs, 'AUPRO 200 loop', 'AUPRO exact'):.4f}")
    return [*speed_bars(runs), *difference_bars(runs, maps, masks), *memory_bars(maps, masks)]


def speed_bars(runs: dict[str, Timed]) -> list[Bar]:
    return [
        Bar("exact, times faster than scikit-learn", _ratio(runs, "scikit-learn", "exact"), 40, True),
        Bar("streaming, times faster than scikit-learn", _ratio(runs, "scikit-learn", "streaming"), 150, True),
        Bar("AUPRO, times faster than the 200 loop", _ratio(runs, "AUPRO 200 loop", "AUPRO exact"), 40, True),
    ]


def difference_bars(runs: dict[str, Timed], maps: Maps, masks: Masks) -> list[Bar]:
    reference = np.array(runs["scikit-learn"].result)
    off = np.abs(np.array(runs["exact"].result) - reference)
    off_streaming = np.abs(np.array(runs["streaming"].result) - reference)
    crops = [m[-160:-64, :96] for m in maps], [m[-160:-64, :96] for m in masks]
    chosen = [*[i for i, m in enumerate(crops[1]) if m.any()][:4], 0]
    few = [crops[0][i] for i in chosen], [crops[1][i] for i in chosen]
    brute = abs((aupro(count_regions(*few)) or 0.0) - brute_force_aupro(*few))
    return [
        Bar("exact, greatest difference", float(off.max()), 1e-12, False),
        Bar("streaming, AUROC difference", float(off_streaming[0]), 1e-6, False),
        Bar("streaming, AP difference", float(off_streaming[1]), 1e-4, False),
        Bar("streaming, F1-max difference", float(off_streaming[2]), 1e-4, False),
        Bar("AUPRO, difference from brute force", brute, 1e-6, False),
        Bar("AUPRO 200, difference from its loop", _gap(runs, "AUPRO 200", "AUPRO 200 loop"), 1e-6, False),
    ]


def memory_bars(maps: Maps, masks: Masks) -> list[Bar]:
    half = len(maps) // 2
    scores = sum(m.nbytes for m in maps)
    few, every = (extra_bytes(lambda n=n: streaming(maps[:n], masks[:n])) for n in (half, len(maps)))
    return [
        Bar("exact, extra memory / scores' memory", extra_bytes(lambda: exact(maps, masks)) / scores, 0.25, False),
        Bar("streaming, memory of all / of half the maps", every / few, 1.01, False),
    ]


def _ratio(runs: dict[str, Timed], slow: str, fast: str) -> float:
    return runs[slow].cpu_s / runs[fast].cpu_s


def _gap(runs: dict[str, Timed], one: str, other: str) -> float:
    return float(np.abs(np.subtract(runs[one].result, runs[other].result)))


def large_set() -> None:
    """1,725 maps in a process of its own; prints its figures as JSON."""
    maps, masks = make_set(1725)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = timed(lambda: exact(maps, masks))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pro = timed(lambda: aupro(count_regions(maps, masks)))
    with_pro = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"exact": asdict(run), "aupro": asdict(pro), "kib": [before, peak, with_pro]}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=120, help="size of the set that all are compared on")
    parser.add_argument("--large", action="store_true", help="also measure 1,725 maps")
    parser.add_argument("--large-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.large_only:
        large_set()
        return 0
    bars = compare(options.maps)
    if options.large:
        command = [sys.executable, __file__, "--large-only"]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"1,725 maps: {figures}")
        for name, kib in zip(("ranking", "ranking and AUPRO"), figures["kib"][1:], strict=True):
            bars.append(Bar(f"1,725 maps, peak memory of {name}, GiB", kib / 2**20, 3.0, False))
    for bar in bars:
        sign = ">=" if bar.is_minimum else "<="
        print(f"{'kept  ' if bar.is_kept else 'MISSED'} {bar.name}: {bar.measured:.4g} (bar {sign} {bar.bound:g})")
    return 0 if all(bar.is_kept for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
