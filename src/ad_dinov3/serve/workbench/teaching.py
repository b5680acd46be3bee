"""Scoring a folder's images once more, compared with good ones among them or by other words, while others look.

The new results are a folder of their own below the old ones, which stay as they are: the run works in a hidden folder,
goes on there if it was killed, and the folder takes its name when all images are done.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import ModelSpec, method_title
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.run_facts import MadeBy
from ad_dinov3.serve.workbench.choices import Taught, Wanted
from ad_dinov3.serve.workbench.folder import Results
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.work import Hand, Progress

MOST_GOOD = 200
"""Good images that a folder may be compared with: each is first scored by a memory of all others."""
_PREFIX = "taught-"
_UNFINISHED = ".taught.unfinished"
_MODEL = "model"
_OUTPUTS = Outputs(overlays=False, masks=False, maps="png16")


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt, and where it is shown.

    Attributes:
        before: the results, as the model made them by itself.
        wanted: the good images among them, and the states.
        areas: where images are looked at.
        start: results of the same choice, which need not be scored again; None: there are none.
    """

    before: Results
    wanted: Wanted
    areas: Areas
    start: Path | None = None

    @property
    def rows(self) -> Mapping[str, Row]:
        """Of all images."""
        return self.before.rows

    def paths(self) -> dict[str, list[Path]]:
        """Files of the good images, by class.

        Raises:
            ConfigError: they cannot be compared with, or another class has none.
        """
        good = self.wanted.good
        if len(good) > MOST_GOOD:
            raise ConfigError(f"{len(good)} good images are more than the {MOST_GOOD} that can be compared with")
        if any(row.video_s is not None for row in self.rows.values()):
            raise ConfigError("the frames of a video cannot be scored again here; use predict --normals FOLDER")
        found: dict[str, list[Path]] = {}
        for name in good:
            found.setdefault(self.class_of(self.rows[name]), []).append(Path(self.rows[name].path))
        without = sorted({self.class_of(row) for row in self.rows.values()} - found.keys())
        if good and without:
            raise ConfigError(f"mark good images of {', '.join(without)}, too: each class is compared with its own")
        return found

    def class_of(self, row: Row) -> str:
        """What an image shows; one that failed is said to show what the others do."""
        return row.class_name or next((one.class_name for one in self.rows.values() if one.class_name), "object")

    def items(self) -> list[ImageFile]:
        """The images, to be scored."""
        return [ImageFile(Path(row.path), name, class_name=self.class_of(row)) for name, row in self.rows.items()]


def teach(home: Path, model: BenchModel, lesson: Lesson, work: Hand) -> Taught | None:
    """Score all images, compared with the good ones, into a folder of their own.

    Args:
        home: the folder of the results before.
        model: what scores.
        lesson: what is to be learnt.
        work: takes the progress, and says when to stop.

    Returns:
        The results when they are whole; None: it was told to stop.

    Raises:
        AdDinoError: the good images cannot be compared with.
    """
    plain = model.plain()
    work.tell(Progress("Looking at the good images" if lesson.wanted.good else "Encoding the words"))
    taught = model.taught(lesson.paths(), lesson.wanted.states)
    folder, unfinished = _next(home), home / _UNFINISHED
    if lesson.start is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(lesson.start, unfinished)
    run = FolderRun(
        folder=unfinished,
        model_name=str(folder / _MODEL),
        model_fingerprint=model.fingerprint_of(taught),
        options=DriveOptions(rule=DecisionRule(taught.threshold, areas=lesson.areas)),
        outputs=_OUTPUTS,
        method=method_title(taught),
        title=home.absolute().name,
        promises=taught.promises,
        made_by=MadeBy(ModelSpec(str((folder / _MODEL).absolute()), view=model.view)),
    )
    items = lesson.items()
    scorer, count = model.scorer_of(taught), work.counter("Scoring again", len(items))
    summary = score_into_folder(items, scorer, run, count, work.is_stopped)
    if summary.run.interrupted or work.is_stopped():
        return None
    shutil.rmtree(unfinished / _MODEL, ignore_errors=True)  # half of one, or of another choice, after a kill
    taught.save_pretrained(unfinished / _MODEL)
    unfinished.rename(folder)
    same_model = model.fingerprint_of(plain) == lesson.before.run.model_fingerprint
    return Taught(folder.name, lesson.wanted, same_model)


def _next(home: Path) -> Path:
    numbers = [int(path.name.removeprefix(_PREFIX)) for path in _taught(home)]
    return home / f"{_PREFIX}{max(numbers, default=0) + 1}"


def remove_taught(home: Path, but: str = "") -> None:
    """Delete results that good images have changed, but for one folder of them."""
    for path in _taught(home):
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)


def _taught(home: Path) -> Sequence[Path]:
    return [path for path in home.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
