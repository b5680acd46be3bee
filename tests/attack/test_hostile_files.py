"""Hostile and damaged model folders, checkpoints, manifests and caches: each is refused in words.

pytest tests/attack/test_hostile_files.py
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ad_dinov3.config import PRESETS
from ad_dinov3.data.manifest import read_manifest
from ad_dinov3.encoders.cache import read_group
from ad_dinov3.errors import AdDinoError
from ad_dinov3.infer.opening import load
from ad_dinov3.model import load_model, new_model, save_model
from ad_dinov3.weights.tensors import read_tensors

Damage = Callable[[Path], object]
DEEP = "[" * 100_000

SETTINGS: dict[str, tuple[str, object]] = {
    "height of 1e9": ("input.height", 10**9),
    "height of 1e30": ("input.height", 1e30),
    "height of 100,000": ("input.height", 100_000),
    "height below zero": ("input.height", -8),
    "height as text": ("input.height", "tall"),
    "smoothing of 1e9 px": ("smoothing_sigma_px", 1e9),
    "smoothing of 1e308 px": ("smoothing_sigma_px", 1e308),
    "width of 1e12": ("method.width", 10**12),
    "rarity of 1e9": ("method.rarity", 10**9),
    "gain of 1e308": ("method.gain", 1e308),
    "threshold of null": ("threshold", None),
    "threshold as text": ("threshold", "high"),
    "unknown key": ("run_this", "os.system"),
    "password file as encoder": ("encoder", "/etc/passwd"),
    "encoder of null": ("encoder", None),
    "encoder that is not there": ("encoder", "../../nowhere"),
    "method that is not there": ("method.kind", "os"),
    "method of null": ("method", None),
    "later format": ("format_version", 99),
}


def changed(tree: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """Settings with one of them replaced."""
    *parents, last = key.split(".")
    place = tree
    for parent in parents:
        place = place[parent]
    place[last] = value
    return tree


def setting(key: str, value: object) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(changed(json.loads(file.read_text()), key, value)))

    return damage


def content(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def head(change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "head.safetensors"
        save_file(dict(change(load_file(file))), file)

    return damage


def header(length: int, text: bytes) -> bytes:
    """A safetensors file of this header."""
    return struct.pack("<Q", length) + text


def tensor_header(**fields: object) -> bytes:
    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **fields}}).encode()
    return header(len(text), text) + bytes(4)


FOLDERS: dict[str, Damage] = {
    **{f"config.json: {name}": setting(*change) for name, change in SETTINGS.items()},
    "config.json: empty": content("config.json", b""),
    "config.json: no JSON": content("config.json", b"{"),
    "config.json: a list": content("config.json", b"[]"),
    "config.json: a number": content("config.json", b"7"),
    "config.json: nested deeply": content("config.json", DEEP.encode()),
    "config.json: not UTF-8": content("config.json", b"\xff\xfe{"),
    "config.json: absent": lambda folder: (folder / "config.json").unlink(),
    "head: absent": lambda folder: (folder / "head.safetensors").unlink(),
    "head: empty": content("head.safetensors", b""),
    "head: noise": content("head.safetensors", np.random.default_rng(0).bytes(4096)),
    "head: pickled": content("head.safetensors", pickle.dumps({"x": 1})),
    "head: header of 2^60 bytes": content("head.safetensors", header(1 << 60, b"{}")),
    "head: header nested deeply": content("head.safetensors", header(len(DEEP), DEEP.encode())),
    "head: shape of 2^60": content("head.safetensors", tensor_header(shape=[1 << 60])),
    "head: offsets behind the end": content("head.safetensors", tensor_header(data_offsets=[0, 1 << 40])),
    "head: offsets turned round": content("head.safetensors", tensor_header(data_offsets=[4, 0])),
    "head: dtype that is not there": content("head.safetensors", tensor_header(dtype="EVIL")),
    "head: no prompts": head(lambda tensors: {k: v for k, v in tensors.items() if "prompts" not in k}),
    "head: no tensors": head(lambda tensors: {}),
    "head: scalars": head(lambda tensors: {key: torch.zeros(()) for key in tensors}),
    "head: NaN": head(lambda tensors: {key: torch.full_like(value, torch.nan) for key, value in tensors.items()}),
    "head: infinity": head(lambda tensors: {key: torch.full_like(value, torch.inf) for key, value in tensors.items()}),
    "head: other shapes": head(lambda tensors: {key: torch.zeros(2, 2) for key in tensors}),
    "training_images.txt: not UTF-8": content("training_images.txt", b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_model_folder_is_refused_in_words(tmp_path: Path, tiny_vit: Path, name: str) -> None:
    config = PRESETS["default"].with_settings(
        {
            "encoder": str(tiny_vit),
            "input.height": 32,
            "input.width": 40,
            "method.prompts.source": "learned",
            "method.width": 8,
        }
    )
    folder = tmp_path / "model"
    save_model(new_model(config), folder)
    load_model(folder)
    FOLDERS[name](folder)
    refused(lambda: load(folder))


class _Run:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


CHECKPOINTS: dict[str, bytes] = {
    "empty": b"",
    "noise": np.random.default_rng(1).bytes(5000),
    "code": pickle.dumps(_Run()),
    "global": b"\x80\x02cos\nsystem\n.",
    "zip without content": b"PK\x05\x06" + bytes(18),
    "zip that ends": b"PK\x03\x04" + bytes(60),
    "web page": b"<!DOCTYPE html><title>404</title>",
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_in_words(tmp_path: Path, name: str, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(CHECKPOINTS[name])
    refused(lambda: read_tensors(tmp_path / f"x{suffix}"))


MANIFESTS: dict[str, tuple[str, bytes]] = {
    "field of 200 kB": ("x.csv", b"image,label\n" + b"a" * 200_000 + b",1\n"),
    "name of 300 bytes": ("x.csv", b"image,label\n" + b"a" * 300 + b".png,1\n"),
    "not UTF-8": ("x.csv", b"image\n\xff\xfe.png\n"),
    "null byte": ("x.csv", b"image\na\0.png\n"),
    "JSONL nested deeply": ("x.jsonl", b'{"image": ' + DEEP.encode() + b"\n"),
    "JSON nested deeply": ("x.json", DEEP.encode()),
    "meta of numbers": ("x.json", b'{"test": {"a": 5}}'),
    "meta of text": ("x.json", b'{"test": {"a": ["b"]}}'),
    "meta of null": ("x.json", b'{"test": null}'),
    "image that is a number": ("x.jsonl", b'{"image": 5}\n'),
    "image that is a list": ("x.jsonl", b'{"image": ["a"]}\n'),
    "Parquet that is noise": ("x.parquet", b"PAR1" + bytes(100) + b"PAR1"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused_or_its_rows_named(tmp_path: Path, name: str) -> None:
    suffix, data = MANIFESTS[name]
    (tmp_path / suffix).write_bytes(data)
    refused(lambda: read_manifest(tmp_path / suffix).complete())


@pytest.mark.parametrize("text", ["", "{", "[]", "7", DEEP, '{"version": 2}', '{"encoder": 1, "size": 4}'])
def test_a_damaged_description_of_a_cache_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "group.json").write_text(text)
    refused(lambda: read_group(tmp_path))


def refused(attempt: Callable[[], object]) -> None:
    """It ends in an error of the package, in one line that shows no foreign content."""
    with pytest.raises(AdDinoError) as refusal:
        attempt()
    assert "\n" not in str(refusal.value), refusal.value
    assert "root:" not in str(refusal.value)
