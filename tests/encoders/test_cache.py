"""The feature cache: what goes in comes out, nothing is computed twice, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ad_dinov3.encoders.cache import (
    FeatureStore,
    bytes_per_image,
    check_disk,
    list_groups,
    open_group,
    prune,
)
from ad_dinov3.encoders.dinov3 import load_dinov3
from ad_dinov3.errors import DataError, TrainingError
from ad_dinov3.files import file_hash

SIZE = (32, 64)


def images(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"key{i}": torch.randint(0, 256, (3, *SIZE), generator=generator).to(torch.uint8) for i in range(count)}


def filled(folder: Path, weights: Path, count: int) -> tuple[FeatureStore, dict[str, Tensor]]:
    encoder, inputs = load_dinov3(str(weights)), images(count)
    store = FeatureStore(open_group(encoder.spec, SIZE, "bilinear", folder))
    loaders = [(key, lambda image=image: image) for key, image in inputs.items()]
    assert list(store.fill(encoder, loaders, 8))[-1] == count
    return store, inputs


@pytest.mark.parametrize("kind", ["tiny_vit", "tiny_convnext"])
def test_features_come_back_as_the_encoder_gave_them_within_half_precision(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    weights = request.getfixturevalue(kind)
    store, inputs = filled(tmp_path, weights, 40)
    again = FeatureStore(list_groups(tmp_path)[0])

    loaded = again.load(["key39", "key0"])

    expected = load_dinov3(str(weights)).encode(torch.stack([inputs["key39"], inputs["key0"]]))
    assert loaded.image_size == SIZE
    assert len(store) == len(again) == 40
    pairs = zip(loaded.patch_tokens + loaded.cls_tokens, expected.patch_tokens + expected.cls_tokens, strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)


def test_announced_size_is_what_the_disk_takes(tmp_path: Path, tiny_vit: Path) -> None:
    store, _ = filled(tmp_path, tiny_vit, 40)

    announced = 40 * bytes_per_image(load_dinov3(str(tiny_vit)).spec, SIZE)
    assert announced < store.group.bytes_on_disk < 2.5 * announced  # the rest is the index; these images are tiny


def test_other_stages_or_sizes_are_other_groups(tmp_path: Path, tiny_vit: Path) -> None:
    spec, other = load_dinov3(str(tiny_vit)).spec, load_dinov3(str(tiny_vit), stages=(2, 4)).spec
    groups = [
        open_group(spec, SIZE, "bilinear", tmp_path),
        open_group(other, SIZE, "bilinear", tmp_path),
        open_group(spec, (32, 32), "bilinear", tmp_path),
        open_group(spec, SIZE, "bicubic", tmp_path),
    ]
    assert len({group.folder for group in groups}) == 4
    assert len(list_groups(tmp_path)) == 4


def test_key_follows_the_bytes_and_not_the_name(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)
    keys = [file_hash(tmp_path / name) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(DataError, match="missing"):
        file_hash(tmp_path / "missing")


def test_damaged_shard_is_named(tmp_path: Path, tiny_vit: Path) -> None:
    store, _ = filled(tmp_path, tiny_vit, 4)
    shard = store.group.shards[0]
    shard.write_bytes(shard.read_bytes()[:100])

    with pytest.raises(TrainingError, match=shard.name):
        FeatureStore(store.group)


def test_pruned_group_is_gone(tmp_path: Path, tiny_vit: Path) -> None:
    store, _ = filled(tmp_path, tiny_vit, 4)
    expected = store.group.bytes_on_disk

    assert prune(store.group) == expected
    assert list_groups(tmp_path) == []


def test_cache_that_the_disk_cannot_hold_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"needs 1000000\.0 GB.*--no-cache"):
        check_disk(tmp_path / "not" / "yet", 10**15)
