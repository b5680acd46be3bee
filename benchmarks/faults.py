"""What faults cost a run on a cluster: kills and full disks on a local one, each result held against one process's.

    unshare -nm sh -c 'ip link set lo up; exec python benchmarks/faults.py FOLDER [--images 2000] [--model embedded]'

Images are drawn, some of them broken. The reference is `score_into_folder` in this process. Then a cluster of a head
and two nodes scores the same images while something is killed at a random, seeded moment; a run that ends with images
missing, or is killed itself, is started again, at most four times. A case is equal when rows (seconds aside), coco.json
and every image's files are, byte for byte; images are scored one by one, as the last digits of a map depend on the size
of its batch. Each case becomes a line of FOLDER/cases.jsonl, and a second start goes on after the last. Needs the
extras ray and cloud, psutil, moto; root for the network namespace and the small disk.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import ray
from PIL import Image, ImageDraw
from ray.cluster_utils import Cluster as LocalCluster

from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.predict.cluster import Cluster, score_on_cluster
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, FolderSummary, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import read_rows
from ad_dinov3.predict.types import Outcome

sys.path.append(str(Path(__file__).parents[1] / "tests" / "fleet"))
import s3_server

STORE_BYTES = 100 * 2**20
MOST_STARTS = 5
TABLES = ("csv", "coco", "parquet")


@dataclass(frozen=True)
class Case:
    """What came of one fault.

    Attributes:
        fault: its name.
        name: of the folder of its results.
        equal: rows, tables and files equal those of one process.
        starts: of the command until it ended with nothing missing.
        seconds: of all starts.
        note: what else was seen.
    """

    fault: str
    name: str
    equal: bool
    starts: int
    seconds: float
    note: str = ""


class Bench:
    """Images, the reference and a place for results."""

    def __init__(self, root: Path, images: int, broken: int, model: str) -> None:
        self.root, self.parts = root, root / "parts"
        self.random = random.Random(0)
        if not self.parts.exists():
            draw_parts(self.parts, images, broken)
        self.images = images
        self.spec = ModelSpec(model)
        detector = self.spec.open()
        self.fingerprint = detector.fingerprint
        self.options = DriveOptions(rule=DecisionRule(detector.threshold), batch_size=1, threads=1)
        started = time.perf_counter()
        score_into_folder(self.items(), detector, self.run("one"))
        self.seconds = time.perf_counter() - started

    def items(self, source: str | None = None) -> list[object]:
        return list(find_images([source or str(self.parts)]))

    def run(self, name: str) -> FolderRun:
        return FolderRun(self.root / name, self.spec.model, self.fingerprint, self.options, Outputs(), TABLES)

    def score(self, name: str, watch: Callable[[Outcome], None] = lambda _: None, source: str = "") -> FolderSummary:
        return score_on_cluster(self.items(source), self.spec, self.run(name), Cluster(), watch)

    def moment(self) -> int:
        """A random number of images after which something happens."""
        return self.random.randrange(1, max(2, int(self.images * 0.9)))

    def is_equal(self, name: str, same_place: bool = True) -> bool:
        """Whether a result equals the reference: rows but for seconds, and all files but for the report's date."""
        blank = {"seconds": 0.0} | ({} if same_place else {"path": "", "key": ""})
        rows = [[asdict(replace(row, **blank)) for row in read_rows(self.root / one)] for one in ("one", name)]
        files = [self._files(self.root / one) for one in ("one", name)]
        return rows[0] == rows[1] and files[0] == files[1] and not (self.root / name / "missing.txt").exists()

    def _files(self, folder: Path) -> dict[str, bytes]:
        kept = [file for kind in ("overlays", "maps", "masks") for file in (folder / kind).rglob("*") if file.is_file()]
        kept = [file for file in kept if not file.name.endswith(".part")]  # of a process that was killed
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in [*kept, folder / "coco.json"]}


def draw_parts(folder: Path, images: int, broken: int) -> None:
    """Grey parts with a white square on every fifth, and ``broken`` files that are no image or half of one."""
    for index in range(images):
        path = folder / f"line {index % 7}" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (96, 80), (60 + index % 50, 60, 60))
        if index % 5 == 0:
            ImageDraw.Draw(picture).rectangle([60, 50, 83, 69], "white")
        picture.save(path)
        if broken and index % (images // broken) == 3:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if index % 2 else b"no image")


def until_whole(bench: Bench, fault: str, name: str, watch: Callable[[Outcome], None], source: str = "") -> Case:
    """Run, and run again while images are missing."""
    started = time.perf_counter()
    for starts in range(1, MOST_STARTS + 1):
        summary = bench.score(name, watch if starts == 1 else lambda _: None, source)
        if not summary.missing:
            break
    equal = bench.is_equal(name, same_place=not source)
    return Case(fault, name, equal, starts, time.perf_counter() - started, summary.trouble[:200])


def at(count: int, act: Callable[[], object]) -> Callable[[Outcome], None]:
    """Calls ``act`` once, beside the run, when ``count`` images are done."""
    done = 0

    def watch(_: Outcome) -> None:
        nonlocal done
        done += 1
        if done == count:
            threading.Thread(target=act).start()

    return watch


def kill_an_actor(bench: Bench) -> Callable[[], None]:
    """SIGKILL one of this cluster's actors."""

    def act() -> None:
        mine = psutil.Process().children(recursive=True)
        actors = [one for one in mine if "MapWorker" in " ".join(one.cmdline())]
        if actors:
            bench.random.choice(actors).send_signal(signal.SIGKILL)

    return act


def actor_case(bench: Bench, cluster: LocalCluster, name: str) -> Case:
    return until_whole(bench, "SIGKILL of an actor", name, at(bench.moment(), kill_an_actor(bench)))


def node_case(bench: Bench, cluster: LocalCluster, name: str) -> Case:
    node = bench.random.choice(sorted(cluster.worker_nodes, key=lambda one: one.node_id))
    case = until_whole(
        bench, "SIGKILL of a node", name, at(bench.moment(), lambda: cluster.remove_node(node, allow_graceful=False))
    )
    if node in cluster.worker_nodes:  # the run had ended first
        cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    return case


def store_case(bench: Bench, cluster: LocalCluster, name: str) -> Case:
    front.every = 10
    case = until_whole(bench, "S3 answers 503 to every tenth request", name, lambda _: None, "s3://parts")
    front.every = 0
    return replace(case, note=f"{front.refused} requests refused so far")


def disk_case(bench: Bench, cluster: LocalCluster, name: str) -> Case:
    """The maps' disk holds a third of them, and is enlarged for the second start."""
    maps, started = bench.root / name / "maps", time.perf_counter()
    maps.mkdir(parents=True)
    needed = sum(file.stat().st_size + 4096 for file in (bench.root / "one" / "maps").rglob("*.tiff"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={needed // 3}", "tmpfs", str(maps)], check=True)
    try:
        first = bench.score(name)
        subprocess.run(["mount", "-o", f"remount,size={4 * needed}", str(maps)], check=True)
        second = bench.score(name)
        note = f"{len(first.run.failures)} failed at first, {len(second.run.failures)} in the end"
        equal = bench.is_equal(name) and not second.missing and len(first.run.failures) > len(second.run.failures)
    finally:
        subprocess.run(["umount", "-l", str(maps)], check=True)
    return Case("disk full", name, equal, 2, time.perf_counter() - started, note)


@dataclass(frozen=True)
class Kill:
    """SIGKILL of processes of a command, and the same command again.

    Attributes:
        fault: its name.
        victims: which processes, given that of the command.
        elsewhere: the command joins the cluster that is there, instead of one of its own.
    """

    fault: str
    victims: Callable[[psutil.Process], list[psutil.Process]]
    elsewhere: bool = False


BOTH = Kill("SIGKILL of driver and cluster", lambda driver: [driver, *driver.children(recursive=True)])
DRIVER = Kill("SIGKILL of the driver; the cluster lives", lambda driver: [driver], elsewhere=True)
CLUSTER = Kill("SIGKILL of the cluster; the driver lives", lambda driver: driver.children(recursive=True))


def command_case(kill: Kill, bench: Bench, cluster: LocalCluster, name: str) -> Case:
    """Something of a command is killed at a random moment, and the same command is given again."""
    started, count = time.perf_counter(), bench.moment()
    command = [sys.executable, "-m", "ad_dinov3", "predict", str(bench.parts), "-o", str(bench.root / name)]
    command += ["--model", bench.spec.model, "--engine", "ray", "--coco", "--batch-size", "1"]
    command += ["--address", cluster.address] * kill.elsewhere
    journal = bench.root / name / "results.jsonl"
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < count):
        time.sleep(0.05)
    kept = journal.read_bytes().count(b"\n")
    for process in kill.victims(psutil.Process(running.pid)):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    code = running.wait()
    again = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    note = f"{kept} rows on disk at the kill, exit code {code}, then {again.returncode}"
    equal = bench.is_equal(name)
    return Case(kill.fault, name, equal, 2, time.perf_counter() - started, note)


CASES = {
    "actor": actor_case,
    "node": node_case,
    "both": partial(command_case, BOTH),
    "driver": partial(command_case, DRIVER),
    "cluster": partial(command_case, CLUSTER),
    "disk": disk_case,
    "store": store_case,
}
ONCE = {"disk", "store"}
front: s3_server.Flaky


def rounds(bench: Bench, faults: list[str], times: int) -> list[str]:
    """The cases that are still to be done, all faults in turns."""
    notes = bench.root / "cases.jsonl"
    done = {json.loads(line)["name"] for line in notes.read_text().splitlines()} if notes.exists() else set()
    names = [f"{fault}-{index}" for index in range(times) for fault in faults if index == 0 or fault not in ONCE]
    return [name for name in names if name not in done]


def do(bench: Bench, cluster: LocalCluster, name: str) -> None:
    """One case, with the same random moments whenever it is done, and its line."""
    shutil.rmtree(bench.root / name, ignore_errors=True)
    bench.random.seed(name)
    case = CASES[name.partition("-")[0]](bench, cluster, name)
    with (bench.root / "cases.jsonl").open("a") as notes:
        notes.write(json.dumps(asdict(case)) + "\n")
    words = "equal" if case.equal else "NOT EQUAL"
    print(f"{case.fault:<40} {words:<10} {case.starts} starts {case.seconds:6.1f} s  {case.note}", flush=True)
    if case.equal:
        shutil.rmtree(bench.root / name)


def main() -> None:
    global front
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--faults", nargs="+", choices=CASES, default=list(CASES))
    chosen = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ["OMP_NUM_THREADS"] = "1"  # as in an actor of one CPU: another number of threads changes the last bits
    os.environ |= {"RAY_worker_niceness": "0"}  # on a busy machine actors of low priority take minutes to start
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server.s3_server() as (endpoint, front):
        os.environ |= s3_server.environment(endpoint)
        bench = Bench(chosen.folder, chosen.images, chosen.broken, chosen.model)
        print(f"{chosen.images} images, {chosen.broken} broken; one process: {bench.seconds:.1f} s", flush=True)
        if "store" in chosen.faults:
            s3_server.upload(bench.parts, endpoint)
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        cluster = LocalCluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            for name in rounds(bench, chosen.faults, chosen.times):
                do(bench, cluster, name)
        finally:
            ray.shutdown()
            cluster.shutdown()
    sys.exit(any(not json.loads(line)["equal"] for line in (bench.root / "cases.jsonl").read_text().splitlines()))


if __name__ == "__main__":
    main()
