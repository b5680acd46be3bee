"""The images of a run on a Ray cluster: actors read, decode, score and write files; rows come back to the same folder.

    to do -> blocks of items -> actors (RowScorer) -> blocks of rows -> results.jsonl, tables, report

Ray Data keeps the actors busy, restarts dead ones and gives their blocks to others. A block that is done twice writes
the same files again, and its rows replace themselves, so that nothing is there twice; what did not come back is listed.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import AdDinoError, ConfigError, MissingExtraError
from ad_dinov3.files import held, write_text
from ad_dinov3.infer.opening import CarriedModel, ModelSpec
from ad_dinov3.predict.drive import RunSummary
from ad_dinov3.predict.folder import FolderRun, FolderSummary, RunFolder
from ad_dinov3.predict.report import Thumbnail, WorstRows
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.row_scorer import RowScorer
from ad_dinov3.predict.types import Failure, Outcome, StoredScore

if TYPE_CHECKING:
    import pyarrow as pa

_ROW, _THUMBNAIL = TypeAdapter(Row), TypeAdapter(Thumbnail)
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no calls home
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # no C++ lines in the bar
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",  # after which Ray ends this process without a word
}
_LOOK_S, _PATIENCE_S = 5.0, 30.0  # how often a silent cluster is looked after, and how long until it is given up
_WORDS = 500  # of a cluster's error that people are shown, in characters
_BLOCK = 64  # images that are handed out at once, and done again if their actor dies
_BLOCKS_EACH = 8  # at least so many for each actor, where there are fewer images
_INIT_DEATHS = 3  # of an actor that runs out of memory while it opens the model, before the job ends


@dataclass(frozen=True)
class Cluster:
    """Where a run's actors live, and what each may have.

    Attributes:
        address: of a Ray cluster, ``auto`` for the one of this machine; None: one of this process's own.
        actors: at most this many; None: as many as the cluster has CPUs, or GPUs, for.
        cpus: of one actor, and its number of threads.
        gpus: of one actor.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def score_on_cluster(
    items: Iterable[ImageFile],
    model: ModelSpec | CarriedModel,
    run: FolderRun,
    cluster: Cluster,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FolderSummary:
    """As `folder.score_into_folder`, with the same rows, files and resume, on a cluster.

    Images, model and output folder must be there under the same names on every node. When the run ends, each image that
    was listed has its row, scored or failed; the names of the others are in ``FolderSummary.missing`` and in
    ``missing.txt`` of the folder.

    Raises:
        DataError: the folder's results.jsonl is of another kind.
        ConfigError: there is no such cluster, a video is among the items, or another run is writing into the folder.
        MissingExtraError: Ray is not installed.
    """
    with held(run.folder):
        folder = RunFolder(run, on_outcome)
        tally, waiting, trouble = _Tally(folder, on_outcome), set[str](), ""
        place = run.remote.uri if run.remote else run.folder
        scorer = RowScorer(model, run.options, place, run.outputs, run.near_copies.known)
        try:
            with closing(_scored(folder.to_do(items), scorer, cluster, waiting)) as blocks:
                for block in blocks:
                    waiting -= tally.take(block)
                    if should_stop():
                        break
        except AdDinoError:
            raise
        except Exception as error:  # of the cluster; what it has done is kept, and the rest is listed
            trouble = " ".join(f"{type(error).__name__}: {error}".split())[:_WORDS]
        finally:
            for sink in (*folder.sinks, run.near_copies):
                sink.close()
        missing = () if should_stop() else tuple(sorted(waiting))
        _note(run.folder / "missing.txt", missing)
        return folder.finish(tally.summary(should_stop()), missing, trouble)


def _scored(
    to_do: Iterator[ImageFile | StoredScore], scorer: RowScorer, cluster: Cluster, waiting: set[str]
) -> Generator[pa.Table, None, None]:
    """Blocks of rows as they are done; the cluster is not asked if there is nothing to do."""
    first = next(to_do, None)
    if first is None:
        return
    with _connected(cluster):
        room = _room(cluster)
        tables = list(_tables(chain([first], to_do), waiting, room))
        with closing(_blocks(tables, scorer, cluster, room)) as blocks:
            yield from blocks


class _Actor:
    """What Ray runs: a scorer that opens its model when the actor starts."""

    def __init__(self, scorer: RowScorer) -> None:
        scorer.open()
        self._scorer = scorer
        self._worst = WorstRows()

    def __call__(self, block: pa.Table) -> pa.Table:
        """The rows of a block of items, the pictures that a report may show, and which images are near copies."""
        import pyarrow as pa

        done = []
        for answer in self._scorer.answers(map(pickle.loads, block["item"].to_pylist())):
            shown = answer.thumbnail if self._worst.see(answer.row) else None
            done.append(
                {
                    "row": _ROW.dump_json(answer.row),
                    "picture": _THUMBNAIL.dump_json(shown) if shown else None,
                    "original": str(answer.original) if answer.original else None,
                }
            )
        columns = {"row": pa.binary(), "picture": pa.binary(), "original": pa.string()}
        return pa.Table.from_pylist(done, pa.schema(columns))


class _Tally:
    """Takes blocks of rows into the folder, and counts."""

    def __init__(self, folder: RunFolder, on_outcome: Callable[[Outcome], None]) -> None:
        self._folder, self._on_outcome = folder, on_outcome
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._worst = WorstRows()
        self._started = time.perf_counter()
        self._first: float | None = None

    def take(self, block: pa.Table) -> set[str]:
        """Keep the rows of a block; the names of its images."""
        self._first = self._first or time.perf_counter()
        names = set()
        for done in block.to_pylist():
            row = _ROW.validate_json(done["row"])
            item = ImageFile(Path(row.path), row.image)
            if done["picture"] is not None and self._worst.see(row):
                self._folder.thumbnails.append(_THUMBNAIL.validate_json(done["picture"]))
            self._folder.results.append(row)
            self._folder.run.near_copies.note(row.image, done["original"] and Path(done["original"]))
            if row.decision == "failed":
                self._failures.append(Failure(item, row.error or ""))
            self._counts[row.decision] += 1
            self._on_outcome(Outcome(item, row.decision))
            names.add(row.image)
        return names

    def summary(self, interrupted: bool) -> RunSummary:
        """Counts and seconds: until the first block came back, and from there on."""
        now = time.perf_counter()
        first = self._first or now
        seconds = {"until the first block": first - self._started, "all other blocks": now - first}
        counts = self._counts
        failures = tuple(self._failures)
        return RunSummary(counts["anomalous"], counts["normal"], failures, now - self._started, interrupted, seconds)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """A connection to the cluster, unless this process has one already."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    where = cluster.address or "local"
    head = where.removeprefix("ray://")
    if ":" in head and not _answers(head):  # Ray itself would try for minutes
        raise ConfigError(f"no Ray cluster at {where}: nothing answers there")
    try:
        ray.init(address=where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, AttributeError) as error:  # the last is Ray's own, if refused
        raise ConfigError(f"no Ray cluster at {where}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _tables(items: Iterator[ImageFile | StoredScore], waiting: set[str], room: int) -> Iterator[pa.Table]:
    """The items in blocks, small ones if there are few items; their names are noted in ``waiting``."""
    import pyarrow as pa

    few = list(islice(items, _BLOCK * _BLOCKS_EACH * room))
    size = min(_BLOCK, math.ceil(len(few) / (_BLOCKS_EACH * room)))
    remaining = chain(few, items)
    while block := list(islice(remaining, size)):
        for one in block:
            item = one.item if isinstance(one, StoredScore) else one
            if item.frame is not None:
                raise ConfigError(f"{item.where}: a video is scored on one machine; omit --engine ray")
            waiting.add(item.name)
        yield pa.table({"item": pa.array([pickle.dumps(one) for one in block], pa.binary())})


def _blocks(tables: list[pa.Table], scorer: RowScorer, cluster: Cluster, room: int) -> Generator[pa.Table, None, None]:
    """Blocks of rows, as they are done; the list is emptied once the object store has the tables."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS
    most = min(room, len(tables))
    given = ray.data.from_arrow(tables)
    tables.clear()
    scored = given.map_batches(
        _Actor,
        fn_constructor_args=(scorer,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=most),
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus or None,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, int(cluster.cpus)))}},
    )
    done = scored.iter_batches(batch_size=None, batch_format="pyarrow")
    yield from _while_there(done, ray.get_runtime_context().gcs_address)


def _while_there(blocks: Iterable[pa.Table], head: str) -> Iterator[pa.Table]:
    """Blocks as they come; a thread waits for them, so that a cluster that has died is noticed.

    Raises:
        ConnectionError: its head has not answered for half a minute.
    """
    taken: Queue[pa.Table | Exception | None] = Queue(maxsize=1)
    left = Event()
    Thread(target=_take, args=(blocks, taken, left), daemon=True).start()
    heard = time.monotonic()
    try:
        while True:
            try:
                block = taken.get(timeout=_LOOK_S)
            except Empty:
                if _answers(head):
                    heard = time.monotonic()
                elif time.monotonic() - heard > _PATIENCE_S:
                    raise ConnectionError(f"the head of the cluster at {head} does not answer any more") from None
                continue
            heard = time.monotonic()
            if block is None:
                return
            if isinstance(block, Exception):
                raise block
            yield block
    finally:
        left.set()


def _take(blocks: Iterable[pa.Table], taken: Queue[pa.Table | Exception | None], left: Event) -> None:
    """Hand blocks over one by one, and at last None, or what went wrong, until nobody waits for them any more."""

    def hand_over(one: pa.Table | Exception | None) -> None:
        while not left.is_set():
            with suppress(Full):
                taken.put(one, timeout=_LOOK_S)
                break

    try:
        for block in blocks:
            hand_over(block)
            if left.is_set():
                return
        hand_over(None)
    except Exception as error:  # for the one who waits
        hand_over(error)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
    except (OSError, ValueError):
        return False
    return True


def _room(cluster: Cluster) -> int:
    """The number of actors that the cluster has room for."""
    import ray

    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    by_cpu = int(there.get("CPU", 0) / cluster.cpus)
    room = min(by_cpu, int(there.get("GPU", 0) / cluster.gpus) if cluster.gpus else by_cpu)
    if room < 1:
        raise ConfigError(
            f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, and an actor needs "
            f"{cluster.cpus:g} and {cluster.gpus:g}"
        )
    return min(room, cluster.actors or room)


def _note(path: Path, names: tuple[str, ...]) -> None:
    if names:
        write_text(path, "\n".join(names))
    else:
        path.unlink(missing_ok=True)
