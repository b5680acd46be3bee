"""Frozen features on disk: computed once, read at every epoch of every run that uses the same encoder and input.

A group is a folder for one encoder and one transform; its shards are safetensors files that hold, per image, the patch
tokens and CLS tokens of each stage as float16, and the sha256 of all that in its header. The key of an image is the
sha256 of its file, so copies and renamed files are found again, and an edited image is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ad_dinov3.errors import DataError, TrainingError
from ad_dinov3.files import parse_json, user_cache, write_text
from ad_dinov3.types import EncoderSpec, Features, ImageEncoder
from ad_dinov3.weights.tensors import write_tensors

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 2  # 1 had no checksums
_SHARD_IMAGES = 32
_META = "group.json"
_DIGEST = "sha256"
_DISK_MARGIN_BYTES = 1 << 30


def cache_root() -> Path:
    """The folder of all groups: AD_DINOV3_CACHE, else ad-dinov3/features in the user's cache folder."""
    named = os.environ.get("AD_DINOV3_CACHE")
    return Path(named) if named else user_cache("features")


@dataclass(frozen=True)
class Group:
    """One encoder at one input size, on disk.

    Attributes:
        folder: where its shards lie.
        encoder: the encoder's name.
        fingerprint: the encoder's fingerprint.
        size: (height, width) of the input in px.
        interpolation: filter of the resize.
        stages: how many stages an image has.
    """

    folder: Path
    encoder: str
    fingerprint: str
    size: tuple[int, int]
    interpolation: str
    stages: int

    def __post_init__(self) -> None:
        if not (self.folder / _META).is_file():
            write_text(self.folder / _META, json.dumps({"version": FORMAT_VERSION, **asdict(self)}, default=str))

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def bytes_on_disk(self) -> int:
        return _size(self.folder)


def open_group(spec: EncoderSpec, size: tuple[int, int], interpolation: str, root: Path | None = None) -> Group:
    """The group of an encoder and a transform, made if missing."""
    digest = hashlib.sha256(f"{FORMAT_VERSION}|{spec.fingerprint}|{size}|{interpolation}".encode()).hexdigest()[:16]
    return Group((root or cache_root()) / digest, spec.name, spec.fingerprint, size, interpolation, len(spec.widths))


def bytes_per_image(spec: EncoderSpec, size: tuple[int, int]) -> int:
    """What one image takes on disk, in bytes: float16 patch tokens and CLS tokens of every stage."""
    patches = (size[0] // spec.patch_size) * (size[1] // spec.patch_size)
    return 2 * sum(width * (patches + 1) for width in spec.widths)


class FeatureStore:
    """Features of a group by image key; a shard that cannot be opened counts as absent.

    Args:
        group: as `open_group` gives it.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._homes: dict[str, Path] = {}  # the shard of each image
        self._files: dict[Path, safe_open] = {}  # shards are memory-mapped
        self._unreadable: list[Path] = []
        self._index(group.shards)

    def __contains__(self, key: str) -> bool:
        return key in self._homes

    def __len__(self) -> int:
        return len(self._homes)

    def load(self, keys: Sequence[str]) -> Features:
        """Float32 features of B images.

        Raises:
            KeyError: an image is not in the store.
        """
        return Features(self._stack(keys, "patch"), self._stack(keys, "cls"), self.group.size)

    def discard_damaged(self, keys: Iterable[str]) -> list[Path]:
        """Delete what cannot be opened, and the shards of these images that do not hold the bytes that were written.

        Reads those shards whole. Their images count as absent from then on, and `fill` computes them anew.

        Returns:
            The deleted shards.
        """
        asked = sorted({self._homes[key] for key in keys if key in self})
        damaged = [*self._unreadable, *(shard for shard in asked if not _is_whole(self._files[shard]))]
        for shard in damaged:
            _LOG.warning("%s: damaged; its features are computed again", shard)
            shard.unlink()
        self._homes = {key: shard for key, shard in self._homes.items() if shard not in damaged}
        self._unreadable = []
        return damaged

    def fill(
        self, encoder: ImageEncoder, images: Iterable[tuple[str, Callable[[], Tensor]]], batch_size: int
    ) -> Iterator[int]:
        """Encode what is missing and write it shard by shard; a kill loses at most one shard.

        Args:
            encoder: of this group.
            images: key and a loader of its (3, H, W) uint8 input, of missing images only.
            batch_size: images per encoder call.

        Yields:
            The number of images written so far.
        """
        shard: dict[str, Tensor] = {}
        batch: list[tuple[str, Tensor]] = []
        done = 0
        for key, load in images:
            batch.append((key, load()))
            if len(batch) == batch_size:
                shard |= self._encode(encoder, batch)
                done, batch = done + len(batch), []
                if len(shard) >= _SHARD_IMAGES * 2 * len(encoder.spec.widths):
                    self._write(shard)
                    shard = {}
                yield done
        if batch:
            shard |= self._encode(encoder, batch)
        if shard:
            self._write(shard)
        yield done + len(batch)

    def _encode(self, encoder: ImageEncoder, batch: Sequence[tuple[str, Tensor]]) -> dict[str, Tensor]:
        features = encoder.encode(torch.stack([image for _, image in batch]))
        parts: dict[str, Tensor] = {}
        for row, (key, _) in enumerate(batch):
            for stage, (patch, cls) in enumerate(zip(features.patch_tokens, features.cls_tokens, strict=True)):
                parts[f"{key}.patch.{stage}"] = patch[row].half().cpu().contiguous()
                parts[f"{key}.cls.{stage}"] = cls[row].half().cpu().contiguous()
        return parts

    def _write(self, shard: dict[str, Tensor]) -> None:
        name = hashlib.sha256("".join(sorted(shard)).encode()).hexdigest()[:16]
        path = self.group.folder / f"{name}.safetensors"
        write_tensors(path, shard, {_DIGEST: _digest((key, shard[key]) for key in sorted(shard))})
        self._index([path])

    def _index(self, shards: Iterable[Path]) -> None:
        for shard in shards:
            try:
                file = safe_open(shard, framework="pt")
            except (SafetensorError, OSError):
                self._unreadable.append(shard)
                continue
            self._files[shard] = file
            self._homes |= {name.partition(".")[0]: shard for name in _names(file)}

    def _stack(self, keys: Sequence[str], part: str) -> tuple[Tensor, ...]:
        return tuple(
            torch.stack([self._tensor(key, f"{key}.{part}.{stage}") for key in keys]).float()
            for stage in range(self.group.stages)
        )

    def _tensor(self, key: str, name: str) -> Tensor:
        tensor: Tensor = self._files[self._homes[key]].get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor


def _names(shard: safe_open) -> list[str]:
    names: list[str] = shard.keys()  # type: ignore[no-untyped-call]
    return names


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex sha256 over names and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_whole(shard: safe_open) -> bool:
    written = (shard.metadata() or {}).get(_DIGEST)  # type: ignore[no-untyped-call]
    return bool(written == _digest((name, shard.get_tensor(name)) for name in sorted(_names(shard))))  # type: ignore[no-untyped-call]


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse what the disk cannot hold.

    Raises:
        TrainingError: with what is needed and what is free.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free - _DISK_MARGIN_BYTES
    if needed_bytes > free:
        raise TrainingError(
            f"the feature cache needs {needed_bytes / 1e9:.1f} GB in {folder}, {max(free, 0) / 1e9:.1f} GB are free; "
            "set AD_DINOV3_CACHE to a larger disk, run `ad-dinov3 cache prune`, or train with --no-cache"
        )


def group_folders(root: Path | None = None) -> list[Path]:
    """The folders of all groups below the cache folder, oldest use first."""
    folders = [meta.parent for meta in (root or cache_root()).glob(f"*/{_META}")]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime)


def read_group(folder: Path) -> Group:
    """The group in a folder.

    Raises:
        DataError: its description is damaged.
    """
    try:
        tree = parse_json((folder / _META).read_text(encoding="utf-8"))
        return Group(
            folder,
            tree["encoder"],
            tree["fingerprint"],
            tuple(tree["size"]),
            tree["interpolation"],
            tree["stages"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / _META}: not the description of a group ({error!r}); delete the group with "
            f"`ad-dinov3 cache prune {folder.name}`, its features are computed again when they are needed"
        ) from None


def list_groups(root: Path | None = None) -> list[Group]:
    """All groups below the cache folder, oldest use first.

    Raises:
        DataError: a group's description is damaged.
    """
    return [read_group(folder) for folder in group_folders(root)]


def prune(folder: Path) -> int:
    """Delete a group's folder; the bytes that this frees."""
    freed = _size(folder)
    shutil.rmtree(folder)
    return freed


def _size(folder: Path) -> int:
    return sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
