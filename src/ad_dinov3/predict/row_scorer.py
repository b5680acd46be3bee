"""A scorer that travels: settings that pickle, images in, rows out; for worker processes, Ray, Spark and Dask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType

from ad_dinov3.data.near_copies import NearCopies
from ad_dinov3.data.remote import is_uri, uri_path
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import DataError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import CarriedModel, ModelSpec, look_through
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.predict.drive import DriveOptions, judge, stream
from ad_dinov3.predict.near_copy_sink import original_of
from ad_dinov3.predict.outputs import FileSink, Outputs
from ad_dinov3.predict.report import Thumbnail, make_thumbnail
from ad_dinov3.predict.results import Row, RunKey, failed_row, row_of, run_key
from ad_dinov3.predict.store import open_place
from ad_dinov3.predict.timing import StepTimes
from ad_dinov3.predict.types import Failure, Scored, StoredScore

_OUT_OF_MEMORY = {"OutOfMemoryError", "MemoryError"}  # torch's and Python's
NO_FILES = Outputs(overlays=False, masks=False, maps="none")


@dataclass(frozen=True)
class Answer:
    """What came of one image.

    Attributes:
        row: as results.jsonl has it.
        thumbnail: the picture that a report shows of it; None for a failed one.
        original: the normal image that it is a near copy of, if it is one.
    """

    row: Row
    thumbnail: Thumbnail | None = None
    original: Path | None = None


class RowScorer:
    """Images in, rows of results.jsonl out; one row for each image, whatever happens to it.

    It pickles as its settings alone and opens the model at the first image, so that it can be sent to any process that
    has this package and sees the model and the images under the same names.

    Args:
        model: the model and its view, by name, or carried along.
        options: how to decide and to drive; None: `DriveOptions` with the model's own threshold.
        folder: where each image's files go, a folder or a URI; the same for all processes that share a run.
        outputs: which files that are; none without a folder.
        known: class name -> what finds near copies of its normal images.
    """

    def __init__(
        self,
        model: ModelSpec | CarriedModel | None = None,
        options: DriveOptions | None = None,
        folder: Path | str | None = None,
        outputs: Outputs = NO_FILES,
        known: Mapping[str, NearCopies] = MappingProxyType({}),
    ) -> None:
        store = open_place(folder).store if folder else None
        self._settings = (model or ModelSpec(), options, store, outputs if store else NO_FILES, dict(known))
        self._open: _Open | None = None

    def __getstate__(self) -> dict[str, object]:
        """The settings, without the opened model."""
        return {"_settings": self._settings, "_open": None}

    def open(self) -> None:
        """Open the model now, where a refusal is wanted rather than rows that failed.

        Raises:
            WeightsError: its files are missing or do not fit.
            ConfigError: the settings contradict each other.
        """
        self._opened()

    def rows(self, images: Iterable[str | Path | bytes | ImageFile]) -> list[Row]:
        """The rows of images in their order: paths, contents of files, or items with names; never raises.

        A path names its row, a content is called ``image N`` by its place, and a failed row says why in ``error``.
        """
        return [answer.row for answer in self.answers(map(as_item, images, count()))]

    def answers(self, items: Iterable[ImageFile | StoredScore]) -> Iterator[Answer]:
        """As `rows`, each with its picture; never raises.

        When a batch ends in an error, its halves are tried, down to the image that is to blame; when it is too large
        for the memory, later ones are smaller too.
        """
        waiting = list(items)
        done = 0
        try:
            for answer in self._stream(waiting):
                yield answer
                done += 1
        except Exception as error:
            rest = waiting[done:]
            if len(rest) == 1 or isinstance(error, DataError):  # DataError: nothing can be written
                reason = str(error) or type(error).__name__
                yield from (Answer(failed_row(Failure(_source(item), reason, "score"))) for item in rest)
                return
            if self._open and type(error).__name__ in _OUT_OF_MEMORY:
                smaller = max(1, min(self._open.options.batch_size, len(rest)) // 2)
                self._open = replace(self._open, options=replace(self._open.options, batch_size=smaller))
            yield from self.answers(rest[: len(rest) // 2])
            yield from self.answers(rest[len(rest) // 2 :])

    def _opened(self) -> _Open:
        if self._open is None:
            model, options, _, outputs, _ = self._settings
            detector = model.open()
            viewed = look_through(detector, model.view)
            decided = options or DriveOptions(rule=DecisionRule(detector.threshold, areas=detector.areas))
            self._open = _Open(viewed.scorer, decided, run_key(viewed.fingerprint, decided, outputs))
        return self._open

    def _stream(self, items: Sequence[ImageFile | StoredScore]) -> Iterator[Answer]:
        opened, times = self._opened(), StepTimes()
        _, _, store, outputs, known = self._settings
        files = FileSink(store, outputs) if store else None

        def finish(scored: Scored) -> Answer:
            result = judge(scored, opened.options, times)
            if files:
                files.write(result)
            picture = make_thumbnail(scored.item.name, scored.picture, scored.raw.patch_map)
            return Answer(row_of(result, opened.key, outputs), picture, original_of(result, known))

        for outcome in stream(items, opened.scorer, opened.options, finish, times):
            if isinstance(outcome, Failure):
                if files:
                    files.fail(outcome)
                yield Answer(failed_row(outcome))
            else:
                yield outcome


@dataclass(frozen=True)
class _Open:
    scorer: Scorer
    options: DriveOptions
    key: RunKey


def as_item(image: str | Path | bytes | ImageFile, place: int) -> ImageFile:
    """What a program hands over as an item with a relative name."""
    if isinstance(image, ImageFile):
        return image
    if isinstance(image, bytes):
        return ImageFile(Path(f"image {place}"), f"image {place}", data=image)
    if is_uri(str(image)):
        return ImageFile(Path(uri_path(str(image))), str(uri_path(str(image))), uri=str(image))
    path = Path(image)
    return ImageFile(path, "/".join(part for part in path.parts if part not in (path.anchor, "..")))


def _source(item: ImageFile | StoredScore) -> ImageFile:
    return item.item if isinstance(item, StoredScore) else item
