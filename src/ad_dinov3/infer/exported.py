"""The exported folder: what lies in it, and its settings.

model.onnx, model.xml + .bin, model.pt2   the graph: uint8 images in, raw patch map and image score out
config.json                              everything else that scoring needs (`SessionConfig`)
parity.json                              how far it is from the model that it was made from
NOTICE.md                                the licence that the backbone's weights put on the file
training_images.txt                      sha256 of all images that head and encoder have seen, for the zero-shot rule
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ad_dinov3.config.settings import MAX_SIDE_PX
from ad_dinov3.data.transforms import Interpolation
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.files import parse_json, write_seen_images, write_text

Runtime = Literal["onnx", "openvino", "pt2"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Mode = Literal["throughput", "latency"]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
NO_TOKENS = "was exported without the tokens that images are compared by; export the model again with --with-tokens"
_KIND, _FORMAT_VERSION, _CONFIG = "ad-dinov3-export", 1, "config.json"


@dataclass(frozen=True)
class SessionInput:
    """How an image becomes the graph's input: its size in px, and the antialiased filter of the resize to it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    height: Side
    width: Side
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
        precision: how weights are stored; ``fp16`` computes in float32, ``bf16`` in bfloat16 where the processor can.
        input: what the graph takes.
        class_names: whose prompts are baked, in the order that the graph's second input counts them, which it has if
            there are several; empty where the class has no say.
        threshold: map value and score from which something counts as anomalous.
        smoothing_sigma_px: Gaussian on the map, in px of the input.
        fingerprint: equal fingerprints give equal maps.
        model: name or folder of the model that it was made from.
        model_fingerprint: that model's fingerprint.
        method: what ``--method`` calls it, such as ``ad_dinov3``.
        encoder: the backbone's name.
        licence: name of the licence of the backbone's weights.
        trained_on: names of the training data.
        encoder_trained_on: names of the data sets that the backbone has seen, as far as it says.
        training_seed: what the training started from; None for an untrained method.
        size_multiple: the graph takes every size in multiples of this many px; None: it takes ``input``'s alone.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    runtime: Runtime
    precision: Precision
    input: SessionInput
    class_names: tuple[str, ...]
    threshold: Annotated[float, Field(ge=0, le=1)]
    smoothing_sigma_px: Annotated[float, Field(ge=0, le=512)]
    fingerprint: str
    model: str
    model_fingerprint: str
    method: str
    encoder: str
    licence: str
    trained_on: tuple[str, ...]
    training_seed: int | None
    size_multiple: Side | None = None
    encoder_trained_on: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the graph's file."""
        return {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2"}[self.runtime]


def is_exported(where: str | Path) -> bool:
    """Whether this is an exported folder, rather than a model's folder or a name."""
    file = Path(where) / _CONFIG
    try:
        tree = parse_json(file.read_text(encoding="utf-8"))
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
        tree = parse_json(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("config.json is not an object")
        kind, version = tree.pop("kind"), tree.pop("format_version")
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{folder}: not an exported model ({error}); make one: ad-dinov3 export") from None
    if (kind, version) != (_KIND, _FORMAT_VERSION):
        raise WeightsError(f"{file}: expected {_KIND} version {_FORMAT_VERSION}, found {kind} version {version}")
    try:
        return TypeAdapter(SessionConfig).validate_python(tree)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise WeightsError(f"{file}: does not fit this version ({wrong}); export the model again") from None


def tells_tokens(folder: Path) -> bool:
    """Whether an exported folder's graph tells the tokens that images are compared by, as its parity.json says."""
    try:
        found = parse_json((folder / "parity.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # it is not said; the graph will tell
    return isinstance(found, dict) and found.get("largest_token_distance") is not None


def write_session_config(folder: Path, config: SessionConfig, seen_images: frozenset[str]) -> None:
    """Write config.json and training_images.txt of an exported folder."""
    tree = {"kind": _KIND, "format_version": _FORMAT_VERSION, **asdict(config)}
    write_text(folder / _CONFIG, json.dumps(tree, indent=2))
    write_seen_images(folder, seen_images)


def at_size(config: SessionConfig, size: tuple[int, int] | None) -> SessionConfig:
    """The settings of the same graph with another input (H, W) in px; its maps are others, so its fingerprint is.

    Raises:
        ConfigError: the graph does not take the size.
    """
    if size is None or size == config.input.size:
        return config
    step = config.size_multiple
    if step is None or any(side < 2 * step or side % step for side in size):
        takes = f"{config.input.size} only" if step is None else f"multiples of {step} px, two at least"
        raise ConfigError(f"the graph takes {takes}, not {size}; export again with --size dynamic or this size")
    changed = SessionInput(*size, config.input.interpolation)
    return replace(config, input=changed, fingerprint=f"{config.fingerprint}-{size[0]}x{size[1]}")
