"""A folder's images compared with each other before they are decided on, or a stream's with those before, by class.

Two passes: the first encodes every image and keeps its tokens in a file, compares the images of each class with each
other (`references.mutual`), joins what comes out with the zero-shot maps, and keeps the maps, which are small. The
second is a usual run, whose scorer recognises an image by its input and looks its map up.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.pixels import as_rgb
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import AdDinoError, ConfigError
from ad_dinov3.infer.compared import Comparable, FolderModel, FolderRule
from ad_dinov3.infer.decide import smooth, upsample
from ad_dinov3.infer.drift_watch import DriftWatch
from ad_dinov3.infer.scorer import RawScore, RawScores
from ad_dinov3.predict.memory import MEMORY_MB
from ad_dinov3.references.calibration import Calibration, centred
from ad_dinov3.references.conformal import robust_level, robust_threshold, strictest_promise
from ad_dinov3.references.mutual import LARGEST_RATIO, LEAST_IMAGES, compare_folder
from ad_dinov3.references.normals import Scale, log_odds, squashed
from ad_dinov3.references.stream import Beginning, Stream
from ad_dinov3.references.tokens import Floats

_SCALED_BY = 16  # images of a stream
_JUDGED_BY = 20  # scores of a stream
LEARNING = (
    f"each image is compared with those before it; of each class the first {Stream.warm_up} are only learned from and "
    f"judged by the single-image model, the next {_JUDGED_BY} by a fixed threshold that may miss or flag too many, and "
    "all later ones by a robust guess from the scores before them, with no promise"
)
"""What a person should know of a stream's scores."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What comparing a folder came to.

    Attributes:
        scorer: answers for the images that were compared, and for no others.
        fingerprint: digest of all images that were looked at, and of which are normal; equal ones give equal maps.
        promises: class name -> what is promised of false alarms, where normal images were among those compared.
        remarks: what a person should know, such as which class cannot be compared.
    """

    scorer: FolderScorer
    fingerprint: str
    promises: Mapping[str, str]
    remarks: Sequence[str]


@dataclass(frozen=True, eq=False)
class FolderScorer:
    """A scorer that looks answers up by the digest of an image's input."""

    model: Comparable
    answers: Mapping[str, RawScore]

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the model does."""
        return self.model.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """The answers of images that were compared.

        Raises:
            ConfigError: an image has changed since.
        """
        rows = [self.answers.get(_digest(one, name)) for one, name in zip(batch, class_names, strict=True)]
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            raise ConfigError("an image has changed while its folder was being compared; run it again")
        p_values = [np.nan if row.p_value is None else row.p_value for row in found]
        scores = np.array([row.score for row in found], np.float32)
        return RawScores(np.stack([row.patch_map for row in found]), scores, np.array(p_values))


class StreamScorer:
    """A scorer that compares each image with those that came before it, of the same class.

    While a class is being learned, its first ten images are scored on their own. After that both maps are put on the
    scale of the last images that entered, and the threshold is a robust guess from the last scores, without a promise.

    Args:
        model: tells tokens and zero-shot scores.
        watch: told how far each image is from the first ten, if a change is watched for: a score would not do, since
            the past changes what it means.
    """

    def __init__(self, model: Comparable, watch: DriftWatch | None = None) -> None:
        self._model = model
        self._watch = watch
        self._lines: dict[str, _Line] = {}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the model does."""
        return self._model.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Scores of images in their order; each is part of the past of the next."""
        answer = self._model.answer(batch, class_names)
        if self._watch is not None:
            self._note(self._watch, answer.tokens, class_names)
        rows = [
            self._lines.setdefault(name, _Line()).judge(tokens, answer.scores.row(index), self._model.own_threshold)
            for index, (name, tokens) in enumerate(zip(class_names, answer.tokens, strict=True))
        ]
        scores = np.array([row.score for row in rows], np.float32)
        return RawScores(np.stack([row.patch_map for row in rows]), scores)

    def _note(self, watch: DriftWatch, tokens: Floats, class_names: Sequence[str]) -> None:
        for name, one in zip(class_names, tokens, strict=True):
            apart = self._lines.setdefault(name, _Line()).beginning.apart(one.reshape(-1, one.shape[-1]))
            watch.take([name], np.array([np.nan if apart is None else apart], np.float32))


@dataclass(eq=False)
class _Line:
    """The past of one class: its first images, tokens, and both maps of the last images that entered."""

    beginning: Beginning = field(default_factory=Beginning)
    stream: Stream = field(default_factory=Stream)
    far: deque[Floats] = field(default_factory=lambda: deque(maxlen=_SCALED_BY))
    zero_shot: deque[Floats] = field(default_factory=lambda: deque(maxlen=_SCALED_BY))

    def judge(self, tokens: Floats, alone: RawScore, threshold: float) -> RawScore:
        """The answer for the next image."""
        flat, zero_shot = tokens.reshape(-1, tokens.shape[-1]), log_odds(alone.patch_map)
        distances = self.stream.distances(flat)
        if distances is None:
            self.stream.take(flat, None)
            self.zero_shot.append(zero_shot)
            return moved(alone, threshold)
        far = smooth(distances.reshape(1, *tokens.shape[:2]), 0.5 / tokens.shape[0])[0]
        scales = Scale.of(np.stack(self.far or [far])), Scale.of(np.stack(self.zero_shot))
        joined = _mean_map(scales[0](far), scales[1](zero_shot))
        peak = float(joined.max())
        odds = peak / max(1 - peak, 1e-6)
        level = robust_threshold(self.stream.last_scores) if len(self.stream.last_scores) >= _JUDGED_BY else 1.0
        if self.stream.take(flat, odds):
            self.far.append(far)
            self.zero_shot.append(zero_shot)
        level = level / (1 + level)
        return RawScore(centred(joined, level), float(centred(joined, level).max()))


def moved(alone: RawScore, threshold: float) -> RawScore:
    """A zero-shot answer on the scale where its threshold is 0.5."""
    score = centred(np.array([alone.score], np.float32), threshold)
    return RawScore(centred(alone.patch_map, threshold), float(score[0]))


@dataclass(eq=False)
class _Group:
    """The images of one class, the normal ones last: their inputs' digests, and what they are compared by.

    That is the places of their tokens and their zero-shot answers, or their inputs where the method has its own rule.
    """

    places: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    zero_shot: list[RawScore] = field(default_factory=list)
    inputs: list[NDArray[np.uint8]] = field(default_factory=list)
    normal: int = 0


def compare_images(
    model: FolderModel,
    items: Iterable[ImageFile],
    class_of: Callable[[ImageFile], str],
    normals: Mapping[str, Sequence[Path]],
    scratch: Path,
) -> Comparison:
    """Compare the images of each class with each other, and with its normal images if there are any.

    Normal images are members like all others: swapping one with a good part changes nothing, which makes the promise
    exact. Without them the threshold is a robust guess. Images that cannot be decoded are omitted; the run that follows
    says why.

    Args:
        model: tells tokens and zero-shot scores.
        items: the images, gone through once.
        class_of: what an image shows.
        normals: class name -> files of normal images.
        scratch: a folder for the tokens, removed again.

    Raises:
        ConfigError: the model tells no tokens, or there are too few images for a method's own rule.
    """
    rule = model.folder_rule
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compare-", dir=scratch) as folder:
        store = _Store(Path(folder) / "tokens")
        groups: dict[str, _Group] = {}
        for item in items:
            _take(model, partial(_pixels, item), class_of(item), groups, store)
        for name, paths in normals.items():
            if name in groups:
                before = len(groups[name].digests)
                for path in paths:
                    _take(model, partial(as_rgb, path), name, groups, store)
                groups[name].normal = len(groups[name].digests) - before
        found = {
            name: _compared(name, group, store, model.own_threshold)
            if rule is None
            else _compared_by(rule, name, group)
            for name, group in groups.items()
        }
    answers = {f"{digest}/{name}": raw for name, one in found.items() for digest, raw in one.answers}
    remarks = [remark for one in found.values() for remark in one.remarks]
    promises = {name: one.promise for name, one in found.items() if one.promise}
    good = sorted(digest for group in groups.values() for digest in group.digests[len(group.digests) - group.normal :])
    fingerprint = hashlib.sha256(repr((sorted(answers), good)).encode()).hexdigest()[:16]
    return Comparison(FolderScorer(model, answers), fingerprint, promises, remarks)


def _pixels(item: ImageFile) -> NDArray[np.uint8]:
    """The image as the run that follows will have it."""
    return item.load_within(MEMORY_MB * 2**20).pixels


def _digest(tensor: NDArray[np.uint8], class_name: str) -> str:
    return f"{hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()}/{class_name}"


def _take(
    model: FolderModel,
    read: Callable[[], NDArray[np.uint8]],
    class_name: str,
    groups: dict[str, _Group],
    store: _Store,
) -> None:
    """Encode one image into its class's group, unless it cannot be decoded."""
    try:
        tensor = model.prepare(read())
    except AdDinoError:
        return
    group = groups.setdefault(class_name, _Group())
    group.digests.append(hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest())
    if model.folder_rule is not None:
        group.inputs.append(tensor)
        return
    answer = model.answer(tensor[None], [class_name])
    group.places.append(store.append(answer.tokens[0]))
    group.zero_shot.append(answer.scores.row(0))


class _Store:
    """Tokens of images in one file, in half precision; memory holds none of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self.grid = (0, 0)
        self._width = 0

    def append(self, tokens: Floats) -> int:
        """Write tokens (h, w, D); their place."""
        self.grid, self._width = (tokens.shape[0], tokens.shape[1]), tokens.shape[2]
        with self._path.open("ab") as file:
            file.write(tokens.astype(np.float16).tobytes())
        self._count += 1
        return self._count - 1

    def read(self, place: int) -> Floats:
        """The tokens (T, D) at a place."""
        cells = self.grid[0] * self.grid[1]
        size = cells * self._width
        flat = np.fromfile(self._path, np.float16, size, offset=place * size * 2)
        return flat.reshape(cells, self._width).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Found:
    answers: list[tuple[str, RawScore]]
    remarks: list[str] = field(default_factory=list)
    promise: str = ""


def _compared(name: str, group: _Group, store: _Store, threshold: float) -> _Found:
    count = len(group.places)
    if count < LEAST_IMAGES:
        counted = "1 image is" if count == 1 else f"{count} images are"
        return _alone(group, threshold, f"{name}: {counted} too few to be compared with each other")
    found = list(compare_folder(lambda index: store.read(group.places[index]), group.digests))
    ratio = float(np.median([one.ratio for one in found]))
    if ratio > LARGEST_RATIO:
        return _alone(group, threshold, _unlike(name, ratio))
    order = sorted(found, key=lambda one: one.index)
    far = np.stack([one.distances.reshape(store.grid) for one in order])
    maps = _joined(smooth(far, 0.5 / far.shape[1]), np.stack([raw.patch_map for raw in group.zero_shot]))
    return _judged(name, group, RawScores(maps, maps.max(axis=(1, 2))), _guess_by_odds)


def _unlike(name: str, ratio: float) -> str:
    return (
        f"{name}: the images do not resemble each other (the nearest parts of others are {ratio:.2f} times as "
        f"far as parts picked at random; up to {LARGEST_RATIO} they can be compared)"
    )


def _compared_by(rule: FolderRule, name: str, group: _Group) -> _Found:
    """The images of a class as the method's own rule sees them."""
    if len(group.inputs) < LEAST_IMAGES:
        raise ConfigError(
            f"{name}: {len(group.inputs)} images are too few to be compared with each other, and the method scores no "
            f"image by itself; give at least {LEAST_IMAGES}"
        )
    return _judged(name, group, rule(group.inputs), robust_level)


def _judged(name: str, group: _Group, raw: RawScores, guess: Callable[[Floats], float]) -> _Found:
    """Scores of all images of a class with their thresholds at 0.5: a promise of normal images, else a robust guess."""
    peaks, normal = raw.maps.max(axis=(1, 2)), group.normal
    if normal < 2:
        levels = [guess(values) for values in (peaks, raw.scores)]
        scores = centred(raw.scores, levels[1])
        answers = [RawScore(centred(one, levels[0]), float(score)) for one, score in zip(raw.maps, scores, strict=True)]
        remark = (
            f"{name}: {len(peaks)} images compared with each other; the threshold is a robust guess, with no promise"
        )
        return _Found(list(zip(group.digests, answers, strict=True)), [remark])
    good, good_peaks = (values[-normal:].astype(np.float64) for values in (raw.scores, peaks))
    calibration = Calibration(good, good_peaks, strictest_promise(normal))
    answers = []
    for one, score in zip(raw.maps, raw.scores, strict=True):
        shown, moved_score = calibration.applied(one, score[None])
        answers.append(RawScore(shown, float(moved_score[0]), calibration.p_value(float(score))))
    return _Found(list(zip(group.digests, answers, strict=True)), [], calibration.promise.sentence())


def _guess_by_odds(values: Floats) -> float:
    """A robust threshold of squashed values, which hide how far defects stick out, by their odds."""
    odds = robust_threshold(values / np.maximum(1 - values, 1e-6))
    return odds / (1 + odds)


def _joined(far: Floats, zero_shot: Floats) -> Floats:
    """Both maps of all images in deviations from what is usual among them, averaged."""
    scales = Scale.of(far), Scale.of(log_odds(zero_shot))
    pairs = zip(scales[0](far), scales[1](log_odds(zero_shot)), strict=True)
    return np.stack([_mean_map(one, other) for one, other in pairs])


def _mean_map(far: Floats, zero_shot: Floats) -> Floats:
    """The mean of two maps in deviations, on the finer grid, squashed."""
    grid = (max(far.shape[0], zero_shot.shape[0]), max(far.shape[1], zero_shot.shape[1]))
    return squashed((upsample(far, grid) + upsample(zero_shot, grid)) * np.float32(0.5))


def _alone(group: _Group, threshold: float, remark: str) -> _Found:
    """Each image's zero-shot answer, its threshold moved to 0.5."""
    answers = [moved(raw, threshold) for raw in group.zero_shot]
    return _Found(list(zip(group.digests, answers, strict=True)), [f"{remark}; each is scored on its own"])
