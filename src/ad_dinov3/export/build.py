"""From a model to an exported folder: trace, convert, quantize, compare, and only then hand over."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ad_dinov3.assets import SAMPLES
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.streams import find_images
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.encoders.context import ContextStages
from ad_dinov3.encoders.efficientnet_lite import StagedLite
from ad_dinov3.encoders.stages import StagedViT
from ad_dinov3.errors import ConfigError, MissingExtraError
from ad_dinov3.export.graph import ScoreGraph, trace, trace_halves
from ad_dinov3.export.graphs import score_graph
from ad_dinov3.export.parity import TOLERANCES, Parity, compare, token_distance
from ad_dinov3.export.processor import read_processor
from ad_dinov3.export.speed import Contender, race
from ad_dinov3.files import write_text
from ad_dinov3.infer.areas import write_areas
from ad_dinov3.infer.compared import save_references
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.exported import Precision, Runtime, SessionConfig, SessionInput, write_session_config
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.infer.session import Session
from ad_dinov3.methods.table import METHODS

if TYPE_CHECKING:
    import openvino

PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "onnx": ("fp32",),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "pt2": ("fp32",),
}
_MAX_COMPARED = 16
_MAX_CALIBRATION = 300
_ROUNDS = 9  # of int8 and fp32 in turn, of which the medians count
_NO_OPERATION = ("Constant", "Parameter", "Result")
_LINEAR = ("MatMul", *_NO_OPERATION)  # what 8 bits take of a ConvNeXt
_CONVOLUTIONS = ("Convolution", *_NO_OPERATION)  # and of an EfficientNet-Lite


@dataclass(frozen=True)
class ExportOptions:
    """What to make.

    Attributes:
        runtime: ``onnx``, ``openvino``, or ``pt2`` for torch.
        precision: one of ``PRECISIONS`` of the runtime.
        size: (H, W) of the input in px; None: the model's.
        resizable: the graph takes other sizes too; ``size`` is what it starts with.
        calibration: folder of images to quantize and compare with; None: the package's samples, for comparing only.
        with_tokens: the graph also tells the tokens that images are compared by, so that it can remember normal ones.
    """

    runtime: Runtime = "openvino"
    precision: Precision = "fp32"
    size: tuple[int, int] | None = None
    resizable: bool = False
    calibration: Path | None = None
    with_tokens: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[self.runtime]:
            raise ConfigError(
                f"{self.runtime} is written as {', '.join(PRECISIONS[self.runtime])}, not as {self.precision}: half "
                "precision gives NaN or wrong maps in several ONNX runtimes, and its int8 is slower than OpenVINO's"
            )
        if self.precision == "int8" and self.resizable:
            raise ConfigError("int8 sets its ranges at one size; omit --size dynamic, or take another --precision")
        if self.precision == "int8" and self.calibration is None:
            raise ConfigError(
                "int8 needs images to set its ranges by: --calibration DIR, normal ones like those to come"
            )


def export_model(detector: Detector, name: str, folder: Path, options: ExportOptions) -> Parity:
    """Write an exported folder, after both models have agreed on images within the tolerance.

    Args:
        detector: on the CPU, with the prompts of all classes that the file is to know.
        name: what the model was called.
        folder: made if missing; the files of an earlier export in it are replaced.
        options: what to make.

    Raises:
        ConfigError: the method has no fixed graph, or the size does not fit the backbone.
        MissingExtraError: the runtime or NNCF is not installed.
        ParityError: the maps are too far away; the folder is left as it was.
        ImageError: a calibration image cannot be decoded.
    """
    model_input = detector.config.input
    size = options.size or model_input.size
    graph = score_graph(detector.model, size, options.resizable)
    if detector.references.known and not options.with_tokens:
        raise ConfigError("the model compares with normal images, which needs its tokens; export it --with-tokens")
    if options.with_tokens:
        graph.tell_tokens(detector.model)
    paths = [item.path for item in find_images([str(options.calibration or SAMPLES)])]
    if not paths:
        raise ConfigError(f"{options.calibration}: no images there to calibrate and compare with")
    inputs = SessionInput(*size, model_input.interpolation)
    config = _session_config(detector, name, graph, replace(options, size=size))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        sized = _Sized(detector, inputs)
        with _exporters_hushed():
            _write_graph(graph, config, unfinished, sized.inputs(paths, _MAX_CALIBRATION))
        write_session_config(unfinished, config, detector.model.seen_images)
        parity = _checked(sized, unfinished, paths, config, options.with_tokens)
        if config.precision == "int8":
            parity = replace(parity, speed_over_fp32=_speed_over_fp32(graph, config, unfinished))
        save_references(detector.references, unfinished)
        write_areas(unfinished, detector.areas)
        write_text(unfinished / "parity.json", json.dumps(parity.summary(), indent=2))
        write_text(unfinished / "NOTICE.md", _notice(config))
        folder.mkdir(exist_ok=True)
        for file in sorted(unfinished.iterdir(), key=lambda path: path.name == "config.json"):  # it makes the folder
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return parity


def _speed_over_fp32(graph: ScoreGraph, config: SessionConfig, folder: Path) -> float:
    """Processor time of the graph in fp32 over that of a folder's, both on one thread and in turns."""
    with tempfile.TemporaryDirectory() as twin:
        plain = replace(config, precision="fp32")
        _write_graph(graph, plain, Path(twin), ())
        write_session_config(Path(twin), plain, frozenset())
        runs = [Session(one, mode="latency", threads=1) for one in (twin, folder)]
        fp32, int8 = race([Contender(run.config.precision, config.model, run, graph.size) for run in runs], 1, _ROUNDS)
    return fp32.cpu_ms / int8.cpu_ms


class _Sized:
    """A detector at the size of the export."""

    def __init__(self, detector: Detector, model_input: SessionInput) -> None:
        changes = {"height": model_input.height, "width": model_input.width}
        config = detector.config.model_copy(update={"input": detector.config.input.model_copy(update=changes)})
        self.detector = Detector(replace(detector.model, config=config), offline=True)

    def inputs(self, paths: Sequence[Path], limit: int) -> list[NDArray[np.uint8]]:
        """The inputs of at most ``limit`` images, evenly spread."""
        chosen = [paths[i * len(paths) // min(limit, len(paths))] for i in range(min(limit, len(paths)))]
        return [self.detector.prepare(decode_image(path)) for path in chosen]

    def score(self, pixels: NDArray[np.uint8], class_name: str) -> RawScores:
        return self.detector.score(pixels[None], [class_name])


def _checked(sized: _Sized, folder: Path, paths: Sequence[Path], config: SessionConfig, with_tokens: bool) -> Parity:
    session = Session(folder)

    def exported(pixels: NDArray[np.uint8], class_name: str) -> RawScores:
        return session.score(pixels[None], [class_name])

    classes = config.class_names or sized.detector.config.class_names[:1] or ("object",)
    inputs = sized.inputs(paths, _MAX_COMPARED)
    if config.size_multiple is not None:
        other = (config.input.height + config.size_multiple, config.input.width + 2 * config.size_multiple)
        inputs = inputs[::2] + [resize_image(np.ascontiguousarray(x.transpose(1, 2, 0)), other) for x in inputs[1::2]]
    parity = compare(
        sized.score,
        exported,
        inputs,
        classes,
        threshold=config.threshold,
        tolerance=TOLERANCES[config.precision],
    )
    if with_tokens:
        told = [(one.answer(x[None], classes[:1]).tokens for one in (sized.detector, session)) for x in inputs]
        parity = replace(parity, largest_token_distance=max(token_distance(*pair) for pair in told))
    parity.check()
    return replace(parity, processor=str(processor) if (processor := read_processor()) else None)


def _session_config(detector: Detector, name: str, graph: ScoreGraph, options: ExportOptions) -> SessionConfig:
    config, model = detector.config, detector.model
    says = (detector.model.fingerprint, options.runtime, options.precision, graph.size, str(options.calibration))
    step = graph.size_multiple if graph.resizable else None
    return SessionConfig(
        runtime=options.runtime,
        precision=options.precision,
        input=SessionInput(*graph.size, config.input.interpolation),
        class_names=graph.class_names,
        threshold=config.threshold,
        smoothing_sigma_px=config.smoothing_sigma_px,
        fingerprint=hashlib.sha256(repr(says).encode()).hexdigest()[:16],
        model=name,
        model_fingerprint=detector.model.fingerprint,
        method=detector.method,
        encoder=model.encoder.spec.name,
        licence=model.encoder.spec.licence,
        trained_on=config.trained_on,
        encoder_trained_on=model.encoder.spec.trained_on,
        training_seed=config.train.seed if METHODS[detector.method].is_trained else None,
        size_multiple=step,
    )


@contextmanager
def _exporters_hushed() -> Iterator[None]:
    """Inside, exporters keep quiet about their own insides; the parity report judges what they made."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _write_graph(
    graph: ScoreGraph, config: SessionConfig, folder: Path, calibration: Sequence[NDArray[np.uint8]]
) -> None:
    if config.runtime == "onnx":
        _write_onnx(graph, folder / config.file)
    elif config.runtime == "pt2":
        torch.export.save(trace(graph), folder / config.file)
    else:
        _write_openvino(graph, folder / config.file, config.precision, calibration)


def _write_onnx(graph: ScoreGraph, file: Path) -> None:
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it and says so less clearly
    except ImportError:
        raise MissingExtraError("onnxscript", "onnx") from None
    names = list(graph.output_names)
    program = torch.onnx.export(
        trace(graph), dynamo=True, input_names=graph.input_names, output_names=names, verbose=False
    )
    if program is None:
        raise ConfigError("torch wrote no ONNX graph; expected torch 2.6 or later")
    program.save(str(file), external_data=False)


def _write_openvino(
    graph: ScoreGraph, file: Path, precision: Precision, calibration: Sequence[NDArray[np.uint8]]
) -> None:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino") from None
    # One image per request: a processor's cores work on several requests side by side, each with its own image.
    model = _quantized(graph, calibration) if precision == "int8" else openvino.convert_model(trace(graph, batch=1))
    for port, name in zip(model.inputs, graph.input_names, strict=True):
        port.get_tensor().set_names({name})
    sides = [-1, -1] if graph.resizable else graph.size
    model.reshape({name: [1, 3, *sides] if name == "images" else [1] for name in graph.input_names})
    for port, name in zip(model.outputs, graph.output_names, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(model, str(file), compress_to_fp16=precision == "fp16")


def _quantized(graph: ScoreGraph, calibration: Sequence[NDArray[np.uint8]]) -> openvino.Model:
    """The backbone's layers in 8 bits, their ranges set by images (NNCF, post-training), with the head as it is.

    The head is a hundredth of the work, and its standardised tokens and steep softmax are what 8 bits hurt most. Of a
    ConvNeXt only the linear layers are taken, most of its work: its stem, whose few inputs have few levels, and the
    sums and norms between its blocks, whose error every later block inherits, move maps seven times as far. Of an
    EfficientNet-Lite the convolutions over all channels are taken; with those of single channels too, whose ranges
    differ most, maps move twice as far.
    """
    import openvino

    encode, judge = (openvino.convert_model(half) for half in trace_halves(graph))
    encode.reshape([1, 3, *graph.size])
    taken = _taken(graph.backbone)
    kept = [op.get_friendly_name() for op in encode.get_ops() if taken and not _is_taken(op, taken)]
    small = quantize(encode, [pixels[None] for pixels in calibration], kept)
    tokens = len(small.results)
    for result, parameter in zip(small.results, judge.parameters[:tokens], strict=True):
        for reader in parameter.output(0).get_target_inputs():
            reader.replace_source_output(result.input_value(0))
    return openvino.Model(judge.results, [*small.parameters, *judge.parameters[tokens:]], "scores")


def _is_taken(operation: openvino.Node, taken: Sequence[str]) -> bool:
    """Whether 8 bits take an operation; products that are no layer are the filter bank's, which stays in float."""
    kind = operation.get_type_name()
    return kind in taken and (kind != "MatMul" or "linear" in operation.get_friendly_name())


def _taken(backbone: nn.Module) -> tuple[str, ...]:
    """Kinds of operations that 8 bits take of a backbone; none: all of them."""
    staged = backbone.staged if isinstance(backbone, ContextStages) else backbone
    return {StagedViT: (), StagedLite: _CONVOLUTIONS}.get(type(staged), _LINEAR)


def quantize(
    model: openvino.Model, calibration: Sequence[NDArray[np.generic]], kept: Sequence[str] = ()
) -> openvino.Model:
    """A model in 8 bits by NNCF's post-training quantization, but for the operations whose names are kept.

    Ranges are those that lose least of the histograms of all values seen: against NNCF's own mean of each image's
    extremes, the cosine of a random ViT-S's tokens with those in float is five times as near to 1.

    Args:
        model: in float.
        calibration: inputs, each as the model takes them.
        kept: friendly names of operations that stay in float.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError:
        raise MissingExtraError("nncf", "openvino") from None
    return nncf.quantize(
        model,
        nncf.Dataset(list(calibration)),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=list(kept)),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )


def _notice(config: SessionConfig) -> str:
    return (
        f"This folder holds the weights of {config.encoder}, converted, which are under: {config.licence}.\n"
        "Passing the folder on is passing those weights on: do it only as that licence allows, with its text."
    )
