"""The Open Inference Protocol as Triton's own client speaks it, and byte by byte where that client cannot go."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from http_client import Answer, ask, send
from live_service import THRESHOLD, service
from numpy.typing import NDArray
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.decode import decode_image
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.predictions import predict_images
from ad_dinov3.serve.app import ServeOptions

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
OUTPUTS = ("score", "is_anomalous", "anomaly_map", "regions")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with service({"line": ToyDetector()}, ServeOptions(upload_mb=1, at_once=4)) as running:
        yield running


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address.removeprefix("http://")) as connected:
        yield connected


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [draw_part(tmp_path / "bad.png", blemish=True), draw_part(tmp_path / "good.png")]


def expected(parts: list[Path]) -> list[Prediction]:
    return predict_images(ToyDetector(), parts, DecisionRule(THRESHOLD), "object")


def encoded(parts: list[Path]) -> triton.InferInput:
    values = np.array([part.read_bytes() for part in parts], np.object_)
    asked = triton.InferInput("image", [len(parts)], "BYTES")
    asked.set_data_from_numpy(values)
    return asked


def pixels(parts: list[Path], is_binary: bool) -> triton.InferInput:
    values = np.stack([decode_image(part) for part in parts])
    asked = triton.InferInput("image", list(values.shape), "UINT8")
    asked.set_data_from_numpy(values, binary_data=is_binary)
    return asked


def check(result: triton.InferResult, parts: list[Path]) -> None:
    wanted = expected(parts)
    np.testing.assert_allclose(result.as_numpy("score"), [one.score for one in wanted], rtol=1e-6)
    assert result.as_numpy("is_anomalous").tolist() == [True, False]
    np.testing.assert_array_equal(result.as_numpy("anomaly_map"), np.stack([one.anomaly_map for one in wanted]))
    found = [json.loads(text) for text in result.as_numpy("regions")]
    assert found == json.loads(json.dumps([[asdict(region) for region in one.regions] for one in wanted]))


def test_the_server_and_its_models_tell_what_they_are(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("line")
    assert client.is_model_ready("line", "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("line")
    assert [one["name"] for one in metadata["outputs"]] == list(OUTPUTS)
    assert [model["name"] for model in client.get_model_repository_index()] == ["line"]


def test_health_has_bodies(address: str) -> None:
    asked = ("health/live", "health/ready", "models/line/ready")
    answers = [json.loads(ask(f"{address}/v2/{name}").body) for name in asked]
    assert answers == [{"live": True}, {"ready": True}, {"name": "line", "ready": True}]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_encoded_images_are_scored(
    client: triton.InferenceServerClient, parts: list[Path], compression: str | None
) -> None:
    check(client.infer("line", [encoded(parts)], request_compression_algorithm=compression), parts)


@pytest.mark.parametrize("is_binary", [True, False])
def test_pixels_are_scored_and_outputs_come_as_asked(
    client: triton.InferenceServerClient, parts: list[Path], is_binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in OUTPUTS]
    result = client.infer("line", [pixels(parts, is_binary)], outputs=outputs, request_id="seven", model_version="1")
    check(result, parts)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("seven", "line", "1")
    assert all(("data" in output) != is_binary for output in response["outputs"])


def test_parameters_change_what_is_decided(client: triton.InferenceServerClient, parts: list[Path]) -> None:
    result = client.infer("line", [encoded(parts)], parameters={"threshold": 0.99})
    assert result.as_numpy("is_anomalous").tolist() == [False, False]


def test_images_of_several_sizes_have_scores_and_no_map_tensor(
    client: triton.InferenceServerClient, parts: list[Path], tmp_path: Path
) -> None:
    mixed = [*parts, draw_part(tmp_path / "small.png", (48, 40))]
    outputs = [triton.InferRequestedOutput("score"), triton.InferRequestedOutput("regions")]
    assert client.infer("line", [encoded(mixed)], outputs=outputs).as_numpy("score").shape == (3,)
    with pytest.raises(triton.InferenceServerException, match="differ in size"):
        client.infer("line", [encoded(mixed)])


def test_refusals_reach_the_client_in_words(client: triton.InferenceServerClient, parts: list[Path]) -> None:
    broken = parts[0].with_name("broken.png")
    broken.write_bytes(b"no image")
    for model, images, parameters, words in (
        ("lime", parts, {}, "there is no model 'lime'; there are line"),
        ("line", [parts[0], broken], {}, "image 1: is not supported"),
        ("line", parts, {"treshold": 0.5}, "there is no parameter treshold"),
        ("line", parts, {"threshold": 1.5}, "threshold: Input should be less than or equal to 1"),
        ("line", parts * 3, {}, "at most 4 images where maps"),
    ):
        with pytest.raises(triton.InferenceServerException, match=words):
            client.infer(model, [encoded(images)], parameters=parameters)
    with pytest.raises(triton.InferenceServerException, match="no version"):
        client.infer("line", [encoded(parts)], model_version="2")
    with pytest.raises(triton.InferenceServerException, match="there is no output map"):
        client.infer("line", [encoded(parts)], outputs=[triton.InferRequestedOutput("map")])
    with pytest.raises(triton.InferenceServerException, match="Not Found"):
        client.get_model_config("line")


def infer(address: str, tree: object) -> Answer:
    return send(f"{address}/v2/models/line/infer", json.dumps(tree).encode(), "application/json")


def tensor(shape: list[int], datatype: str, data: object) -> dict[str, object]:
    return {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}]}


def test_json_alone_carries_images_in_base64_and_pixels_as_nested_numbers(address: str, parts: list[Path]) -> None:
    text = base64.b64encode(parts[0].read_bytes()).decode()
    values: NDArray[np.uint8] = np.asarray(Image.open(parts[0]).convert("RGB"))[None]
    for request in (tensor([1], "BYTES", [text]), tensor(list(values.shape), "UINT8", values.tolist())):
        answer = json.loads(infer(address, request).body)
        assert answer["outputs"][0]["data"] == pytest.approx([expected(parts[:1])[0].score], rel=1e-6)
        assert [one["datatype"] for one in answer["outputs"]] == ["FP32", "BOOL", "FP32", "BYTES"]


def test_what_kserves_client_repeats_of_the_address_is_taken_and_decides_nothing(
    address: str, parts: list[Path]
) -> None:
    request = tensor([1], "BYTES", [base64.b64encode(parts[0].read_bytes()).decode()])
    answer = json.loads(infer(address, {**request, "id": None, "model_name": "other", "model_version": None}).body)
    assert answer["model_name"] == "line"
    assert "id" not in answer


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([], "request: Input should be"),
        ({"inputs": []}, "expected one input named image"),
        (tensor([1], "FP32", [1]), "expected BYTES"),
        (tensor([1], "BYTES", ["!"]), "expected base64"),
        (tensor([2], "BYTES", ["AAAA"]), "expected 2 images, got 1"),
        (tensor([0], "BYTES", []), "expected images, got the shape"),
        (tensor([1, 2, 2, 3], "UINT8", [0] * 11), "expected 12 values, got 11"),
        (tensor([1, 1, 1, 3], "UINT8", [0, 0, 256]), "from 0 to 255"),
        (tensor([1, 1, 1, 3], "UINT8", [[0], 0, "x"]), "whole numbers"),
        (tensor([1, 10**6, 10**6, 3], "UINT8", [0]), "expected images, got the shape"),
        ({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES"}]}, "expected data, or binary_data_size"),
    ],
)
def test_requests_that_are_none_are_refused_with_the_reason(address: str, tree: object, words: str) -> None:
    answer = infer(address, tree)
    assert (answer.status, words in json.loads(answer.body)["error"]) == (400, True), answer.body


def test_compressed_bodies_are_bounded_when_unpacked(address: str) -> None:
    url = f"{address}/v2/models/line/infer"
    for body, encoding, words in (
        (gzip.compress(b"0" * 2**21), "gzip", "more than 1,048,576 bytes"),
        (gzip.compress(b"0" * 100)[:-9], "gzip", "cut off"),
        (b"no gzip", "gzip", "not gzip"),
        (b"{}", "br", "expected Content-Encoding gzip"),
    ):
        answer = ask(urllib.request.Request(url, body, {"Content-Encoding": encoding}))
        assert (answer.status, words in json.loads(answer.body)["error"]) == (400, True), answer.body
