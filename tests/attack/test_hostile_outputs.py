"""Hostile and damaged exported folders, cached features and results of earlier runs: refused in one line, or made anew.

pytest tests/attack/test_hostile_outputs.py
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_hostile_files import DEEP, changed, header, refused, tensor_header
from test_session import SIDE, exported
from toy_detector import ToyDetector, draw_part

from ad_dinov3.bench.scoring import Item, read_scored
from ad_dinov3.data.streams import find_images
from ad_dinov3.encoders.cache import FeatureStore, open_group
from ad_dinov3.infer.session import Session
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.types import EncoderSpec, Sample

NOISE = np.random.default_rng(0).bytes(4096)
TEXTS = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "nested deeply": DEEP.encode(),
    "not UTF-8": b"\xff\xfe{",
}
BINARIES = {
    "empty": b"",
    "noise": NOISE,
    "pickled": pickle.dumps({"x": 1}),
    "zip without content": b"PK\x05\x06" + bytes(18),
    "web page": b"<!DOCTYPE html><title>404</title>",
}
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
XML_BOMB = f'<!DOCTYPE net [<!ENTITY e0 "x">{ENTITIES}]><net name="&e9;" version="11"/>'.encode()
SETTINGS: list[tuple[str, object]] = [
    ("input.height", 10**9),
    ("input.height", -8),
    ("input.height", "tall"),
    ("input.height", SIDE * 2),
    ("input.interpolation", "os"),
    ("threshold", 7),
    ("threshold", None),
    ("smoothing_sigma_px", 1e308),
    ("runtime", "os"),
    ("class_names", [5]),
    ("size_multiple", 10**12),
    ("format_version", 99),
    ("kind", "other"),
]


def scored(folder: Path) -> object:
    """An image of the graph's size through an exported folder."""
    session = Session(folder, threads=1)
    return session.score(session.prepare(np.zeros((SIDE, SIDE, 3), np.uint8))[None], ["x"])


@pytest.mark.parametrize(("key", "value"), SETTINGS)
def test_hostile_settings_of_an_exported_folder_are_refused(tmp_path: Path, key: str, value: object) -> None:
    file = exported(tmp_path / "m", "onnx") / "config.json"
    scored(tmp_path / "m")
    file.write_text(json.dumps(changed(json.loads(file.read_text()), key, value)))
    refused(lambda: scored(tmp_path / "m"))


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_description_of_an_exported_folder_is_refused(tmp_path: Path, name: str) -> None:
    (exported(tmp_path / "m", "onnx") / "config.json").write_bytes(TEXTS[name])
    refused(lambda: scored(tmp_path / "m"))


@pytest.mark.parametrize("file", ["model.onnx", "model.xml", "model.bin", "model.pt2"])
def test_a_folder_without_its_graph_is_refused(tmp_path: Path, file: str) -> None:
    runtime = {"model.onnx": "onnx", "model.pt2": "pt2"}.get(file, "openvino")
    (exported(tmp_path / "m", runtime) / file).unlink(missing_ok=True)
    refused(lambda: scored(tmp_path / "m"))


@pytest.mark.parametrize("name", [*BINARIES, "cut", "entities"])
@pytest.mark.parametrize("file", ["model.onnx", "model.xml", "model.pt2"])
def test_a_damaged_graph_is_refused(tmp_path: Path, file: str, name: str) -> None:
    runtime = {"model.onnx": "onnx", "model.pt2": "pt2"}.get(file, "openvino")
    path = exported(tmp_path / "m", runtime) / file
    whole = path.read_bytes() if path.is_file() else NOISE
    path.write_bytes({**BINARIES, "cut": whole[: len(whole) // 2], "entities": XML_BOMB}[name])
    refused(lambda: scored(tmp_path / "m"))


@pytest.mark.parametrize("file", ["results.jsonl", ".thumbnails.jsonl"])
@pytest.mark.parametrize("name", [name for name in TEXTS if name != "empty"])
def test_a_hostile_journal_is_refused(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / "out").mkdir()
    draw_part(tmp_path / "x.png")
    (tmp_path / "out" / file).write_bytes(TEXTS[name] + b"\n")
    run = FolderRun(tmp_path / "out", "toy", "f1", DriveOptions())
    refused(lambda: score_into_folder(find_images([str(tmp_path / "x.png")]), ToyDetector(), run))


def npz(name: str, content: bytes) -> bytes:
    """A store's file with one array."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(shape: str, kind: str = "<f4") -> bytes:
    """An array's file that has four bytes of what it claims."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(4)


STORES = {
    **BINARIES,
    "another array": npz("x", npy("(1,)")),
    "shape of 2^60": npz("patch_map", npy("(1152921504606846976,)")),
    "shape of 2^43": npz("patch_map", npy("(8796093022208,)")),
    "pickled objects": npz("patch_map", npy("(1,)", "|O")),
    "no array": npz("patch_map", NOISE),
}


@pytest.mark.parametrize("name", STORES)
def test_a_hostile_file_of_scores_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.npz").write_bytes(STORES[name])
    sample = Sample(tmp_path / "x.png", None, "x", False)
    refused(lambda: read_scored(Item(sample, "x", "0" * 64, tmp_path / "x.npz")))


SHARDS = {
    **BINARIES,
    "header of 2^60 bytes": header(1 << 60, b"{}"),
    "header nested deeply": header(len(DEEP), DEEP.encode()),
    "shape of 2^60": tensor_header(shape=[1 << 60]),
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_hostile_shard_of_cached_features_counts_as_none(tmp_path: Path, name: str) -> None:
    spec = EncoderSpec("toy", 8, 8, (4,), "f" * 16, "none")
    group = open_group(spec, (SIDE, SIDE), "bilinear", tmp_path)
    group.folder.mkdir(parents=True, exist_ok=True)
    (group.folder / "000.safetensors").write_bytes(SHARDS[name])
    assert len(FeatureStore(group)) == 0
