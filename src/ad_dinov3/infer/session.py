"""An exported folder as a detector, on ONNX Runtime or OpenVINO without torch or transformers, or on torch alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.errors import AdDinoError, ConfigError, ShapeError, WeightsError
from ad_dinov3.files import read_seen_images, write_seen_images
from ad_dinov3.infer.areas import ALL_OF_IT, read_areas, write_areas
from ad_dinov3.infer.compared import (
    Answer,
    FolderRule,
    calibrated,
    load_references,
    remembered,
    save_references,
    scorer_of,
    threshold_of,
    with_class,
)
from ad_dinov3.infer.decide import DecisionRule, smooth
from ad_dinov3.infer.exported import NO_TOKENS, Mode, SessionInput, at_size, read_session_config
from ad_dinov3.infer.good_images import check_unseen, distinct, file_hashes
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.predictions import Predictions, predict_images, predict_stream
from ad_dinov3.infer.runtimes import Outputs, open_graph
from ad_dinov3.infer.scorer import RawScores, Scorer, described
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.references.calibration import References

_Choices = tuple[str, Mode, int | None, tuple[int, int] | None]  # device, mode, threads, size


class Session:
    """An exported model behind the detector's interface: images in, raw scores or predictions out.

    Args:
        folder: as `ad_dinov3.export` writes it.
        device: ``cpu``; ONNX Runtime also ``cuda``, ``tensorrt``, ``coreml``, ``directml``, OpenVINO also ``gpu``,
            ``npu``, ``auto``, torch also ``cuda``, where the machine and the installed runtime have them.
        mode: ``throughput`` works on several images side by side, ``latency`` gives all cores to one.
        threads: at most this many processor threads are used; None: the runtime chooses.
        size: (H, W) of the input in px, for a folder that was exported with ``--size dynamic``; None: config.json's.

    Raises:
        WeightsError: the folder is not an exported model, or its files do not fit together.
        MissingExtraError: the runtime is not installed.
        ConfigError: the device is not there, or the graph does not take the size.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str = "cpu",
        mode: Mode = "throughput",
        threads: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._choices = (device, mode, threads, size)
        self.config = at_size(read_session_config(self.folder), size)
        file = self.folder / self.config.file
        if not file.is_file():
            raise WeightsError(f"{file} is missing; export the model again")
        self.references = load_references(self.folder)
        self.areas = read_areas(self.folder) or ALL_OF_IT
        self._noted: frozenset[str] = frozenset()
        with self._in_words("opened"):
            self._graph = open_graph(file, self.config, device, mode, threads)

    def __reduce__(self) -> tuple[Callable[..., Session], tuple[object, ...]]:
        """Pickle as the folder and the choices, as a runtime's graph cannot travel."""
        return _reopen, (self.folder, self._choices, self.references, self._noted)

    @property
    def method(self) -> str:
        """What ``--method`` calls the model's method."""
        return self.config.method

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal maps."""
        return "-".join(filter(None, (self.config.fingerprint, self.references.fingerprint)))

    @property
    def seen_images(self) -> frozenset[str]:
        """sha256 of the files that head and encoder have seen, as far as they say, and of the good images known."""
        return read_seen_images(self.folder) | self._noted

    @property
    def calls_at_once(self) -> int:
        """How many calls of `score` at once, from as many threads, keep the processor busy."""
        return self._graph.calls

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """Classes that it has normal images of."""
        return tuple(self.references.known)

    @property
    def promises(self) -> dict[str, str]:
        """What is promised of false alarms, in words, for each class that is calibrated."""
        return self.references.promises

    @property
    def own_threshold(self) -> float:
        """Where the decision on zero-shot scores lies."""
        return self.config.threshold

    @property
    def threshold(self) -> float:
        """Where the decision lies: 0.5 once the model knows good images."""
        return threshold_of(self, self.references)

    @property
    def input(self) -> SessionInput:
        """What the graph takes."""
        return self.config.input

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The graph's input (3, h, w) uint8 of an image (H, W, 3) uint8 RGB."""
        return resize_image(image, self.config.input.size, self.config.input.interpolation)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names).

        Raises:
            ShapeError: the inputs are not of the graph's size.
            ConfigError: a class is not baked into the graph, or others have normal images and it has none.
        """
        return scorer_of(self, self.references).score(batch, class_names)

    def seen_through(self, view: View) -> Scorer:
        """What scores images with all that is known of good ones, looking in a certain way.

        Raises:
            ConfigError: the model has looked at its good images in another way, or the view cannot be.
        """
        return self if view == WHOLE else scorer_of(self, self.references, view)

    def zero_shot(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Scores of inputs on their own, whatever is known of good ones; arguments and errors as in `score`."""
        outputs = self._outputs(batch, class_names)
        sigma = self.config.smoothing_sigma_px / batch.shape[2]
        return RawScores(smooth(outputs.maps, sigma), outputs.scores)

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer:
        """The same, with the comparison tokens.

        Raises:
            ConfigError: the graph was exported without them.
        """
        outputs = self._outputs(batch, class_names)
        if outputs.tokens is None:
            raise ConfigError(f"{self.folder} {NO_TOKENS}")
        sigma = self.config.smoothing_sigma_px / batch.shape[2]
        return Answer(RawScores(smooth(outputs.maps, sigma), outputs.scores), outputs.tokens)

    @property
    def folder_rule(self) -> FolderRule | None:
        """None: no method that has a way of its own to compare the images of a folder can be exported."""
        return None

    def _outputs(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Outputs:
        step, size = self.config.size_multiple, batch.shape[2:]
        fits = size == self.config.input.size if step is None else all(side >= 2 * step for side in size)
        if batch.dtype != np.uint8 or batch.shape[1] != 3 or not fits or any(side % (step or 1) for side in size):
            sides = f"multiples of {step} px from {2 * step}" if step else f"{self.config.input.size}"
            raise ShapeError(f"expected inputs (B, 3, H, W) uint8, H and W {sides}; got {batch.shape} {batch.dtype}")
        if len(class_names) != len(batch):
            raise ShapeError(f"expected {len(batch)} class names, got {len(class_names)}")
        self._check_classes(class_names)
        several = len(self.config.class_names) > 1
        return self._by_class(batch, class_names) if several else self._answer(batch, None)

    def predict(self, image: ImageSource, class_name: str = "object") -> Prediction:
        """The prediction for one image of any kind that `data.pixels.as_rgb` takes.

        Raises:
            ImageError: a file cannot be decoded.
            ShapeError: an array or tensor has another shape or type.
            ConfigError: the class is not baked into the graph.
            ScoreError: the graph answers with NaN, infinity or a value outside [0, 1].
        """
        return self.predict_batch([image], class_name)[0]

    def predict_batch(self, images: Sequence[ImageSource], class_name: str = "object") -> Predictions:
        """Predictions for images of any sizes, scored in one batch; arguments and errors as in `predict`."""
        return predict_images(self, images, DecisionRule(self.threshold, areas=self.areas), class_name)

    def predict_many(
        self, images: Iterable[ImageSource], class_name: str = "object", batch_size: int = 8, progress: bool = False
    ) -> Iterator[Prediction]:
        """Predictions one by one, in order; as `Detector.predict_many`."""
        return predict_stream(self, images, class_name, batch_size, progress)

    def __repr__(self) -> str:
        return described(self, str(self.folder), self.config.input.size)

    def remember(self, images: Sequence[ImageSource], class_name: str = "object", view: View = WHOLE) -> str | None:
        """Compare images of a class with these normal ones from now on; as `Detector.remember`, without torch.

        Raises:
            ConfigError: there are no images, or the graph was exported without tokens.
            ImageError: a file cannot be decoded.
        """
        found = remembered(self, distinct(images), class_name, view)
        self.references = with_class(self.references, found)
        self._noted |= file_hashes(images)
        return found.promises.get(class_name)

    def calibrate(
        self, images: Sequence[ImageSource], false_alarms: float, class_name: str = "object", view: View = WHOLE
    ) -> str:
        """Put the threshold where good images say that a share of them will be flagged; as `Detector.calibrate`.

        Raises:
            ConfigError: so few images cannot promise the share, or the model has seen one of them.
        """
        check_unseen(images, self.seen_images)
        self.references = calibrated(self, self.references, distinct(images), class_name, false_alarms, view)
        self._noted |= file_hashes(images)
        return self.references.promises[class_name]

    @property
    def states(self) -> None:
        """None: the prompts of a graph are baked."""
        return None

    def with_states(self, normal: Sequence[str], abnormal: Sequence[str]) -> Session:
        """Refuse other states: the prompts of a graph are baked.

        Raises:
            ConfigError: always; it says what to do instead.
        """
        raise ConfigError(
            f"{self.folder} is an export, whose prompts are baked; choose the states of the model that it was made "
            "from, and export that again"
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the exported folder, with what it knows of good images."""
        target = Path(folder)
        if target.absolute() != self.folder.absolute():
            shutil.copytree(self.folder, target, dirs_exist_ok=True)
        write_seen_images(target, self.seen_images)
        save_references(self.references, target)
        write_areas(target, self.areas)

    def _check_classes(self, class_names: Sequence[str]) -> None:
        known = self.config.class_names
        unknown = sorted(set(class_names) - set(known))
        if known and unknown:
            raise ConfigError(
                f"no prompts for {', '.join(unknown)}; baked are {', '.join(known)}; "
                f"export again with --class-name {unknown[0]}"
            )

    def _by_class(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Outputs:
        known = self.config.class_names
        indices = np.array([known.index(name) for name in class_names])
        parts = {int(index): np.flatnonzero(indices == index) for index in np.unique(indices)}
        done = [self._answer(batch[rows], index) for index, rows in parts.items()]
        back = np.argsort(np.concatenate(list(parts.values())))
        tokens = [one.tokens for one in done if one.tokens is not None]
        return Outputs(
            np.concatenate([one.maps for one in done])[back],
            np.concatenate([one.scores for one in done])[back],
            np.concatenate(tokens)[back] if tokens else None,
        )

    def _answer(self, batch: NDArray[np.uint8], index: int | None) -> Outputs:
        """The graph's answer for images of one class.

        Raises:
            WeightsError: the runtime cannot run the graph.
        """
        with self._in_words("run"):
            return self._graph.run(batch, index)

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        """Turn a runtime's error into one line that says what cannot be done with the graph."""
        try:
            yield
        except AdDinoError:
            raise
        except Exception as error:  # each runtime has errors of its own
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise WeightsError(
                f"{self.folder / self.config.file}: cannot be {what} ({reason}); export it again"
            ) from error


def _reopen(folder: Path, choices: _Choices, references: References, noted: frozenset[str]) -> Session:
    device, mode, threads, size = choices
    session = Session(folder, device=device, mode=mode, threads=threads, size=size)
    session.references, session._noted = references, noted
    return session
