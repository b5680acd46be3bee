"""The runtimes that run an exported graph: ONNX Runtime, OpenVINO, or torch alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError, MissingExtraError
from ad_dinov3.files import file_hash, user_cache
from ad_dinov3.infer.exported import Mode, Precision, SessionConfig

if TYPE_CHECKING:
    import openvino

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# Said outright: left to itself, OpenVINO computes in bfloat16 on processors that have it, and maps move by 2e-2.
_OPENVINO_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
_REQUESTS_EACH = 2  # for a stream of OpenVINO, so that the next image waits where one is done
_CALLS = 3  # where there are streams: one runs, the next one waits, and one is taken apart


@dataclass(frozen=True, eq=False)
class Outputs:
    """A graph's answer: maps (B, h, w), scores (B,) and, if it was asked for them, tokens (B, h, w, D), float32."""

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    tokens: NDArray[np.float32] | None = None


# (B, 3, H, W) uint8 images and, if the graph knows classes, the one class that all of them show
Runner = Callable[[NDArray[np.uint8], int | None], Outputs]


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that is open.

    Attributes:
        run: what runs it; called from any thread.
        calls: how many of these calls at once keep the processor busy.
    """

    run: Runner
    calls: int = 1


def open_graph(file: Path, config: SessionConfig, device: str, mode: Mode, threads: int | None) -> Graph:
    """A graph's file on a device.

    Raises:
        MissingExtraError: the runtime is not installed.
        ConfigError: the runtime has no such device here.
    """
    if config.runtime == "onnx":
        return Graph(_onnx_runner(file, device, threads))
    if config.runtime == "pt2":
        return Graph(_torch_runner(file, device, threads))
    return _openvino_graph(file, device, config.precision, mode, threads)


def _torch_runner(file: Path, device: str, threads: int | None) -> Runner:
    try:
        import torch

        from ad_dinov3.infer.pt2 import Pt2Graph
    except ImportError:
        raise ConfigError(
            "torch is not installed, which a pt2 folder needs; export for onnx or openvino instead"
        ) from None
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        graph = Pt2Graph(file, device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch has no {device!r} here ({error})") from None

    def run(batch: NDArray[np.uint8], index: int | None) -> Outputs:
        chosen = () if index is None else (torch.tensor([index], device=device),)
        with torch.inference_mode():
            outputs = graph(torch.from_numpy(np.ascontiguousarray(batch)).to(device), *chosen)
        return Outputs(*(output.float().cpu().numpy() for output in outputs))

    return run


def _onnx_runner(file: Path, device: str, threads: int | None) -> Runner:
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

    def run(batch: NDArray[np.uint8], index: int | None) -> Outputs:
        feed = {"images": np.ascontiguousarray(batch)}
        if index is not None:
            feed["class_index"] = np.array([index], np.int64)
        return Outputs(*session.run(None, feed))

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


def _openvino_graph(file: Path, device: str, precision: Precision, mode: Mode, threads: int | None) -> Graph:
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
    model = core.compile_model(str(file), device.upper(), settings)
    streams = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    return Graph(partial(_run_openvino, model, _REQUESTS_EACH * streams), 1 if streams == 1 else _CALLS)


def _run_openvino(model: openvino.CompiledModel, at_once: int, batch: NDArray[np.uint8], index: int | None) -> Outputs:
    """The answer of a graph that takes one image; so many of them run side by side."""
    chosen = {} if index is None else {"class_index": np.array([index], np.int64)}
    under_way: deque[openvino.InferRequest] = deque()
    rows: list[list[NDArray[np.float32]]] = []

    def take_first() -> None:
        request = under_way.popleft()
        request.wait()
        rows.append([request.get_output_tensor(port).data.copy() for port in range(len(model.outputs))])

    for row in range(len(batch)):
        if len(under_way) == at_once:
            take_first()
        request = model.create_infer_request()
        request.start_async({"images": np.ascontiguousarray(batch[row : row + 1]), **chosen})
        under_way.append(request)
    while under_way:
        take_first()
    return Outputs(*(np.concatenate(port) for port in zip(*rows, strict=True)))
