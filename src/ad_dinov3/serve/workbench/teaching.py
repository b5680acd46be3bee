"""Scoring a folder's images once more, compared with good ones among them, while the workbench answers.

The new results are a folder of their own below the old ones, which stay as they are: the run works in a hidden folder,
goes on there if it was killed, and the folder takes its name when all images are done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import AdDinoError, ConfigError
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import method_title
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.types import Outcome
from ad_dinov3.serve.workbench.model import BenchModel

MOST_GOOD = 200
"""Good images that a folder may be compared with: each is first scored by a memory of all others."""
_PREFIX = "taught-"
_UNFINISHED = ".taught.unfinished"
_OUTPUTS = Outputs(overlays=False, masks=False, maps="png16")


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt, and where it is shown.

    Attributes:
        rows: of all images.
        good: names of those that are good.
        areas: where images are looked at.
        before: fingerprint of the model that made the rows.
    """

    rows: Mapping[str, Row]
    good: tuple[str, ...]
    areas: Areas
    before: str

    def paths(self) -> dict[str, list[Path]]:
        """Files of the good images, by class.

        Raises:
            ConfigError: they cannot be compared with, or another class has none.
        """
        if len(self.good) > MOST_GOOD:
            raise ConfigError(f"{len(self.good)} good images are more than the {MOST_GOOD} that can be compared with")
        if any(row.video_s is not None for row in self.rows.values()):
            raise ConfigError("the frames of a video cannot be scored again here; use predict --normals FOLDER")
        found: dict[str, list[Path]] = {}
        for name in self.good:
            found.setdefault(self.class_of(self.rows[name]), []).append(Path(self.rows[name].path))
        without = sorted({self.class_of(row) for row in self.rows.values()} - found.keys())
        if without:
            raise ConfigError(f"mark good images of {', '.join(without)}, too: each class is compared with its own")
        return found

    def class_of(self, row: Row) -> str:
        """What an image shows; one that failed is said to show what the others do."""
        return row.class_name or next((one.class_name for one in self.rows.values() if one.class_name), "object")

    def items(self) -> list[ImageFile]:
        """The images, to be scored."""
        return [ImageFile(Path(row.path), name, class_name=self.class_of(row)) for name, row in self.rows.items()]


@dataclass(frozen=True)
class Taught:
    """Results that good images have changed.

    Attributes:
        folder: their name below the results before.
        good: names of the good images.
        same_model: the results before are by the same model.
    """

    folder: str
    good: tuple[str, ...]
    same_model: bool


@dataclass(frozen=True)
class Progress:
    """How far a run is: what it does in words, and how many images of how many are done."""

    words: str
    done: int = 0
    total: int = 0


class Teaching:
    """Runs in a thread of its own; a new one stops the one before.

    Args:
        home: the folder of the results before.
        model: what scores.
        on_taught: told of results that are whole.

    Attributes:
        progress: of the run; None: there is none.
        trouble: why the last one came to no end; empty: it did, or was stopped.
    """

    def __init__(self, home: Path, model: BenchModel, on_taught: Callable[[Taught], None]) -> None:
        self.progress: Progress | None = None
        self.trouble = ""
        self._home = home
        self._model = model
        self._on_taught = on_taught
        self._lock = Lock()
        self._stopped = Event()
        self._thread: Thread | None = None

    def begin(self, lesson: Lesson) -> None:
        """Score all images, compared with the good ones; what a run before was doing is dropped."""
        with self._lock:
            before, stopped = self._thread, Event()
            self._stopped.set()
            self._stopped = stopped
            self.trouble, self.progress = "", Progress("Opening the model")
            self._thread = Thread(target=self._run, args=(lesson, stopped, before), daemon=True)
            self._thread.start()

    def stop(self, wait: bool = False) -> None:
        """Drop what is being done; ``wait`` until nothing is."""
        with self._lock:
            self._stopped.set()
            self.trouble, self.progress, thread = "", None, self._thread
        if wait and thread is not None:
            thread.join()

    def _run(self, lesson: Lesson, stopped: Event, before: Thread | None) -> None:
        if before is not None:
            before.join()
        trouble = ""
        try:
            if not stopped.is_set():
                self._teach(lesson, stopped)
        except AdDinoError as error:
            trouble = str(error)
        except (ImportError, OSError) as error:
            trouble = f"the images cannot be scored again: {error}"
        with self._lock:
            if not stopped.is_set():
                self.trouble, self.progress = trouble, None

    def _teach(self, lesson: Lesson, stopped: Event) -> None:
        folder, unfinished = self._next(), self._home / _UNFINISHED
        plain = self._model.plain()
        self._tell(stopped, Progress("Looking at the good images"))
        taught = self._model.taught(lesson.paths())
        model_folder = folder / "model"
        run = FolderRun(
            folder=unfinished,
            model_name=str(model_folder),
            model_fingerprint=self._model.fingerprint_of(taught),
            options=DriveOptions(rule=DecisionRule(taught.threshold, areas=lesson.areas)),
            outputs=_OUTPUTS,
            method=method_title(taught),
            title=self._home.absolute().name,
            promises=taught.promises,
        )
        items, done = lesson.items(), 0

        def count(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            self._tell(stopped, Progress("Scoring again", done, len(items)))

        summary = score_into_folder(items, self._model.scorer_of(taught), run, count, stopped.is_set)
        if summary.run.interrupted or stopped.is_set():
            return
        taught.save_pretrained(unfinished / model_folder.name)
        unfinished.rename(folder)
        self._on_taught(Taught(folder.name, lesson.good, self._model.fingerprint_of(plain) == lesson.before))

    def _tell(self, stopped: Event, progress: Progress) -> None:
        with self._lock:
            if not stopped.is_set():
                self.progress = progress

    def _next(self) -> Path:
        numbers = [int(path.name.removeprefix(_PREFIX)) for path in _taught(self._home)]
        return self._home / f"{_PREFIX}{max(numbers, default=0) + 1}"


def remove_taught(home: Path, but: str = "") -> None:
    """Delete results that good images have changed, but for one folder of them."""
    for path in _taught(home):
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)


def _taught(home: Path) -> Sequence[Path]:
    return [path for path in home.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
