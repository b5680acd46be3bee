"""What can be refused before a model is loaded: everything here costs a fraction of a second and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.bench.scoring import TestSet, image_hash
from ad_dinov3.bench.seen import Seen, refuse_seen
from ad_dinov3.config import PRESETS
from ad_dinov3.data.decode import decode_image, image_size
from ad_dinov3.data.near_copies import NearCopies
from ad_dinov3.errors import ConfigError, ImageError, WeightsError
from ad_dinov3.methods.table import check_comparable, method_row
from ad_dinov3.predict.shards import Shard

_FILES = frozenset({".pth", ".pt", ".safetensors", ".ckpt"})


def check_method(method: str | None, weights: str | None, has_normals: bool = False) -> None:
    """Refuse a method that does not exist, and weights or normal images for one that takes none.

    Raises:
        ConfigError: it is one of these.
    """
    row = None if method is None else method_row(method)
    if method and has_normals:
        check_comparable(method)
    if weights and (row is None or not row.weights(PRESETS[row.preset])):
        taker = method or "a model without --method"
        raise ConfigError(f"--weights names the encoder of what comes from no model's folder; {taker} takes none")


def check_comparison(part: Shard) -> None:
    """Refuse to share out a set whose images are compared with each other.

    Raises:
        ConfigError: this process is to score a part of it.
    """
    if part.count > 1:
        raise ConfigError("--compare folder holds each image against the others, so one process sees all; omit --shard")


def check_model(method: str | None, model: str) -> None:
    """Refuse a model's folder or file that is not there; what may be a name on the hub passes.

    Raises:
        WeightsError: nothing is there.
    """
    path = Path(model)
    if model == EMBEDDED or path.exists():
        return
    is_path = path.is_absolute() or model.startswith(".") or len(path.parts) > 2 or path.suffix in _FILES
    if is_path:
        raise WeightsError(
            f"{model}: no such model: expected embedded, a model's or exported folder, a checkpoint with --method, or "
            "a repository of the Hugging Face hub"
        )


def refuse_seen_sets(seen: Seen, sets: Sequence[TestSet], normals: Iterable[Path] = ()) -> None:
    """Refuse test data that a model's folders name, or of which they or its normal images hold an image.

    Raises:
        DataError: it was seen.
    """
    everything = replace(seen, images=seen.images | {image_hash(path) for path in normals})
    for test_set in sets:
        if overlap := seen.overlap(test_set.name, ()):  # names first: they cost nothing
            refuse_seen(overlap)
    for test_set in sets if everything.images else ():
        pairs = ((sample.image_path, image_hash(sample.image_path)) for sample in test_set.samples)
        if overlap := everything.overlap(test_set.name, pairs):
            refuse_seen(overlap)


def near_copies(sets: Sequence[TestSet], normals: Mapping[str, Sequence[Path]]) -> list[tuple[str, Path]]:
    """Test images that are nearly normal ones of their class, with those; what cannot be decoded is said later."""
    found = []
    for name, paths in normals.items():
        known = NearCopies(paths)
        for sample in (sample for test_set in sets for sample in test_set.samples if sample.class_name == name):
            with suppress(ImageError):
                original = known.original(decode_image(sample.image_path))
                found += [] if original is None else [(str(sample.image_path), original)]
    return found


def check_images(paths: Iterable[Path]) -> None:
    """Refuse images whose headers cannot be read.

    Raises:
        ImageError: one of them; its path is named.
    """
    for path in paths:
        image_size(path)
