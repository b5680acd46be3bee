"""The service over a real socket, with the toy detector behind it."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from http_client import Answer, ask, post_image, post_images, send
from live_service import THRESHOLD, service
from numpy.typing import NDArray
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.cli import serve
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.serve.app import ServeOptions

OPTIONS = ServeOptions(class_name="part", upload_mb=1)


class Other(ToyDetector):
    """Another model: what it finds is half as strange."""

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        raw = super().score(batch, class_names)
        return RawScores(raw.maps / 2, raw.scores / 2)


class HeldDetector(ToyDetector):
    """Says when an image has come so far, and keeps it until told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.in_prepare, self.go_on = threading.Semaphore(0), threading.Event()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.in_prepare.release()
        assert self.go_on.wait(60)
        return super().prepare(image)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with service({"line": ToyDetector(nan_above=250), "other": Other()}, OPTIONS) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return draw_part(tmp_path / "part.png", blemish=True)


def expected(path: Path, threshold: float = THRESHOLD, min_area: int = 1) -> Prediction:
    detector, image = ToyDetector(), decode_image(path)
    raw = detector.score(detector.prepare(image)[None], ["part"])
    anomaly_map = upsample(raw.maps[0], image.shape[:2])
    return Prediction(anomaly_map, float(raw.scores[0]), path.name, "part", threshold, min_area)


def detail(answer: Answer) -> str:
    return str(json.loads(answer.body)["detail"])


def test_predict_says_what_the_detector_says(address: str, part: Path) -> None:
    answer = json.loads(post_image(f"{address}/predict", part).body)
    findings, model, overlay, reduction = map(answer.pop, ("findings", "model", "overlay", "reduction"))
    assert (model, overlay, reduction) == ("line", None, 1)
    assert answer == json.loads(json.dumps(expected(part).to_dict()))
    assert re.fullmatch(r"clear patch-like region, [\d,]+ px², lower right, peak 0\.\d\d", findings[0])


def test_a_request_can_set_threshold_least_area_and_class(address: str, part: Path) -> None:
    wishes = "threshold=0.9&min_area=5&class_name=nut"
    answer = json.loads(post_image(f"{address}/predict?{wishes}", part).body)
    assert (answer["decision"], answer["regions"], answer["class_name"]) == ("normal", [], "nut")


def test_pictures_are_those_of_the_prediction(address: str, part: Path) -> None:
    wanted = expected(part, threshold=0.5)
    found = {name: post_image(f"{address}/{name}?threshold=0.5", part) for name in ("map", "mask", "overlay")}
    kinds = {name: answer.headers["Content-Type"] for name, answer in found.items()}
    assert kinds == {"map": "image/tiff", "mask": "image/png", "overlay": "image/jpeg"}
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(found["map"].body)), wanted.anomaly_map)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found["mask"].body))) > 0, wanted.mask())
    drawn = Image.open(io.BytesIO(found["overlay"].body))
    assert drawn.size == wanted.overlay(decode_image(part)).size


def test_health_names_the_models(address: str) -> None:
    answer = json.loads(ask(f"{address}/health").body)
    assert [model["name"] for model in answer["models"]] == ["line", "other"]
    assert answer["models"][0] | {"name": "line"} == {
        "name": "line",
        "source": "toy <1>",
        "method": "toy",
        "fingerprint": "f" * 16,
        "threshold": 0.3,
        "normal_classes": [],
        "promises": {},
        "drift": None,
    }


def test_page_needs_nothing_from_elsewhere_and_escapes_names(address: str) -> None:
    page = ask(f"{address}/").body.decode()
    assert "<dd>toy" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_bad_images_and_wishes_are_refused_with_the_reason(address: str, part: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    for answer, reason in (
        (post_image(f"{address}/predict", text), "notes.jpg: is not supported"),
        (post_image(f"{address}/predict?treshold=0.5", part), "treshold"),
        (post_image(f"{address}/mask?threshold=1.5", part), "less than or equal to 1"),
        (post_image(f"{address}/mask?overlay=true", part), "overlay"),
    ):
        assert answer.status == 422
        assert reason in detail(answer)


@pytest.mark.parametrize(
    ("header", "status", "reason"),
    [
        (("Content-Length", str(2**20 + 1)), 413, "1,048,577 bytes are more than the limit of 1 MiB"),
        (("Transfer-Encoding", "chunked"), 411, "Content-Length"),
    ],
)
def test_requests_too_large_or_of_unknown_size_are_refused_unread(
    address: str, header: tuple[str, str], status: int, reason: str
) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader(*header)
    connection.endheaders()  # and nothing more: the answer comes all the same
    answer = connection.getresponse()
    assert (answer.status, reason in json.loads(answer.read())["detail"]) == (status, True)
    connection.close()


def test_a_model_that_answers_nan_is_the_services_error(address: str, tmp_path: Path) -> None:
    white = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(white)
    answer = post_image(f"{address}/predict", white)
    assert (answer.status, "NaN" in detail(answer)) == (500, True)


def test_more_images_than_may_be_in_hand_are_told_to_come_again(part: Path) -> None:
    scorer = HeldDetector()
    with service({"line": scorer}, replace(OPTIONS, at_once=2)) as address, ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post_image, f"{address}/predict", part) for _ in range(2)]
        assert scorer.in_prepare.acquire(timeout=60)
        assert scorer.in_prepare.acquire(timeout=60)
        refused = post_image(f"{address}/predict", part)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert ask(f"{address}/health").status == 200
        scorer.go_on.set()
        assert [answer.result().status for answer in held] == [200, 200]
        assert post_image(f"{address}/predict", part).status == 200


def test_a_port_in_use_is_refused_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="--port"):
        serve.serve(model=["nowhere"], port=taken.getsockname()[1])


def test_a_request_names_the_model_that_it_asks(address: str, part: Path) -> None:
    first, other = (json.loads(post_image(f"{address}/predict?model={name}", part).body) for name in ("line", "other"))
    assert (first["model"], other["model"]) == ("line", "other")
    assert other["score"] == pytest.approx(first["score"] / 2, abs=1e-6)
    unknown = post_image(f"{address}/predict?model=line2", part)
    assert (unknown.status, detail(unknown)) == (404, "there is no model 'line2'; there are line, other")


def test_an_image_can_be_the_body_itself(address: str, part: Path) -> None:
    for kind in ("image/png", "image/jpeg", "application/octet-stream"):  # the bytes decide
        answer = send(f"{address}/predict", part.read_bytes(), kind)
        found = json.loads(answer.body)
        assert (answer.status, found["score"]) == (200, round(expected(part).score, 6))
    refused = send(f"{address}/predict", part.read_bytes(), "text/plain")
    assert (refused.status, detail(refused)) == (415, "expected multipart/form-data or image/*, got text/plain")


def test_two_images_where_one_is_expected_are_refused_and_shown_the_way(address: str, part: Path) -> None:
    for name in ("predict", "overlay", "map", "mask"):
        answer = post_images(f"{address}/{name}", [part, part])
        assert (answer.status, detail(answer)) == (422, "expected one image, got 2; send several to /predict/batch")


def test_a_batch_answers_every_image_in_order_and_a_bad_one_ends_none(address: str, part: Path, tmp_path: Path) -> None:
    good = draw_part(tmp_path / "good.png")
    broken, white = tmp_path / "broken.png", tmp_path / "white.png"
    broken.write_bytes(part.read_bytes()[:60])
    Image.new("RGB", (64, 64), "white").save(white)
    paths = [part, broken, good, white] * 6  # more than one batch of the model
    answer = json.loads(post_images(f"{address}/predict/batch", paths).body)
    assert [one["image"] for one in answer["results"]] == [path.name for path in paths]
    assert ["error" if "error" in one else one["decision"] for one in answer["results"]] == [
        "anomalous",
        "error",
        "normal",
        "error",
    ] * 6
    assert (answer["anomalous"], answer["normal"], answer["failed"]) == (6, 6, 12)
    assert answer["results"][0] == json.loads(post_image(f"{address}/predict", part).body)
    assert "NaN" in answer["results"][3]["error"]


def test_form_fields_that_mean_nothing_are_refused(address: str, part: Path) -> None:
    body = part.read_bytes()
    form = b'--e\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n' + body + b"\r\n--e--\r\n"
    answer = send(f"{address}/predict", form.replace(b"%s", b"file"), "multipart/form-data; boundary=e")
    assert (answer.status, "file" in detail(answer)) == (422, True)


def test_docs_and_their_scripts_come_from_the_service_alone(address: str) -> None:
    page = ask(f"{address}/docs").body.decode()
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(links) >= 2
    assert all(link.startswith("/") for link in links)
    assert [ask(address + link).status for link in links] == [200] * len(links)


def test_openapi_declares_the_fields_that_answers_have(address: str, part: Path) -> None:
    tree = json.loads(ask(f"{address}/openapi.json").body)
    answer = json.loads(post_image(f"{address}/predict", part).body)
    declared = tree["components"]["schemas"]["PredictionAnswer"]["properties"]
    assert set(answer) == set(declared)
    assert set(answer["regions"][0]) == set(tree["components"]["schemas"]["Region"]["properties"])
    assert {"404", "422", "503"} <= set(tree["paths"]["/predict"]["post"]["responses"])
