"""What of a .pt2 archive is read: weights as raw bytes and the graph as JSON, both checked; nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt
from torch import Tensor

_MAX_JSON_BYTES = 1 << 28
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


class _Part(BaseModel):
    """A part of the archive's JSON; keys that are not named here are not looked at."""

    model_config = ConfigDict(frozen=True)


class Name(_Part):
    """The name of an earlier result."""

    name: str


class Size(_Part):
    """A size: an earlier step's result, or a number."""

    as_name: str | None = None
    as_int: StrictInt | None = None


class Value(_Part):
    """An argument, a result, an input or an output of the graph: exactly one of its kinds."""

    model_config = ConfigDict(extra="forbid")

    as_tensor: Name | None = None
    as_tensors: list[Name] | None = None
    as_optional_tensors: list[Value] | None = None
    as_none: object = None
    as_int: StrictInt | None = None
    as_ints: list[StrictInt] | None = None
    as_float: float | None = None
    as_floats: list[float] | None = None
    as_bool: StrictBool | None = None
    as_bools: list[StrictBool] | None = None
    as_string: str | None = None
    as_sym_int: Size | None = None
    as_sym_ints: list[Size] | None = None
    as_scalar_type: StrictInt | None = None
    as_memory_format: StrictInt | None = None
    as_layout: StrictInt | None = None
    as_device: object = None

    @property
    def kind(self) -> str:
        """The one that is set."""
        (kind,) = self.model_fields_set
        return kind


class Input(_Part):
    """An argument by its place or its name."""

    name: str
    arg: Value
    kind: StrictInt


class Node(_Part):
    """A call of an operator."""

    target: str
    inputs: list[Input]
    outputs: list[Value]


class Graph(_Part):
    """Inputs, the calls in their order, outputs."""

    inputs: list[Value]
    nodes: list[Node]
    outputs: list[Value]


class _Stored(_Part):
    """Which stored tensor an input of the graph is."""

    parameter_name: str | None = None
    buffer_name: str | None = None
    tensor_constant_name: str | None = None


class InputSpec(_Part):
    """What an input of the graph is."""

    model_config = ConfigDict(extra="forbid")

    parameter: _Stored | None = None
    buffer: _Stored | None = None
    tensor_constant: _Stored | None = None
    user_input: object = None

    @property
    def stored(self) -> str | None:
        """The stored tensor's name; None for what the caller gives."""
        one = self.parameter or self.buffer or self.tensor_constant or _Stored()
        return one.parameter_name or one.buffer_name or one.tensor_constant_name


class _Signature(_Part):
    input_specs: list[InputSpec]


class Module(_Part):
    """A graph and what its inputs are."""

    graph: Graph
    signature: _Signature


class Program(_Part):
    """models/model.json."""

    graph_module: Module


class _TensorMeta(_Part):
    dtype: StrictInt
    sizes: list[Size]
    strides: list[Size]
    storage_offset: Size


class _Payload(_Part):
    path_name: str
    use_pickle: bool
    tensor_meta: _TensorMeta | None


class _PayloadConfig(_Part):
    config: dict[str, _Payload]


P = TypeVar("P", bound=_Part)


def read_archive(archive: zipfile.ZipFile) -> tuple[Program, dict[str, Tensor]]:
    """The graph and the tensors of an archive, whose files lie below one folder."""
    end = "models/model.json"
    root = next(name for name in archive.namelist() if name.endswith(end)).removesuffix(end)
    tensors: dict[str, Tensor] = {}
    for room in ("weights", "constants"):
        config = _json(archive, f"{root}data/{room}/model_{room}_config.json", _PayloadConfig)
        flat: dict[str, bytearray] = {}
        for name, payload in config.config.items():
            if payload.use_pickle or payload.tensor_meta is None:
                raise ValueError(f"{name} is a pickled object, which could run code")
            path = payload.path_name
            if path not in flat:
                flat[path] = bytearray(_content(archive, f"{root}data/{room}/{path}"))
            tensors[name] = _shaped(flat[path], payload.tensor_meta)
    return _json(archive, root + end, Program), tensors


def _json(archive: zipfile.ZipFile, path: str, kind: type[P]) -> P:
    content = _content(archive, path)
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError(f"{path} has {len(content):,} bytes")
    return kind.model_validate_json(content)


def _content(archive: zipfile.ZipFile, path: str) -> bytes:
    """A file's content; torch packs nothing, so that what is inside is no larger than the archive."""
    about = archive.getinfo(path)
    if about.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{path} is compressed, as torch never does")
    return archive.read(about)


def _shaped(data: bytearray, meta: _TensorMeta) -> Tensor:
    """A tensor over raw bytes."""
    sizes, strides = ([side.as_int or 0 for side in sides] for sides in (meta.sizes, meta.strides))
    dtype, offset = DTYPES[meta.dtype], meta.storage_offset.as_int or 0
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    if math.prod(sizes) > flat.numel():
        raise ValueError(f"a tensor of {sizes} in {len(data):,} bytes")
    return torch.as_strided(flat, sizes, strides, offset)
