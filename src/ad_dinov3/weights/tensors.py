"""Reading tensors out of files that may come from anywhere, without ever running what is in them.

safetensors and PyTorch archives (``weights_only=True``) are read whole or in part; TorchScript archives, the form of
OpenAI's CLIP files, are read as data: their program is neither loaded nor run.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ad_dinov3.errors import DataError, WeightsError
from ad_dinov3.files import parse_json, replacing

Keep = Callable[[str], bool]

_INDEX_SUFFIX = ".safetensors.index.json"
_STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(path: Path, keep: Keep | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, on the CPU; names of nested dictionaries are joined by dots.

    Args:
        path: a .safetensors file, the .safetensors.index.json of several, or a PyTorch file.
        keep: which names to read; by default all.

    Raises:
        WeightsError: a file that is missing, truncated, or that holds more than tensors.
    """
    if path.name.endswith(_INDEX_SUFFIX):
        return _read_shards(path, keep)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, keep)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    found = _read_torchscript(path) if _is_torchscript(path) else _flattened(_read_pytorch(path))
    size = path.stat().st_size
    for name, tensor in found.items():
        if tensor.nbytes > size:  # strides of zero make anything out of one number
            raise WeightsError(f"{path}: {name} of {tuple(tensor.shape)} is larger than the file; not a checkpoint")
    return {name: tensor for name, tensor in found.items() if keep is None or keep(name)}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a .safetensors file, whole or not at all.

    Raises:
        DataError: it cannot be written, as on a full disk.
    """
    try:
        with replacing(path) as unfinished:
            save_file(dict(tensors), unfinished, None if metadata is None else dict(metadata))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error})") from None


def check_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse what no training leaves behind.

    Raises:
        WeightsError: a tensor of a file holds NaN or infinity.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{file}: {name} holds NaN or infinity; train the model again")


def tensor_names(path: Path) -> tuple[str, ...]:
    """The names of a checkpoint's tensors; of safetensors only the header is read.

    Raises:
        WeightsError: as ``read_tensors``.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return tuple(file.keys())
        except (SafetensorError, OSError) as error:
            raise WeightsError(_broken(path, str(error))) from None
    if path.name.endswith(_INDEX_SUFFIX):
        return tuple(_weight_map(path))
    return tuple(read_tensors(path))


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form of OpenAI's CLIP files."""
    return path.is_file() and _is_torchscript(path)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path, keep: Keep | None) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if keep is None or keep(name)}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(_broken(path, str(error))) from None


def _weight_map(index: Path) -> dict[str, str]:
    """Which shard holds which tensor."""
    try:
        tree = parse_json(index.read_text(encoding="utf-8"))
        where = tree["weight_map"] if isinstance(tree, dict) else None
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(_broken(index, repr(error))) from None
    if not isinstance(where, dict) or not all(isinstance(shard, str) for shard in where.values()):
        raise WeightsError(_broken(index, "it names no shards"))
    return where


def _read_shards(index: Path, keep: Keep | None) -> dict[str, Tensor]:
    where = _weight_map(index)
    missing = sorted({shard for shard in where.values() if not (index.parent / shard).is_file()})
    if missing:
        raise WeightsError(f"{index.parent}: {index.name} names {missing[0]}, which is not there; download it again")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(where.values())):
        tensors |= _read_safetensors(index.parent / shard, keep)
    return tensors


def _read_pytorch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # A whole archive, or a pickle that names a class: it is readable, and holds what torch refuses to build.
        if not zipfile.is_zipfile(path) and "Unsupported global" not in str(error):
            raise WeightsError(_broken(path, "not a PyTorch file")) from None
        raise WeightsError(
            f"{path}: expected tensors only, found other Python objects, which could run code when loaded; "
            f"not opened. Take the .safetensors file of the same model, or, if you trust this file, save only its "
            f"state dict (torch.save(model.state_dict(), ...)) where you have its own software"
        ) from None
    except Exception as error:  # a damaged pickle fails in as many ways as it can be damaged
        raise WeightsError(_broken(path, str(error).splitlines()[0] if str(error) else repr(error))) from None


def _broken(path: Path, reason: str) -> str:
    size = path.stat().st_size if path.is_file() else 0
    return (
        f"{path}: expected a complete checkpoint, found {size} bytes that cannot be read ({reason}); it is truncated "
        f"or of another format: download it again"
    )


def _flattened(content: object, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested dictionaries; what is not a tensor (epochs, settings) is left out."""
    if isinstance(content, Tensor):
        return {prefix.removesuffix("."): content}
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for key, value in content.items():
            tensors |= _flattened(value, f"{prefix}{key}.")
    return tensors


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _ScriptObject:
    """Stands for a module of a TorchScript archive: what the archive calls an object's state becomes attributes."""


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles the data of a TorchScript archive; everything that is not on its short list is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> object:
        """The few harmless callables that such an archive names."""
        if module.startswith("__torch__"):
            return _ScriptObject
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch.jit._pickle":  # lists and their type tags
            return _first_argument
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> Tensor:
        """The numbers behind a tensor, flat: the archive keeps them in one file each."""
        _, dtype, key, _, _ = cast("tuple[str, torch.dtype, str, str, int]", pid)
        data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _rebuilt(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    if math.prod(size) > flat.numel():
        raise pickle.UnpicklingError(f"a tensor of {tuple(size)} in {flat.numel()} numbers")
    return torch.as_strided(flat, size, stride, offset).contiguous()


def _first_argument(value: object, *_: object) -> object:
    return value


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
            return _attributes(_TensorUnpickler(archive, root).load())
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: expected a TorchScript archive of tensors only, found {error}") from None
    except Exception as error:  # a damaged pickle fails in as many ways as it can be damaged
        raise WeightsError(_broken(path, repr(error)[:200])) from None


def _attributes(module: object, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a tree of stand-ins, named as in the module's state dict."""
    tensors: dict[str, Tensor] = {}
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        elif isinstance(value, _ScriptObject):
            tensors |= _attributes(value, f"{prefix}{name}.")
    return tensors
