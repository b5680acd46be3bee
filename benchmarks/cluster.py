"""Images per second on a Ray cluster beside the plain command, start-up told apart, and what long runs take in memory.

    unshare -n sh -c 'ip link set lo up; exec python benchmarks/cluster.py IMAGES [--rounds 2] [--grow 1000 10000]'

In each round the same images are scored by the plain command and on a cluster of 1 and of 2 actors, in turns, without
images' files and with one thread each. ``steady`` counts from the first results to the last, and so do the images per
processor second of this process and its actors, which other work on the machine hardly moves. With ``--grow`` drawn
images of 96 x 80 px are scored on 2 actors, and the largest resident set of the driver (less its shared pages) and the
use of the object store are told for each number.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray
from PIL import Image

from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import ModelSpec, load
from ad_dinov3.predict.cluster import Cluster, score_on_cluster
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.row_scorer import NO_FILES
from ad_dinov3.predict.types import Outcome

STORE_BYTES = 200 * 2**20


@dataclass
class Watch:
    """Moments of a run: when it began, and each result."""

    began: float
    first: float = 0.0
    last: float = 0.0
    count: int = 0
    at_first: int = 0
    cpu_at_first: float = 0.0
    cpu_at_last: float = 0.0
    at_last: int = 0
    actors: dict[int, float] = field(default_factory=dict)

    def see(self, _: Outcome) -> None:
        now = time.perf_counter()
        if self.count == 0:
            self.first = now
        self.count, self.last = self.count + 1, now
        if now - self.first < 0.05:  # the block that came back first
            self.at_first, self.cpu_at_first = self.count, self.processor_seconds()
        if self.count % 8 == 0:
            self.cpu_at_last, self.at_last = self.processor_seconds(), self.count

    def processor_seconds(self) -> float:
        """Of this process and its actors, up to now."""
        look_at_actors(self.actors)
        return time.process_time() + sum(self.actors.values())

    @property
    def steady(self) -> float:
        return (self.count - self.at_first) / (self.last - self.first)

    @property
    def per_processor_second(self) -> float:
        return (self.at_last - self.at_first) / (self.cpu_at_last - self.cpu_at_first)


def look_at_actors(seconds: dict[int, float]) -> None:
    """Keep the processor seconds of each actor by its process; one that has ended keeps its last."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "MapWorker" in " ".join(child.cmdline()):
                seconds[child.pid] = sum(child.cpu_times()[:2])


def run_of(out: Path, fingerprint: str, threshold: float, threads: int) -> FolderRun:
    return FolderRun(
        out, "embedded", fingerprint, DriveOptions(rule=DecisionRule(threshold), threads=threads), NO_FILES, ()
    )


@contextmanager
def peaks() -> Iterator[dict[str, float]]:
    """The largest of what is asked for every half second, in MB."""
    seen = {"driver": 0.0, "object store": 0.0}
    done = threading.Event()

    def look() -> None:
        driver = psutil.Process()
        while not done.wait(0.5):
            memory = driver.memory_info()
            seen["driver"] = max(seen["driver"], (memory.rss - memory.shared) / 1e6)
            there, free = ray.cluster_resources(), ray.available_resources()
            used = there.get("object_store_memory", 0) - free.get("object_store_memory", 0)
            seen["object store"] = max(seen["object store"], used / 1e6)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def speed(images: Path, rounds: int, root: Path) -> None:
    """The table of rates."""
    detector = load()
    threshold, fingerprint = detector.config.threshold, detector.fingerprint
    found: dict[str, list[float]] = {}
    for index in range(rounds):
        for name, actors in (("plain command, 1 thread", 0), ("1 actor", 1), ("2 actors", 2)):
            out = root / f"{index}-{actors}"
            run = run_of(out, fingerprint, threshold, 1)
            items = list(find_images([str(images)]))
            watch = Watch(time.perf_counter())
            if actors:
                score_on_cluster(items, ModelSpec(), run, Cluster(actors=actors), watch.see)
            else:
                score_into_folder(items, detector, run, watch.see)
            found.setdefault(name, []).append(watch.per_processor_second)
            told = f"first after {watch.first - watch.began:5.1f} s, steady {watch.steady:6.1f} images/s, "
            told += f"{watch.per_processor_second:.1f} per processor second"
            print(f"{name:<24} {watch.count} images, {told}", flush=True)
    for name, rates in found.items():
        print(f"{name:<24} median {statistics.median(rates):6.1f} images per processor second")


def grow(counts: list[int], root: Path) -> None:
    """The table of memory."""
    detector = load()
    parts = root / "drawn"
    parts.mkdir()
    done = 0
    for count in sorted(counts):
        for index in range(done, count):
            Image.new("RGB", (96, 80), (index % 200, 60, 60)).save(parts / f"{index:06d}.png", compress_level=1)
        done = count
        run = run_of(root / f"grow-{count}", detector.fingerprint, detector.config.threshold, 1)
        with peaks() as seen:
            summary = score_on_cluster(find_images([str(parts)]), ModelSpec(), run, Cluster(actors=2))
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        told = ", ".join(f"{name} {value:,.0f} MB" for name, value in seen.items())
        done_in = f"{summary.run.scored:,} scored in {summary.run.seconds:.0f} s"
        print(f"{count:,} images: {done_in}; {told}; largest resident set {largest:,.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--grow", type=int, nargs="*", default=[])
    chosen = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ |= {"RAY_worker_niceness": "0"}  # beside this process, not below it
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES)
    try:
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
            if chosen.rounds:
                speed(chosen.images, chosen.rounds, Path(folder))
            if chosen.grow:
                grow(chosen.grow, Path(folder))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
