"""The Open Inference Protocol, version 2, with its binary extension: requests to images, answers to bytes.

A request is JSON, or JSON followed by the bytes of its input; the header ``Inference-Header-Content-Length`` then tells
where the JSON ends. Numbers are little-endian, and an element of BYTES is its length as uint32 and itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ad_dinov3.data.decode import MAX_PIXELS
from ad_dinov3.errors import ConfigError
from ad_dinov3.serve.judge import Judged, Wish
from ad_dinov3.serve.uploads import Upload

HEADER = "Inference-Header-Content-Length"
IMAGE = "image"
INPUTS: tuple[Mapping[str, object], ...] = (
    {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
    {"name": IMAGE, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
)
"""An input is the one or the other: encoded images, or pixels (n, H, W, 3) RGB."""
OUTPUTS: tuple[Mapping[str, object], ...] = (
    {"name": "score", "datatype": "FP32", "shape": [-1]},
    {"name": "is_anomalous", "datatype": "BOOL", "shape": [-1]},
    {"name": "anomaly_map", "datatype": "FP32", "shape": [-1, -1, -1]},
    {"name": "regions", "datatype": "BYTES", "shape": [-1]},
)
REQUEST_SCHEMA = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": ["string", "null"]},
        "model_name": {"type": ["string", "null"], "description": "ignored: the address names the model"},
        "model_version": {"type": ["string", "null"], "description": "ignored"},
        "parameters": {"type": "object", "description": "threshold, min_area, regions_on_normal, class_name"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "additionalProperties": False,
                "properties": {
                    "name": {"const": IMAGE},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
                    "datatype": {"enum": ["BYTES", "UINT8"]},
                    "parameters": {"type": "object"},
                    "data": {"type": "array", "description": "BYTES: images in base64; UINT8: numbers, nested or flat"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"enum": [output["name"] for output in OUTPUTS]},
                    "parameters": {"type": "object", "description": "binary_data: true puts it behind the JSON"},
                },
            },
        },
    },
}
"""`InferRequest` for OpenAPI, of a request that is JSON alone: its input's data are there."""
_NAMES = tuple(str(output["name"]) for output in OUTPUTS)
_WISHES = frozenset(Wish.model_fields) - {"model"}
_IGNORED = frozenset({"binary_data_output", "priority", "timeout"})  # clients send them unasked


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestedOutput(_Part):
    """An output that the answer is to have."""

    name: str
    parameters: dict[str, JsonValue] = {}


class RequestedInput(_Part):
    """An input; its ``data``, or ``binary_data_size`` of its parameters."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, JsonValue] = {}
    data: list[JsonValue] | None = None


class InferRequest(_Part):
    """The JSON of a request; KServe's client repeats the model of its address there, which decides nothing."""

    id: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    parameters: dict[str, JsonValue] = {}
    inputs: tuple[RequestedInput, ...]
    outputs: tuple[RequestedOutput, ...] = ()


class InferOutput(_Part):
    """An output; its ``data``, or ``binary_data_size`` of its parameters."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: list[JsonValue] | None = None


class InferAnswer(_Part):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[InferOutput, ...]


@dataclass(frozen=True, eq=False)
class Inference:
    """What a request asks.

    Attributes:
        request_id: to be echoed.
        uploads: the images.
        wish: how they are to be judged.
        outputs: names of what the answer has, and whether as bytes.
    """

    request_id: str
    uploads: tuple[Upload, ...]
    wish: Wish
    outputs: Mapping[str, bool]


def read_inference(body: bytes, header_length: str | None, model: str) -> Inference:
    """What the bytes of a request ask of a model.

    Raises:
        ConfigError: they are not such a request; the message says where.
    """
    end = len(body) if header_length is None else int(header_length) if header_length.isdigit() else -1
    if not 0 < end <= len(body):
        raise ConfigError(
            f"expected JSON, its length in {HEADER} where bytes follow; got {header_length} of {len(body)}"
        )
    try:
        request = InferRequest.model_validate_json(body[:end])
        wish = _wish(request.parameters, model)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}") from None
    if [one.name for one in request.inputs] != [IMAGE]:
        raise ConfigError(f"expected one input named {IMAGE}, got {[one.name for one in request.inputs]}")
    uploads = _uploads(request.inputs[0], body[end:])
    return Inference(request.id or "", uploads, wish, _wanted(request))


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its Content-Encoding, of at most ``limit`` bytes.

    Raises:
        ConfigError: an encoding other than gzip and deflate, broken data, or more bytes than the limit.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ConfigError(f"expected Content-Encoding gzip, deflate or none, got {encoding}")
    machine = zlib.decompressobj(wbits=47)  # either header, 32 KiB window
    try:
        content = machine.decompress(body, limit + 1)
    except zlib.error as error:
        raise ConfigError(f"the body is not {encoding} ({error})") from None
    if len(content) > limit:
        raise ConfigError(f"the body is more than {limit:,} bytes when it is unpacked")
    if not machine.eof:
        raise ConfigError(f"the {encoding} of the body is cut off")
    return content


def write_answer(inference: Inference, model: str, values: Mapping[str, Sequence[object]]) -> tuple[bytes, int | None]:
    """The bytes of an answer, and the length of its JSON where bytes follow.

    Args:
        inference: what was asked.
        model: the model's name.
        values: of each output that was asked for, one for each image.

    Raises:
        ConfigError: maps are wanted of images that differ in size.
    """
    outputs: list[dict[str, object]] = []
    blobs: list[bytes] = []
    types = {output["name"]: output["datatype"] for output in OUTPUTS}
    for name, is_binary in inference.outputs.items():
        shape, blob, data = _tensor(name, values[name], is_binary)
        outputs.append({"name": name, "datatype": types[name], "shape": shape})
        if is_binary:
            outputs[-1]["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            outputs[-1]["data"] = data
    tree = {"model_name": model, "model_version": "1", "outputs": outputs}
    if inference.request_id:
        tree["id"] = inference.request_id
    head = json.dumps(tree, separators=(",", ":")).encode()
    return b"".join([head, *blobs]), len(head) if blobs else None


def value_of(name: str, judged: Judged) -> object:
    """One image's part of an output."""
    prediction = judged.prediction
    if name == "score":
        return prediction.score
    if name == "is_anomalous":
        return prediction.is_anomalous
    if name == "anomaly_map":
        return prediction.anomaly_map
    return json.dumps([asdict(region) for region in prediction.regions], separators=(",", ":"))


def _wish(parameters: Mapping[str, JsonValue], model: str) -> Wish:
    unknown = sorted(set(parameters) - _WISHES - _IGNORED)
    if unknown:
        raise ConfigError(f"there is no parameter {', '.join(unknown)}; there are {', '.join(sorted(_WISHES))}")
    return Wish.model_validate({"model": model} | {key: parameters[key] for key in _WISHES & set(parameters)})


def _wanted(request: InferRequest) -> dict[str, bool]:
    """The outputs that a request names, or all of them; whether as bytes."""
    by_default = request.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.get("binary_data", by_default) is True for one in request.outputs}
    unknown = sorted(set(wanted) - set(_NAMES))
    if unknown:
        raise ConfigError(f"there is no output {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return wanted or dict.fromkeys(_NAMES, by_default)


def _uploads(tensor: RequestedInput, tail: bytes) -> tuple[Upload, ...]:
    shape, size = tensor.shape, tensor.parameters.get("binary_data_size")
    if any(side < 1 for side in shape) or math.prod(shape) > 3 * MAX_PIXELS:
        raise ConfigError(f"{IMAGE}: expected images, got the shape {list(shape)}")
    if size != (len(tail) if tensor.data is None else None) or (tail and tensor.data is not None):
        raise ConfigError(f"{IMAGE}: expected data, or binary_data_size {len(tail)} and as many bytes; got {size}")
    if tensor.datatype == "BYTES" and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        contents = _unpacked(tail, shape[0]) if tensor.data is None else _from_base64(tensor.data)
        if len(contents) != shape[0]:
            raise ConfigError(f"{IMAGE}: expected {shape[0]} images, got {len(contents)}")
        return tuple(Upload(f"{IMAGE} {row}", content) for row, content in enumerate(contents))
    if tensor.datatype == "UINT8" and len(shape) == 4 and shape[3] == 3:
        values = np.frombuffer(tail, np.uint8) if tensor.data is None else _numbers(tensor.data)
        if values.size != math.prod(shape):
            raise ConfigError(f"{IMAGE}: expected {math.prod(shape)} values, got {values.size}")
        return tuple(Upload(f"{IMAGE} {row}", pixels) for row, pixels in enumerate(values.reshape(shape)))
    raise ConfigError(
        f"{IMAGE}: expected BYTES [n], encoded images, or UINT8 [n, H, W, 3]; got {tensor.datatype} {list(shape)}"
    )


def _unpacked(blob: bytes, count: int) -> list[bytes]:
    contents, at = [], 0
    for _ in range(count):
        if at + 4 > len(blob):
            break
        (length,) = struct.unpack_from("<I", blob, at)
        contents.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(blob):
        raise ConfigError(f"{IMAGE}: the lengths of its elements do not add up to {len(blob)} bytes")
    return contents


def _from_base64(data: Sequence[JsonValue]) -> list[bytes]:
    flat = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
    try:
        return [base64.b64decode(str(one), validate=True) for one in flat]
    except binascii.Error as error:
        raise ConfigError(f"{IMAGE}: expected base64 in data ({error}); or send the bytes after the JSON") from None


def _numbers(data: Sequence[JsonValue]) -> NDArray[np.uint8]:
    try:
        values = np.array(data, np.int64)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{IMAGE}: expected whole numbers in data") from None
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise ConfigError(f"{IMAGE}: expected numbers from 0 to 255 in data")
    return values.astype(np.uint8)


def _tensor(name: str, values: Sequence[object], is_binary: bool) -> tuple[list[int], bytes, list[object]]:
    """Shape, bytes and data of an output, the one that is not wanted empty."""
    if name == "regions":
        texts = [str(value) for value in values]
        packed = [struct.pack("<I", len(text.encode())) + text.encode() for text in texts if is_binary]
        return [len(texts)], b"".join(packed), [] if is_binary else list(texts)
    arrays = [np.asarray(value) for value in values]
    if len({array.shape for array in arrays}) > 1:
        raise ConfigError(f"the images differ in size, so {name} is no tensor; ask for other outputs, or one by one")
    stacked = np.stack(arrays).astype("?" if name == "is_anomalous" else "<f4")
    return list(stacked.shape), stacked.tobytes() if is_binary else b"", [] if is_binary else stacked.ravel().tolist()
