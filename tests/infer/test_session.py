"""Exported folders, made here from a hand-written graph, so that nothing of the exporter is taken on trust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from http_client import post_image
from toy_detector import draw_part

from ad_dinov3.errors import ConfigError, ShapeError, WeightsError
from ad_dinov3.infer.exported import SessionConfig, SessionInput, is_exported, write_session_config
from ad_dinov3.infer.session import Session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

SIDE, CELL = 32, 8
CONFIG = SessionConfig(
    runtime="onnx",
    precision="fp32",
    input=SessionInput(SIDE, SIDE, "bilinear"),
    class_names=(),
    threshold=0.4,
    smoothing_sigma_px=0.0,
    fingerprint="f" * 16,
    model="toy",
    model_fingerprint="e" * 16,
    method="ad_dinov3",
    encoder="toy",
    licence="none",
    trained_on=("made",),
    training_seed=3,
)


def write_graph(folder: Path, batch: int | str, several: bool = False) -> Path:
    """Mean brightness of cells, in [0, 1]; with several classes divided by 1, 2 or 4 for class 0, 1 or 2."""
    helper, kinds = onnx.helper, onnx.TensorProto
    divisors = helper.make_tensor("divisors", kinds.FLOAT, [3], [255.0, 510.0, 1020.0])
    first = helper.make_tensor("first", kinds.INT64, [1], [0])
    axes = helper.make_tensor("axes", kinds.INT64, [1], [1])
    rest = helper.make_tensor("rest", kinds.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=kinds.FLOAT),
        helper.make_node("AveragePool", ["float"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["cells", "axes"], ["grey"], keepdims=0),
        helper.make_node("Gather", ["divisors", "class_index" if several else "first"], ["divisor"]),
        helper.make_node("Div", ["grey", "divisor"], ["patch_map"]),
        helper.make_node("ReduceMax", ["patch_map", "rest"], ["image_score"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("images", kinds.UINT8, [batch, 3, SIDE, SIDE])]
    if several:
        inputs.append(helper.make_tensor_value_info("class_index", kinds.INT64, [1]))
    cells = SIDE // CELL
    outputs = [
        helper.make_tensor_value_info("patch_map", kinds.FLOAT, [batch, cells, cells]),
        helper.make_tensor_value_info("image_score", kinds.FLOAT, [batch]),
    ]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, [divisors, first, axes, rest])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return folder


def exported(folder: Path, runtime: str, config: SessionConfig = CONFIG) -> Path:
    several = len(config.class_names) > 1
    write_graph(folder, "batch" if runtime == "onnx" else 1, several)
    if runtime == "openvino":
        openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
    write_session_config(folder, replace(config, runtime=runtime), frozenset({"b" * 64, "a" * 64}))
    return folder


def test_a_graph_that_replaces_another_is_compiled_anew(tmp_path: Path, batch: np.ndarray) -> None:
    """Compiled graphs are kept in the user's cache; a new file in an old one's place must not be taken for it."""
    first = Session(exported(tmp_path / "a", "openvino"), threads=1).score(batch[:1], ["any"])
    assert any((Path(os.environ["XDG_CACHE_HOME"]) / "ad-dinov3" / "openvino").iterdir())
    again = Session(tmp_path / "a", threads=1).score(batch[:1], ["any"])
    np.testing.assert_array_equal(again.maps, first.maps)
    weights = tmp_path / "a" / "model.bin"
    bright, dim = (np.float32(1 / divisor).tobytes() for divisor in (255, 510))
    assert bright in weights.read_bytes()
    weights.write_bytes(weights.read_bytes().replace(bright, dim))
    found = Session(tmp_path / "a", threads=1).score(batch[:1], ["any"])
    np.testing.assert_allclose(found.maps, first.maps / 2, atol=1e-5)


def cell_means(batch: np.ndarray) -> np.ndarray:
    cells = SIDE // CELL
    return batch.astype(np.float64).reshape(len(batch), 3, cells, CELL, cells, CELL).mean((1, 3, 5)) / 255


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, SIDE, SIDE)).astype(np.uint8)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_each_image_of_a_batch_gets_its_own_map(tmp_path: Path, batch: np.ndarray, runtime: str, mode: str) -> None:
    session = Session(exported(tmp_path, runtime), mode=mode, threads=1)  # type: ignore[arg-type]
    raw = session.score(batch, ["any"] * 5)
    np.testing.assert_allclose(raw.maps, cell_means(batch), atol=1e-5)
    np.testing.assert_allclose(raw.scores, cell_means(batch).max((1, 2)), atol=1e-5)
    again = session.score(batch[:2], ["any"] * 2)
    np.testing.assert_array_equal(again.maps, raw.maps[:2])  # and what was given out is not overwritten


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_threads_that_ask_at_once_get_their_own_maps(tmp_path: Path, batch: np.ndarray, runtime: str) -> None:
    session = Session(exported(tmp_path, runtime))
    rows = [index % len(batch) for index in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: session.score(batch[row : row + 1], ["any"]).maps[0], rows))
    np.testing.assert_allclose(found, cell_means(batch)[rows], atol=1e-5)
    assert session.calls_at_once == (3 if runtime == "openvino" and (os.cpu_count() or 1) > 1 else 1)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_images_of_several_classes_meet_their_own_prompts(tmp_path: Path, batch: np.ndarray, runtime: str) -> None:
    config = replace(CONFIG, class_names=("whole", "half", "quarter"))
    session = Session(exported(tmp_path, runtime, config), threads=1)
    raw = session.score(batch, ["half", "whole", "quarter", "half", "whole"])
    divisors = np.array([2, 1, 4, 2, 1])[:, None, None]
    np.testing.assert_allclose(raw.maps, cell_means(batch) / divisors, atol=1e-5)
    with pytest.raises(ConfigError, match="no prompts for nut; baked are whole, half, quarter"):
        session.score(batch[:1], ["nut"])


def test_smoothing_stays_outside_of_the_graph(tmp_path: Path, batch: np.ndarray) -> None:
    folder = exported(tmp_path, "onnx", replace(CONFIG, smoothing_sigma_px=8.0))
    maps = Session(folder, threads=1).score(batch, ["any"] * 5).maps
    assert maps.std() < 0.6 * cell_means(batch).std()
    np.testing.assert_allclose(maps.mean(), cell_means(batch).mean(), atol=0.02)


def test_prediction_has_the_images_size_and_the_models_threshold(tmp_path: Path) -> None:
    session = Session(exported(tmp_path / "model", "onnx"), threads=1)
    prediction = session.predict(draw_part(tmp_path / "part.png", (96, 80), blemish=True))
    assert prediction.size == (80, 96)
    assert prediction.threshold == 0.4
    assert prediction.is_anomalous
    assert prediction.regions[0].centroid == pytest.approx((71.5, 59.5), abs=6)


@pytest.mark.parametrize("shape", [(1, 3, 32, 40), (1, 4, 32, 32), (3, 32, 32)])
def test_inputs_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected inputs"):
        Session(exported(tmp_path, "onnx"), threads=1).score(np.zeros(shape, np.uint8), ["any"])


def test_a_device_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'coreml' here; there is.*cpu"):
        Session(exported(tmp_path / "a", "onnx"), device="coreml")
    with pytest.raises(ConfigError, match=r"'cuda' here; there is.*cpu"):
        Session(exported(tmp_path / "b", "openvino"), device="cuda")


def test_folders_that_are_no_export_are_told_apart(tmp_path: Path) -> None:
    folder = exported(tmp_path / "real", "onnx")
    assert is_exported(folder)
    assert not is_exported(tmp_path)
    assert not is_exported("embedded")
    with pytest.raises(WeightsError, match="not an exported model"):
        Session(tmp_path)
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**tree, "format_version": 9}))
    with pytest.raises(WeightsError, match="version 1, found"):
        Session(folder)
    (folder / "config.json").write_text(json.dumps(tree))
    (folder / "model.onnx").unlink()
    with pytest.raises(WeightsError, match="missing"):
        Session(folder)


def test_training_data_travel_with_the_export(tmp_path: Path) -> None:
    session = Session(exported(tmp_path, "onnx"), threads=1)
    assert session.seen_images == {"a" * 64, "b" * 64}
    assert (session.config.trained_on, session.config.training_seed) == (("made",), 3)


_BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "huggingface_hub", "safetensors"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from ad_dinov3.cli.app import main
sys.argv[0] = "ad-dinov3"
main()
"""


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_predict_runs_an_exported_folder_where_torch_cannot_be_imported(tmp_path: Path, runtime: str) -> None:
    model = exported(tmp_path / "model", runtime)
    draw_part(tmp_path / "parts" / "bad.png", blemish=True)
    draw_part(tmp_path / "parts" / "good.png")
    arguments = ["predict", str(tmp_path / "parts"), "-o", str(tmp_path / "out"), "--model", str(model), "--tile", "48"]
    run = subprocess.run([sys.executable, "-c", _BLOCKED, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    decisions = {row["image"]: row["decision"] for row in rows if "decision" in row}
    assert decisions == {"bad.png": "anomalous", "good.png": "normal"}


def test_serve_answers_from_an_exported_folder_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    model, part = exported(tmp_path / "model", "openvino"), draw_part(tmp_path / "bad.png", blemish=True)
    command = [sys.executable, "-c", _BLOCKED, "serve", "--model", str(model), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as service:
        assert service.stdout is not None
        words = service.stdout.readline()
        address = words.split(" at ")[1].partition(",")[0]
        expected = Session(model, threads=1).predict(part)
        answer = json.loads(post_image(f"{address}/predict", part).body)
        service.terminate()
    assert (answer["score"], answer["decision"]) == (round(expected.score, 6), "anomalous")
    assert answer["regions"][0]["box"] == list(expected.regions[0].box)
