"""A .pt2 file runs no code: each attack is shown to work on torch's own loader, and to do nothing here."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ad_dinov3.cli import benchmark, evaluate, predict, serve
from ad_dinov3.errors import WeightsError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.pt2 import Pt2Graph

Json = dict[str, object]
Files = dict[str, bytes]


class _Graph(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.sigmoid((images.float() * self.weight / self.scale).mean(1))
        return maps, torch.topk(maps.flatten(1), 2).values.mean(1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graph that takes any batch."""
    path = tmp_path_factory.mktemp("graph") / "model.pt2"
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    program = torch.export.export(_Graph(), (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    torch.export.save(program, path)
    return path


def rewritten(source: Path, target: Path, change: Callable[[Files], None]) -> Path:
    """A copy of an archive with its files changed."""
    with zipfile.ZipFile(source) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(f"model/{name}", content)
    return target


def in_model(change: Callable[[dict], None]) -> Callable[[Files], None]:  # type: ignore[type-arg]
    """What changes the graph's JSON."""

    def apply(files: Files) -> None:
        tree = json.loads(files["models/model.json"])
        change(tree)
        files["models/model.json"] = json.dumps(tree).encode()

    return apply


def marking(marker: Path) -> str:
    """A Python expression that leaves a file behind."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def sizes(marker: Path) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        text = files["models/model.json"].decode()
        parts = text.split('"expr_str": "')
        assert len(parts) > 1
        code = json.dumps(marking(marker))[1:-1]
        text = parts[0] + "".join(f'"expr_str": "{code}' + part[part.index('"') :] for part in parts[1:])
        files["models/model.json"] = text.encode()

    return apply


def guards(marker: Path) -> Callable[[Files], None]:
    return in_model(lambda tree: tree.update(guards_code=[f"({marking(marker)}) is None"]))


def function(marker: Path) -> Callable[[Files], None]:
    def change(tree: dict) -> None:  # type: ignore[type-arg]
        node = tree["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "command", "arg": {"as_string": f"touch {marker}"}, "kind": 1}]

    return in_model(change)


class _Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def opaque(marker: Path) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        config = json.loads(files["data/constants/model_constants_config.json"])
        name = next(iter(config["config"]))
        config["config"][name] |= {"path_name": "opaque_obj_0", "use_pickle": True, "tensor_meta": None}
        files["data/constants/model_constants_config.json"] = json.dumps(config).encode()
        files["data/constants/opaque_obj_0"] = pickle.dumps(_Touch(marker))

    return apply


ATTACKS = {"sizes": sizes, "guards": guards, "opaque": opaque}


def test_a_graph_gives_what_torchs_own_loader_gives(archive: Path) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8))
    expected = torch.export.load(archive).module()(images)
    for found, wanted in zip(Pt2Graph(archive, "cpu")(images), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_an_archive_runs_in_torchs_loader_and_not_here(archive: Path, tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "ran"
    hostile = rewritten(archive, tmp_path / "model.pt2", ATTACKS[attack](marker))
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    try:
        Pt2Graph(hostile, "cpu")(images)
    except WeightsError as refusal:
        assert str(hostile) in str(refusal)  # noqa: PT017
    assert not marker.exists()
    try:
        torch.export.load(hostile).module()(images)
    except Exception as error:
        assert error is not None  # noqa: PT017  what follows the attack is of no interest
    assert marker.exists()


@pytest.mark.parametrize(
    "target", ["torch.ops.aten.from_file.default", "torch.load", "_operator.methodcaller", "torch.ops.aten.add_.Tensor"]
)
def test_operators_that_no_export_writes_are_refused_by_name(archive: Path, tmp_path: Path, target: str) -> None:
    def change(tree: dict) -> None:  # type: ignore[type-arg]
        tree["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(WeightsError, match=target):
        Pt2Graph(rewritten(archive, tmp_path / "model.pt2", in_model(change)), "cpu")


def test_sizes_cannot_grow_without_end(archive: Path, tmp_path: Path) -> None:
    def change(tree: dict) -> None:  # type: ignore[type-arg]
        nodes = tree["graph_module"]["graph"]["nodes"]
        for number in range(80):
            last = {"as_int": 3} if number == 0 else {"as_sym_int": {"as_name": f"s{number}"}}
            arguments = [{"name": name, "arg": last, "kind": 1} for name in "ab"]
            output = {"as_sym_int": {"as_name": f"s{number + 1}"}}
            nodes.append({"target": "_operator.mul", "inputs": arguments, "outputs": [output]})

    graph = Pt2Graph(rewritten(archive, tmp_path / "model.pt2", in_model(change)), "cpu")
    with pytest.raises(WeightsError, match="a size is too large"):
        graph(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_a_damaged_archive_is_refused_in_one_line(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "model.pt2"
    for length in random.integers(0, len(whole), 40):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"model\.pt2"):
            Pt2Graph(path, "cpu")
    for place in random.integers(0, len(whole), 200):
        data = bytearray(whole)
        data[place : place + 4] = random.bytes(4)
        path.write_bytes(data)
        try:
            Pt2Graph(path, "cpu")(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        except WeightsError as refusal:
            assert "\n" not in str(refusal)  # noqa: PT017


def test_every_command_refuses_a_hostile_export_without_running_it(tmp_path: Path) -> None:
    whole, line, marker = tmp_path / "whole", tmp_path / "line", tmp_path / "ran"
    export_model(Detector.from_pretrained(offline=True), "embedded", whole, ExportOptions("pt2"))
    shutil.copytree(whole, line)
    rewritten(whole / "model.pt2", line / "model.pt2", function(marker))
    (tmp_path / "x.png").write_bytes(b"")
    commands = [
        (predict.app, [str(tmp_path / "x.png"), "--out", str(tmp_path / "out"), "--model", str(line)]),
        (serve.app, ["--model", str(line), "--port", "0"]),
        (evaluate.app, ["--model", str(line), "--data", "mvtec", "--out", str(tmp_path / "eval")]),
        (benchmark.app, [str(line)]),
    ]
    with pytest.raises(WeightsError, match=r"torch\.os\.system"):
        load(line)
    for app, arguments in commands:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code != 0
        assert not marker.exists()
