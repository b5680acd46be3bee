"""The service over a real socket, with the toy detector behind it."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import uvicorn
from http_client import Answer, ask, post_image
from numpy.typing import NDArray
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.cli import serve
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.decide import upsample
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.serve.app import ServeOptions, create_app

OPTIONS = ServeOptions(threshold=0.3, class_name="part", upload_mb=1)
ABOUT = {"model": "toy <1>", "fingerprint": "f" * 16}


class HeldDetector(ToyDetector):
    """Says when an image has come so far, and keeps it until told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.in_prepare, self.go_on = threading.Semaphore(0), threading.Event()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.in_prepare.release()
        assert self.go_on.wait(60)
        return super().prepare(image)


@contextmanager
def service(scorer: ToyDetector, options: ServeOptions) -> Iterator[str]:
    """The address of a service that runs inside the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(scorer, ABOUT, options), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with service(ToyDetector(nan_above=250), OPTIONS) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return draw_part(tmp_path / "part.png", blemish=True)


def expected(path: Path, threshold: float = OPTIONS.threshold, min_area: int = 1) -> Prediction:
    detector, image = ToyDetector(), decode_image(path)
    raw = detector.score(detector.prepare(image)[None], ["part"])
    anomaly_map = upsample(raw.maps[0], image.shape[:2])
    return Prediction(anomaly_map, float(raw.scores[0]), path.name, "part", threshold, min_area)


def detail(answer: Answer) -> str:
    return str(json.loads(answer.body)["detail"])


def test_predict_says_what_the_detector_says(address: str, part: Path) -> None:
    answer = json.loads(post_image(f"{address}/predict", part).body)
    findings = answer.pop("findings")
    assert answer == json.loads(json.dumps(expected(part).summary()))
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


def test_health_names_the_model(address: str) -> None:
    assert json.loads(ask(f"{address}/health").body) == {"status": "ok", "threshold": 0.3, **ABOUT}


def test_page_needs_nothing_from_elsewhere_and_escapes_names(address: str) -> None:
    page = ask(f"{address}/").body.decode()
    assert "toy &lt;1&gt;" in page
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
    with service(scorer, replace(OPTIONS, at_once=2)) as address, ThreadPoolExecutor(2) as pool:
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
        serve.serve(model="nowhere", port=taken.getsockname()[1])
