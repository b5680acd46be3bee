"""From a name or a path to files: a local path, AD_DINOV3_WEIGHTS, the Hugging Face cache, or one download."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ad_dinov3.assets import BACKBONES
from ad_dinov3.errors import WeightsError
from ad_dinov3.weights.hub import cached_snapshot, download_snapshot
from ad_dinov3.weights.table import (
    DINOV3_LICENCE,
    META_FORM_URL,
    OWN_LICENCE,
    PUBLIC_BACKBONES,
    PUBLIC_CLIPS,
    PublicBackbone,
    PublicClip,
    find_backbone,
    find_clip,
)

WEIGHTS_VARIABLE = "AD_DINOV3_WEIGHTS"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

Origin = Literal["embedded", "path", "folder of AD_DINOV3_WEIGHTS", "Hugging Face cache", "download"]


@dataclass(frozen=True)
class WeightSource:
    """Where one model's weights lie.

    Attributes:
        name: the model's name; the folder's or file's own name for a model that is not in the tables.
        path: a folder or a file.
        origin: how it was found.
        backbone: the row of the public backbone that was asked for, or that the path is named after; the tensors must
            fit it.
        licence: name of the weights' licence, as far as the name tells.
    """

    name: str
    path: Path
    origin: Origin = "path"
    backbone: PublicBackbone | None = None
    licence: str = "not stated"


def resolve_weights(name_or_path: str, *, offline: bool = False) -> WeightSource:
    """Find a model's weights; a download happens only for a name that is nowhere on this machine.

    The order: ``lite0`` and ``nano`` (which come with the package), an existing path, the folder that AD_DINOV3_WEIGHTS
    names, the Hugging Face cache, then one download unless ``offline`` or HF_HUB_OFFLINE says no.

    Args:
        name_or_path: a folder, a file, a public name (``dinov3-vitl16``, ``vitl16``, ``clip-vit-l14``), a repository
            on Hugging Face (``facebook/...``, ``timm/...``, ``openai/...``), or the name of Meta's file.
        offline: never download.

    Raises:
        WeightsError: a name that nobody knows, or weights that are not found; it says how to get them.
    """
    found = find_local(name_or_path)
    if found is not None:
        return found
    repository = hub_repository(name_or_path)
    row = public_row(name_or_path)
    if offline:
        raise WeightsError(f"{name_or_path}: not on this machine, and nothing is downloaded here.{ways(row)}")
    path = download_snapshot(repository, ways(row))
    return _named(name_or_path, path, "download")


def find_local(name_or_path: str) -> WeightSource | None:
    """The weights as ``resolve_weights`` finds them without a download, or None."""
    if name_or_path in BACKBONES:
        return WeightSource(name_or_path, BACKBONES[name_or_path], "embedded", licence=OWN_LICENCE)
    path = Path(name_or_path).expanduser()
    if path.exists():
        return _named(path.name, path, "path")
    in_folder = _in_weights_folder(name_or_path)
    if in_folder is not None:
        return _named(name_or_path, in_folder, "folder of AD_DINOV3_WEIGHTS")
    for repository in _repositories(name_or_path):
        snapshot = cached_snapshot(repository)
        if snapshot is not None:
            return _named(name_or_path, snapshot, "Hugging Face cache")
    return None


def public_row(name: str) -> PublicBackbone | PublicClip | None:
    """The row of a public model by any of its names, or None."""
    return find_backbone(name) or find_clip(name)


def hub_repository(name: str) -> str:
    """The repository on Hugging Face that a name is downloaded from: timm's if asked for by that, else the maker's.

    Raises:
        WeightsError: a name that is neither a public model's nor of the form owner/name.
    """
    repositories = _repositories(name)
    if not repositories:
        raise WeightsError(_unknown(name))
    return repositories[0]


def weights_folder() -> Path | None:
    """The folder that AD_DINOV3_WEIGHTS names, or None."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named).expanduser() if named else None


def ways(row: PublicBackbone | PublicClip | None) -> str:
    """The legal ways to get a public model's weights, as the end of a message."""
    if row is None:
        return f" Put its files into a folder and pass the folder, or set {WEIGHTS_VARIABLE} to the folder above it."
    if isinstance(row, PublicBackbone):
        found = (
            f"Legal ways to get it ({DINOV3_LICENCE}): accept the licence at https://huggingface.co/{row.hf_id}, run "
            f"`hf auth login`, then `ad-dinov3 weights download {row.name} -o DIR`; or take Meta's request form (an "
            f"e-mail brings links), {META_FORM_URL}, for {row.meta_file}; or timm's mirror under the same licence: "
            f"`ad-dinov3 weights download {row.timm_id} -o DIR`."
        )
    else:
        found = (
            f"Ways to get it (MIT licence): `ad-dinov3 weights download {row.name} -o DIR` where there is a network "
            f"(https://huggingface.co/{row.hf_id}); or OpenAI's own file {row.openai_file}, with tokenizer.json or "
            f"vocab.json and merges.txt beside it."
        )
    return f" {found} Then pass DIR/{row.name}, or set {WEIGHTS_VARIABLE}=DIR to have it found by name."


def _named(asked: str, path: Path, origin: Origin) -> WeightSource:
    """The source with what the name asked for, or else the path's own name, tells of it."""
    stem = path.name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else path.name
    row = find_backbone(asked) or find_backbone(path.name) or find_backbone(stem)
    if row is not None:
        return WeightSource(row.name, path, origin, row, DINOV3_LICENCE)
    clip = find_clip(asked) or find_clip(path.name)
    if clip is not None:
        return WeightSource(clip.name, path, origin, licence="MIT")
    return WeightSource(stem or path.resolve().name, path, origin)


def _names(name: str) -> tuple[str, ...]:
    row = public_row(name)
    return row.names if row else (name,)


def _in_weights_folder(name: str) -> Path | None:
    folder = weights_folder()
    if folder is None:
        return None
    for known in _names(name):
        candidates = [folder / known, folder / known.rpartition("/")[2]]
        candidates += [folder / f"{known.rpartition('/')[2]}{suffix}" for suffix in _SUFFIXES]
        for candidate in candidates:
            if candidate.exists():
                return candidate
    return None


def _repositories(name: str) -> tuple[str, ...]:
    backbone = find_backbone(name)
    if backbone is not None:
        both = (backbone.hf_id, backbone.timm_id)
        return both[::-1] if name == backbone.timm_id else both
    clip = find_clip(name)
    if clip is not None:
        return (clip.hf_id,)
    return (name,) if _HUB_ID.fullmatch(name) else ()


def _unknown(name: str) -> str:
    known = [*BACKBONES, *(row.name for row in (*PUBLIC_BACKBONES, *PUBLIC_CLIPS))]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return (
        f"{name}: no such file or folder, and no model of that name; {hint}known are {', '.join(known)}, a Hugging "
        f"Face repository (owner/name), a folder or a file"
    )
