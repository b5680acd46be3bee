"""Encoder weights: name -> files -> tensors in one layout. The only place that opens checkpoints.

table      the public models and all their names
resolve    a name or a path -> a folder or a file on this machine, or one download (hub)
files      a file -> tensors, never running what is in it; hashes: what is known of its bytes
saved      a saved model's folder and settings
load, clip -> tensors in the Hugging Face layout (vit, convnext: the names of Meta and timm), with a configuration

What opens files needs torch, and is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ad_dinov3.weights.folders import checkpoint_file as checkpoint_file
from ad_dinov3.weights.hub import download_snapshot as download_snapshot
from ad_dinov3.weights.resolve import WEIGHTS_VARIABLE as WEIGHTS_VARIABLE
from ad_dinov3.weights.resolve import WeightSource as WeightSource
from ad_dinov3.weights.resolve import find_local as find_local
from ad_dinov3.weights.resolve import hub_repository as hub_repository
from ad_dinov3.weights.resolve import public_row as public_row
from ad_dinov3.weights.resolve import resolve_weights as resolve_weights
from ad_dinov3.weights.resolve import ways as ways
from ad_dinov3.weights.resolve import weights_folder as weights_folder
from ad_dinov3.weights.table import DINOV3_LICENCE as DINOV3_LICENCE
from ad_dinov3.weights.table import DINOV3_LICENCE_URL as DINOV3_LICENCE_URL
from ad_dinov3.weights.table import LITE as LITE
from ad_dinov3.weights.table import NANO as NANO
from ad_dinov3.weights.table import PUBLIC_BACKBONES as PUBLIC_BACKBONES
from ad_dinov3.weights.table import PUBLIC_CLIPS as PUBLIC_CLIPS
from ad_dinov3.weights.table import PublicBackbone as PublicBackbone

if TYPE_CHECKING:
    from ad_dinov3.weights.clip import ClipWeights as ClipWeights
    from ad_dinov3.weights.clip import is_clip as is_clip
    from ad_dinov3.weights.clip import load_clip_weights as load_clip_weights
    from ad_dinov3.weights.hashes import check_hashes as check_hashes
    from ad_dinov3.weights.hashes import write_sums as write_sums
    from ad_dinov3.weights.load import BackboneWeights as BackboneWeights
    from ad_dinov3.weights.load import load_backbone_weights as load_backbone_weights
    from ad_dinov3.weights.tensors import read_tensors as read_tensors
    from ad_dinov3.weights.tensors import tensor_names as tensor_names

_HOMES = {
    "ClipWeights": "clip",
    "is_clip": "clip",
    "load_clip_weights": "clip",
    "check_hashes": "hashes",
    "write_sums": "hashes",
    "BackboneWeights": "load",
    "load_backbone_weights": "load",
    "read_tensors": "tensors",
    "tensor_names": "tensors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
