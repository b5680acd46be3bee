"""What lies in a model's folder: its checkpoint and its configuration, told by the usual file names."""

from __future__ import annotations

from pathlib import Path

from ad_dinov3.errors import WeightsError
from ad_dinov3.files import parse_json
from ad_dinov3.weights.resolve import WeightSource

# In order of preference: safetensors before pickles, one file before shards.
_NAMES = ("model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json")
_PATTERNS = ("*.safetensors", "*.pth", "*.pt", "pytorch_model.bin", "*.bin")


def checkpoint_file(source: WeightSource) -> tuple[Path, Path]:
    """The folder and the checkpoint of a source, which may be a folder or a file.

    Raises:
        WeightsError: a folder with no checkpoint, or with several that could be meant.
    """
    if source.path.is_file():
        return source.path.parent, source.path
    for name in _NAMES:
        if (source.path / name).is_file():
            return source.path, source.path / name
    for pattern in _PATTERNS:
        found = sorted(source.path.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:4])
            raise WeightsError(f"{source.path}: expected one checkpoint, found {names}; name the file itself")
        if found:
            return source.path, found[0]
    raise WeightsError(
        f"{source.path}: expected a checkpoint (model.safetensors, *.safetensors, *.pth, *.pt), found "
        f"{', '.join(sorted(file.name for file in source.path.iterdir())[:5]) or 'an empty folder'}"
    )


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; an empty one where there is no such file.

    Raises:
        WeightsError: a file that is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not a JSON file ({error}); download it again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
