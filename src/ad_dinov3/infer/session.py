"""An exported folder as a detector, on ONNX Runtime or OpenVINO without torch or transformers, or on torch alone.

model.onnx, model.xml + .bin, model.pt2   the graph: uint8 images in, raw patch map and image score out
config.json                              everything else that scoring needs (`SessionConfig`)
parity.json                              how far it is from the model that it was made from
NOTICE.md                                the licence that the backbone's weights put on the file
training_images.txt                      sha256 of every training image, for the zero-shot rule
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.transforms import Interpolation, resize_image
from ad_dinov3.errors import ConfigError, MissingExtraError, ShapeError, WeightsError
from ad_dinov3.files import file_hash, read_seen_images, user_cache, write_seen_images, write_text
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.scorer import RawScores

Runtime = Literal["onnx", "openvino", "pt2"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Mode = Literal["throughput", "latency"]
_KIND, _FORMAT_VERSION, _CONFIG = "ad-dinov3-export", 1, "config.json"
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# Said outright: left to itself, OpenVINO computes in bfloat16 on processors that have it, and maps move by 2e-2.
_OPENVINO_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


@dataclass(frozen=True)
class SessionInput:
    """How an image becomes the graph's input: its size in px, and the antialiased filter of the resize to it."""

    height: int
    width: int
    interpolation: Interpolation

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.height, self.width


@dataclass(frozen=True)
class SessionConfig:
    """What an exported folder's config.json says.

    Attributes:
        runtime: ``onnx``, ``openvino``, or ``pt2`` for torch.
        precision: of the weights; ``fp16`` is computed in float32, ``bf16`` in bfloat16 where the processor can.
        input: what the graph takes.
        class_names: whose prompts are baked, in the order that the graph's second input counts them, which it has if
            there are several; empty where the class has no say.
        threshold: map value and score from which something counts as anomalous.
        smoothing_sigma_px: Gaussian on the map, in px of the input.
        fingerprint: equal fingerprints give equal maps.
        model: name or folder of the model that it was made from.
        model_fingerprint: of that model.
        method: what ``--method`` calls it, such as ``ad_dinov3``.
        encoder: the backbone's name.
        licence: name of the licence of the backbone's weights.
        trained_on: names of the training data.
        encoder_trained_on: names of the data sets that the backbone has seen, as far as it says.
        training_seed: of the training; None for an untrained method.
        size_multiple: the graph takes every size in multiples of this many px; None: it takes ``input``'s alone.
    """

    runtime: Runtime
    precision: Precision
    input: SessionInput
    class_names: tuple[str, ...]
    threshold: float
    smoothing_sigma_px: float
    fingerprint: str
    model: str
    model_fingerprint: str
    method: str
    encoder: str
    licence: str
    trained_on: tuple[str, ...]
    training_seed: int | None
    size_multiple: int | None = None
    encoder_trained_on: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the graph's file."""
        return {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2"}[self.runtime]


@dataclass(frozen=True)
class _Outputs:
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]


# (B, 3, H, W) uint8 images and, if the graph knows classes, the one class that all of them show
_Runner = Callable[[NDArray[np.uint8], int | None], _Outputs]


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
        self.config = _at_size(read_session_config(self.folder), size)
        file = self.folder / self.config.file
        if not file.is_file():
            raise WeightsError(f"{file} is missing; export the model again")
        if self.config.runtime == "onnx":
            self._run = _onnx_runner(file, device, threads)
        elif self.config.runtime == "pt2":
            self._run = _torch_runner(file, device, threads)
        else:
            self._run = _openvino_runner(file, device, self.config.precision, mode, threads)

    @property
    def method(self) -> str:
        """What ``--method`` calls the model's method."""
        return self.config.method

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal maps."""
        return self.config.fingerprint

    @property
    def training_images(self) -> frozenset[str]:
        """sha256 of the files that the model was trained on."""
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
        maps = outputs.maps
        if self.config.smoothing_sigma_px:
            sigma = self.config.smoothing_sigma_px * maps.shape[1] / batch.shape[2]
            maps = gaussian_filter(maps, (0, sigma, sigma))
        return RawScores(maps, outputs.scores)

    def predict(self, image: str | Path | NDArray[np.uint8], class_name: str = "object") -> Prediction:
        """The prediction for one image: a file, or an array (H, W, 3) uint8 RGB.

        Raises:
            ImageError: the file cannot be decoded.
            ShapeError: the array has another shape or type.
            ConfigError: the class is not baked into the graph.
        """
        pixels = image if isinstance(image, np.ndarray) else decode_image(Path(image))
        raw = self.score(self.prepare(pixels)[None], [class_name])
        return Prediction(
            anomaly_map=upsample(raw.maps[0], (pixels.shape[0], pixels.shape[1])),
            score=float(raw.scores[0]),
            source="image" if isinstance(image, np.ndarray) else str(image),
            class_name=class_name,
            threshold=self.config.threshold,
        )

    def _check_classes(self, class_names: Sequence[str]) -> None:
        known = self.config.class_names
        unknown = sorted(set(class_names) - set(known))
        if known and unknown:
            raise ConfigError(
                f"no prompts for {', '.join(unknown)}; baked are {', '.join(known)}; "
                f"export again with --class-name {unknown[0]}"
            )

    def _by_class(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> _Outputs:
        known = self.config.class_names
        indices = np.array([known.index(name) for name in class_names])
        parts = {int(index): np.flatnonzero(indices == index) for index in np.unique(indices)}
        done = [self._run(batch[rows], index) for index, rows in parts.items()]
        back = np.argsort(np.concatenate(list(parts.values())))
        return _Outputs(
            np.concatenate([one.maps for one in done])[back], np.concatenate([one.scores for one in done])[back]
        )


def is_exported(where: str | Path) -> bool:
    """Whether this is an exported folder, rather than a model's folder or a name."""
    file = Path(where) / _CONFIG
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.get("kind") == _KIND


def read_session_config(folder: Path) -> SessionConfig:
    """What an exported folder's config.json says.

    Raises:
        WeightsError: it is missing, of another kind, or of a later version of this package.
    """
    file = folder / _CONFIG
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        kind, version = tree.pop("kind"), tree.pop("format_version")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{folder}: not an exported model ({error}); make one: ad-dinov3 export") from None
    if (kind, version) != (_KIND, _FORMAT_VERSION):
        raise WeightsError(f"{file}: expected {_KIND} version {_FORMAT_VERSION}, found {kind} version {version}")
    try:
        tree["input"] = SessionInput(**tree["input"])
        lists = ("class_names", "trained_on", "encoder_trained_on")
        tree |= {key: tuple(tree[key]) for key in lists if key in tree}
        return SessionConfig(**tree)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{file}: does not fit this version ({error}); export the model again") from None


def write_session_config(folder: Path, config: SessionConfig, training_images: frozenset[str]) -> None:
    """Write config.json and training_images.txt of an exported folder."""
    tree = {"kind": _KIND, "format_version": _FORMAT_VERSION, **asdict(config)}
    write_text(folder / _CONFIG, json.dumps(tree, indent=2))
    write_seen_images(folder, training_images)


def _at_size(config: SessionConfig, size: tuple[int, int] | None) -> SessionConfig:
    """The same graph with another input; its maps are others, so its fingerprint is."""
    if size is None or size == config.input.size:
        return config
    step = config.size_multiple
    if step is None or any(side < 2 * step or side % step for side in size):
        takes = f"{config.input.size} only" if step is None else f"multiples of {step} px, two at least"
        raise ConfigError(f"the graph takes {takes}, not {size}; export again with --size dynamic or this size")
    changed = SessionInput(*size, config.input.interpolation)
    return replace(config, input=changed, fingerprint=f"{config.fingerprint}-{size[0]}x{size[1]}")


def _torch_runner(file: Path, device: str, threads: int | None) -> _Runner:
    try:
        import torch
        from torch.export.passes import move_to_device_pass
    except ImportError:
        raise ConfigError(
            "torch is not installed, which a pt2 folder needs; export for onnx or openvino instead"
        ) from None
    if threads is not None:
        torch.set_num_threads(threads)
    with _no_pickled_code():
        program = torch.export.load(file)
    try:
        module = move_to_device_pass(program, device).module()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch has no {device!r} here ({error})") from None

    def run(batch: NDArray[np.uint8], index: int | None) -> _Outputs:
        chosen = () if index is None else (torch.tensor([index], device=device),)
        with torch.inference_mode():
            maps, scores = module(torch.from_numpy(np.ascontiguousarray(batch)).to(device), *chosen)
        return _Outputs(maps.float().cpu().numpy(), scores.float().cpu().numpy())

    return run


@contextmanager
def _no_pickled_code() -> Iterator[None]:
    """Inside, torch unpickles tensors only: left to itself it runs whatever a .pt2 file brings along."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _onnx_runner(file: Path, device: str, threads: int | None) -> _Runner:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    there = {name for name, provider in _PROVIDERS.items() if provider in onnxruntime.get_available_providers()}
    if device not in there:
        raise ConfigError(f"ONNX Runtime has no {device!r} here; there is {', '.join(sorted(there))}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that wait by spinning make a loaded machine several times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys((_PROVIDERS[device], _PROVIDERS["cpu"])))
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)

    def run(batch: NDArray[np.uint8], index: int | None) -> _Outputs:
        feed = {"images": np.ascontiguousarray(batch)}
        if index is not None:
            feed["class_index"] = np.array([index], np.int64)
        maps, scores = session.run(["patch_map", "image_score"], feed)
        return _Outputs(maps, scores)

    return run


def _compiled_folder(graph: Path) -> Path | None:
    """Where OpenVINO may keep the compiled graph, most of the time to a first prediction; None without a place.

    Named after the bytes of both files: OpenVINO's own key does not see that a .bin has changed.
    """
    folder = user_cache("openvino") / f"{file_hash(graph)[:16]}-{file_hash(graph.with_suffix('.bin'))[:16]}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return None


def _openvino_runner(file: Path, device: str, precision: Precision, mode: Mode, threads: int | None) -> _Runner:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino") from None
    core = openvino.Core()
    there = [*sorted({name.partition(".")[0].lower() for name in core.available_devices}), "auto"]
    if device not in there:
        raise ConfigError(f"OpenVINO has no {device!r} here; there is {', '.join(there)}")
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": mode.upper(),
        "INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[precision],
    }
    if threads is not None and device == "cpu":
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = _compiled_folder(file)
    if compiled is not None:
        settings["CACHE_DIR"] = str(compiled)
    queue = openvino.AsyncInferQueue(core.compile_model(str(file), device.upper(), settings))

    def run(batch: NDArray[np.uint8], index: int | None) -> _Outputs:
        done: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

        def keep(request: openvino.InferRequest, row: int) -> None:
            done[row] = (request.get_output_tensor(0).data.copy(), request.get_output_tensor(1).data.copy())

        queue.set_callback(keep)
        chosen = {} if index is None else {"class_index": np.array([index], np.int64)}
        for row in range(len(batch)):  # the graph takes one image; requests run side by side
            queue.start_async({"images": np.ascontiguousarray(batch[row : row + 1]), **chosen}, row)
        queue.wait_all()
        rows = [done[row] for row in range(len(batch))]
        return _Outputs(np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows]))

    return run
