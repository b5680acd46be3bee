"""The feature cache: what goes in comes out, nothing is computed twice, and damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ad_dinov3.cli import cache as cache_command
from ad_dinov3.encoders.backbone import load_backbone
from ad_dinov3.encoders.cache import (
    FeatureStore,
    bytes_per_image,
    check_disk,
    list_groups,
    open_group,
    prune,
)
from ad_dinov3.errors import DataError, TrainingError
from ad_dinov3.files import file_hash

SIZE = (32, 64)


def images(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"key{i}": torch.randint(0, 256, (3, *SIZE), generator=generator).to(torch.uint8) for i in range(count)}


def filled(folder: Path, weights: Path, count: int) -> tuple[FeatureStore, dict[str, Tensor]]:
    encoder, inputs = load_backbone(str(weights)), images(count)
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

    expected = load_backbone(str(weights)).encode(torch.stack([inputs["key39"], inputs["key0"]]))
    assert loaded.image_size == SIZE
    assert len(store) == len(again) == 40
    pairs = zip(loaded.patch_tokens + loaded.cls_tokens, expected.patch_tokens + expected.cls_tokens, strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)


def test_announced_size_is_what_the_disk_takes(tmp_path: Path, tiny_vit: Path) -> None:
    store, _ = filled(tmp_path, tiny_vit, 40)

    announced = 40 * bytes_per_image(load_backbone(str(tiny_vit)).spec, SIZE)
    assert announced < store.group.bytes_on_disk < 2.5 * announced  # the rest is the index; these images are tiny


def test_other_stages_or_sizes_are_other_groups(tmp_path: Path, tiny_vit: Path) -> None:
    spec, other = load_backbone(str(tiny_vit)).spec, load_backbone(str(tiny_vit), stages=(2, 4)).spec
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


def cut(content: bytes) -> bytes:
    return content[:100]


def scribble(content: bytes) -> bytes:
    """2000 random bytes amid the tensors; the header stays."""
    start = len(content) - 4000
    return content[:start] + np.random.default_rng(0).bytes(2000) + content[start + 2000 :]


def without_checksum(content: bytes) -> bytes:
    return content.replace(b'"sha256"', b'"sha25x"')


@pytest.mark.parametrize("damage", [cut, scribble, without_checksum])
def test_damaged_shard_is_told_deleted_and_computed_again(
    tmp_path: Path, tiny_vit: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    store, inputs = filled(tmp_path, tiny_vit, 40)
    expected = store.load(list(inputs))
    holder = next(shard for shard in store.group.shards if b"key3." in shard.read_bytes())
    holder.write_bytes(damage(holder.read_bytes()))
    again, encoder = FeatureStore(store.group), load_backbone(str(tiny_vit))

    assert again.discard_damaged(inputs) == [holder]

    assert f"{holder}: damaged" in caplog.text
    missing = [key for key in inputs if key not in again]
    assert "key3" in missing
    assert 0 < len(missing) < 40
    for _ in again.fill(encoder, [(key, lambda key=key: inputs[key]) for key in missing], 8):
        pass
    assert again.discard_damaged(inputs) == []
    loaded = FeatureStore(store.group).load(list(inputs))
    assert all(
        torch.allclose(*pair, atol=1e-2) for pair in zip(loaded.patch_tokens, expected.patch_tokens, strict=True)
    )


def test_shards_of_other_images_are_not_looked_at(tmp_path: Path, tiny_vit: Path) -> None:
    store, inputs = filled(tmp_path, tiny_vit, 40)
    shards = store.group.shards
    for shard in shards:
        if b"key3." in shard.read_bytes():
            shard.write_bytes(scribble(shard.read_bytes()))
    other = next(key for key in inputs if store.group.shards and store._homes[key] != store._homes["key3"])
    assert FeatureStore(store.group).discard_damaged([other]) == []
    assert store.group.shards == shards


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"encoder": "x"}'])
def test_damaged_description_of_a_group_is_named_with_the_remedy(
    tmp_path: Path, tiny_vit: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AD_DINOV3_CACHE", str(tmp_path))
    store, _ = filled(tmp_path, tiny_vit, 4)
    whole = open_group(load_backbone(str(tiny_vit)).spec, (32, 32), "bilinear", tmp_path)
    damaged = store.group.folder
    (damaged / "group.json").write_text(content)
    with pytest.raises(DataError, match=rf"group\.json: not the description of a group .* cache prune {damaged.name}"):
        list_groups(tmp_path)

    run = CliRunner(env={"COLUMNS": "200"})
    shown = run.invoke(cache_command.app, ["list"])
    assert shown.exit_code == 0
    assert whole.folder.name in shown.output
    assert f"cache prune {damaged.name}" in shown.output
    assert run.invoke(cache_command.app, ["prune", damaged.name]).exit_code == 0
    assert list_groups(tmp_path) == [whole]


def test_pruned_group_is_gone(tmp_path: Path, tiny_vit: Path) -> None:
    store, _ = filled(tmp_path, tiny_vit, 4)
    expected = store.group.bytes_on_disk

    assert prune(store.group.folder) == expected
    assert list_groups(tmp_path) == []


def test_cache_that_the_disk_cannot_hold_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"needs 1000000\.0 GB.*--no-cache"):
        check_disk(tmp_path / "not" / "yet", 10**15)
