"""Images compared with normal ones: any model that tells its tokens becomes one with a memory and a calibration.

The model's own zero-shot map and the distance from the remembered tokens become one map (`references.normals`), and the
normal images, each scored by a memory without it, say from where on a score is an alarm (`references.calibration`).
numpy at the boundary, so that exported graphs do it without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.transforms import Interpolation
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.files import replacing
from ad_dinov3.infer.decide import smooth, upsample
from ad_dinov3.infer.scorer import RawScores, Scorer
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.references.calibration import Calibration, References, centred
from ad_dinov3.references.conformal import VOID, Promise, promise_for, strictest_promise
from ad_dinov3.references.normals import Known, KnownNormals
from ad_dinov3.references.tokens import Floats

REFERENCES_FILE = "references.safetensors"
CALIBRATED_THRESHOLD = 0.5
"""Where a calibrated model's decision lies, whatever was promised."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a batch before it is compared with anything.

    Attributes:
        scores: the zero-shot maps and image scores.
        tokens: (B, h, w, D) comparison tokens.
    """

    scores: RawScores
    tokens: Floats


class ModelInput(Protocol):
    """What a model's settings say of its input: the size (h, w) in px and the filter of the resize to it."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def interpolation(self) -> Interpolation: ...


class Comparable(Protocol):
    """A model that scores images on their own, and tells the tokens that they are compared by."""

    @property
    def input(self) -> ModelInput: ...

    @property
    def own_threshold(self) -> float:
        """Where its decision on zero-shot scores lies."""
        ...

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As `Scorer.prepare`."""
        ...

    def zero_shot(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names)."""
        ...

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer:
        """The same, with the comparison tokens.

        Raises:
            ConfigError: the model does not tell its tokens.
        """
        ...


FolderRule = Callable[[Sequence[NDArray[np.uint8]]], RawScores]
"""Inputs (3, h, w) uint8 of all images of a class -> their scores by each other."""


class FolderModel(Comparable, Protocol):
    """A model whose method may have a way of its own to compare the images of a folder."""

    @property
    def folder_rule(self) -> FolderRule | None:
        """The method's own way; None: images are compared by their tokens."""
        ...


class Alone:
    """A scorer of images on their own."""

    def __init__(self, model: Comparable) -> None:
        self._model = model

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the model does."""
        return self._model.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """The model's zero-shot scores."""
        return self._model.zero_shot(batch, class_names)


class Compared:
    """A scorer that joins a model's zero-shot map with the distance from normal images; the score is the map's peak.

    Args:
        inner: tells tokens and zero-shot scores.
        known: memories by class.
    """

    def __init__(self, inner: Comparable, known: Mapping[str, Known]) -> None:
        self._inner = inner
        self._known = known

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the model does."""
        return self._inner.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Joined maps, and their peaks as image scores.

        Raises:
            ConfigError: there are no normal images of a class.
        """
        _check_known(class_names, self._known)
        answer = self._inner.answer(batch, class_names)
        rows = zip(class_names, answer.tokens, answer.scores.maps, strict=True)
        maps = np.stack([_joined(self._known[name], tokens, zero_shot) for name, tokens, zero_shot in rows])
        return RawScores(maps, maps.max(axis=(1, 2)))


def _joined(known: Known, tokens: Floats, zero_shot: Floats) -> Floats:
    grid = (max(tokens.shape[0], zero_shot.shape[0]), max(tokens.shape[1], zero_shot.shape[1]))
    far = known.distances(tokens)
    far = smooth(far[None], 0.5 / far.shape[0])[0]  # half a cell
    return known.join(upsample(far, grid), upsample(zero_shot, grid))


def _check_known(class_names: Sequence[str], known: Mapping[str, object]) -> None:
    unknown = sorted(set(class_names) - known.keys())
    if unknown:
        raise ConfigError(f"there are no normal images of {', '.join(unknown)}; there are some of {', '.join(known)}")


class Calibrated:
    """A scorer whose scores and maps lie on the scale of good images: 0.5 is where the promise lies.

    Args:
        inner: scores whole images.
        calibrations: by class.
        threshold: of the inner one, which becomes 0.5 for classes without a calibration.
    """

    def __init__(self, inner: Scorer, calibrations: Mapping[str, Calibration], threshold: float) -> None:
        self._inner = inner
        self._calibrations = calibrations
        self._threshold = threshold

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As the inner one does."""
        return self._inner.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """The inner one's scores on the calibrated scale, with p-values."""
        raw = self._inner.score(batch, class_names)
        maps, scores = centred(raw.maps, self._threshold), centred(raw.scores, self._threshold)
        p_values = np.full(len(scores), np.nan)
        for row, name in enumerate(class_names):
            calibration = self._calibrations.get(name)
            if calibration is not None:
                maps[row], scores[row : row + 1] = calibration.applied(raw.maps[row], raw.scores[row : row + 1])
                p_values[row] = calibration.p_value(float(raw.scores[row]))
        return RawScores(maps, scores, p_values)


def scorer_of(model: Comparable, references: References, view: View = WHOLE) -> Scorer:
    """What scores images with all that is known of good ones.

    Raises:
        ConfigError: the good images were looked at through another view.
    """
    if not references.is_empty and references.view != view.words:
        raise ConfigError(
            f"the model has looked at its good images {references.view or 'as a whole'}, and would look at others "
            f"{view.words or 'as a whole'}; look at all of them in one way"
        )
    inner = _seen(Compared(model, references.known) if references.known else Alone(model), model, view)
    level = CALIBRATED_THRESHOLD if references.known else model.own_threshold
    return Calibrated(inner, references.calibrations, level) if references.calibrations else inner


def threshold_of(model: Comparable, references: References) -> float:
    """Where the decision on what `scorer_of` answers lies: at the model's own threshold until it knows good images."""
    return model.own_threshold if references.is_empty else CALIBRATED_THRESHOLD


def _seen(scorer: Scorer, model: Comparable, view: View) -> Scorer:
    return view.of(scorer, model.input.size, model.input.interpolation)


def remembered(
    model: Comparable, images: Iterable[NDArray[np.uint8]], class_name: str, view: View = WHOLE
) -> References:
    """A memory of normal images, calibrated by themselves: each is scored by a memory without it.

    Nothing is encoded twice: what the model says of an image is kept, and said again to each memory.

    Args:
        model: tells tokens and zero-shot scores.
        images: (H, W, 3) uint8 RGB, one at a time.
        class_name: what they show.
        view: how the model will look at images.

    Raises:
        ConfigError: there are no images.
    """
    prepared, answers = [], []
    for image in images:
        recorder = _Recorder(model)
        viewed = _seen(recorder, model, view)
        prepared.append(viewed.prepare(image))
        viewed.score(prepared[-1][None], [class_name])
        answers.append(recorder.answers)
    tokens = [np.concatenate([_flat(answer.tokens) for answer in told]) for told in answers]
    zero_shot = [np.concatenate([answer.scores.maps.ravel() for answer in told]) for told in answers]
    normals = KnownNormals(tokens, zero_shot)
    known = {class_name: normals.known()}
    if len(answers) == 1:
        return References(known, view=view.words)
    left_out = []
    for index, told in enumerate(answers):
        compared = Compared(_Replay(model, told), {class_name: normals.known(without=index)})
        scorer = _seen(compared, model, view)
        left_out.append(scorer.score(prepared[index][None], [class_name]))
    own = calibration(left_out, strictest_promise(len(left_out)))
    return References(known, {class_name: own}, view.words)


def calibrated(
    model: Comparable,
    references: References,
    images: Iterable[NDArray[np.uint8]],
    class_name: str,
    false_alarms: float,
    view: View = WHOLE,
) -> References:
    """What is known, with thresholds of one class from good images that the model has not seen.

    Raises:
        ConfigError: so few images cannot promise the rate.
    """
    plain = replace(references, calibrations={}, view=view.words)
    scorer = scorer_of(model, plain, view)
    raws = [scorer.score(scorer.prepare(image)[None], [class_name]) for image in images]
    own = calibration(raws, promise_for(false_alarms, len(raws)))
    return replace(plain, calibrations={**references.calibrations, class_name: own})


def with_class(references: References, more: References) -> References:
    """What is known of other classes, and of those of ``more`` what that says.

    Raises:
        ConfigError: the model looked at them in another way.
    """
    if references.known and references.view != more.view:
        raise ConfigError(
            f"the model remembers images {references.view or 'as a whole'}, not {more.view or 'as a whole'}; "
            "give all normal images again"
        )
    kept = {name: one for name, one in references.calibrations.items() if name not in more.known}
    return replace(more, known={**references.known, **more.known}, calibrations={**kept, **more.calibrations})


def save_references(references: References, folder: Path) -> None:
    """Write a folder's references.safetensors, or remove it if there is nothing to keep."""
    file = folder / REFERENCES_FILE
    if references.is_empty:
        file.unlink(missing_ok=True)
        return
    from safetensors.numpy import save_file  # most exported folders need none

    with replacing(file) as unfinished:
        save_file(references.tensors(), unfinished, {"view": references.view, "format_version": "1"})


def load_references(folder: Path) -> References:
    """What `save_references` wrote; nothing if there is no such file.

    Raises:
        WeightsError: the file cannot be read or does not fit this version.
    """
    file = folder / REFERENCES_FILE
    if not file.is_file():
        return References()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            view = (opened.metadata() or {}).get("view", "")
            return References.from_tensors({name: opened.get_tensor(name) for name in opened.keys()}, view)  # noqa: SIM118  not iterable
    except (OSError, SafetensorError, ShapeError, ConfigError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); remember the normal images again") from None


def card_of(references: References) -> str:
    """What a model card says of good images, as Markdown; empty if none are known."""
    lines = [f"- remembers normal images of: {', '.join(references.known)}"] if references.known else []
    lines += [f"- {name}: {words}" for name, words in references.promises.items()]
    return "\n".join(["", "## Good images", "", *lines, "", VOID, ""]) if lines else ""


def calibration(raws: Sequence[RawScores], promise: Promise) -> Calibration:
    """The calibration by good images, one answer for each, at the threshold that a promise sets."""
    scores = np.array([float(raw.scores[0]) for raw in raws])
    return Calibration(scores, np.array([float(raw.maps.max()) for raw in raws]), promise)


def _flat(tokens: Floats) -> Floats:
    return tokens.reshape(-1, tokens.shape[-1])


class _Recorder:
    """A scorer that keeps what a model says."""

    def __init__(self, model: Comparable) -> None:
        self._model = model
        self.answers: list[Answer] = []

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._model.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        self.answers.append(self._model.answer(batch, class_names))
        return self.answers[-1].scores


class _Replay:
    """A model that says again what was recorded, in the same order."""

    def __init__(self, model: Comparable, answers: Sequence[Answer]) -> None:
        self.input, self.own_threshold = model.input, model.own_threshold
        self._model = model
        self._answers = iter(answers)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._model.prepare(image)

    def zero_shot(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        return self.answer(batch, class_names).scores

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer:
        return next(self._answers)
