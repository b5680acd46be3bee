"""An exported folder as a detector, on ONNX Runtime or OpenVINO without torch or transformers, or on torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.files import read_seen_images
from ad_dinov3.infer.decide import DecisionRule, smooth
from ad_dinov3.infer.exported import Mode, at_size, read_session_config
from ad_dinov3.infer.prediction import Prediction, predict_images
from ad_dinov3.infer.runtimes import Outputs, open_graph
from ad_dinov3.infer.scorer import RawScores


class Session:
    """An exported model behind the detector's interface: images in, raw scores or predictions out.

    Args:
        folder: as `ad_dinov3.export` writes it.
        device: ``cpu``; ONNX Runtime also ``cuda``, ``tensorrt``, ``coreml``, ``directml``, OpenVINO also ``gpu``,
            ``npu``, ``auto``, torch also ``cuda``, where the machine and the installed runtime have them.
        mode: ``throughput`` works on several images side by side, ``latency`` gives all cores to one.
        threads: at most this many of the processor's; None: the runtime's choice.
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
        self._run = open_graph(file, self.config, device, mode, threads)

    def __reduce__(self) -> tuple[Callable[..., Session], tuple[object, ...]]:
        """Pickle as the folder and the choices, as a runtime's graph cannot travel."""
        return _reopen, (self.folder, *self._choices)

    @property
    def method(self) -> str:
        """What ``--method`` calls the model's method."""
        return self.config.method

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal maps."""
        return self.config.fingerprint

    @property
    def seen_images(self) -> frozenset[str]:
        """sha256 of the files that head and encoder have seen, as far as they say."""
        return read_seen_images(self.folder)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The graph's input (3, h, w) uint8 of an image (H, W, 3) uint8 RGB."""
        return resize_image(image, self.config.input.size, self.config.input.interpolation)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names).

        Raises:
            ShapeError: the inputs are not of the graph's size.
            ConfigError: a class is not baked into the graph.
        """
        step, size = self.config.size_multiple, batch.shape[2:]
        fits = size == self.config.input.size if step is None else all(side >= 2 * step for side in size)
        if batch.dtype != np.uint8 or batch.shape[1] != 3 or not fits or any(side % (step or 1) for side in size):
            sides = f"multiples of {step} px from {2 * step}" if step else f"{self.config.input.size}"
            raise ShapeError(f"expected inputs (B, 3, H, W) uint8, H and W {sides}; got {batch.shape} {batch.dtype}")
        if len(class_names) != len(batch):
            raise ShapeError(f"expected {len(batch)} class names, got {len(class_names)}")
        self._check_classes(class_names)
        outputs = self._by_class(batch, class_names) if len(self.config.class_names) > 1 else self._run(batch, None)
        sigma = self.config.smoothing_sigma_px / batch.shape[2]
        return RawScores(smooth(outputs.maps, sigma), outputs.scores)

    def predict(self, image: ImageSource, class_name: str = "object") -> Prediction:
        """The prediction for one image of any kind that `data.pixels.as_rgb` takes.

        Raises:
            ImageError: a file cannot be decoded.
            ShapeError: an array or tensor has another shape or type.
            ConfigError: the class is not baked into the graph.
            ScoreError: the graph answers with NaN, infinity or a value outside [0, 1].
        """
        return self.predict_batch([image], class_name)[0]

    def predict_batch(self, images: Sequence[ImageSource], class_name: str = "object") -> list[Prediction]:
        """Predictions for images of any sizes, scored in one batch; arguments and errors as in `predict`."""
        return predict_images(self, images, DecisionRule(self.config.threshold), class_name)

    def remember(self, images: Sequence[ImageSource], class_name: str = "object") -> None:
        """An exported graph takes no normal images.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.folder} is an exported model and cannot take normal images; use its model")

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """Classes that it has normal images of: none."""
        return ()

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
        done = [self._run(batch[rows], index) for index, rows in parts.items()]
        back = np.argsort(np.concatenate(list(parts.values())))
        return Outputs(
            np.concatenate([one.maps for one in done])[back], np.concatenate([one.scores for one in done])[back]
        )


def _reopen(folder: Path, device: str, mode: Mode, threads: int | None, size: tuple[int, int] | None) -> Session:
    return Session(folder, device=device, mode=mode, threads=threads, size=size)
