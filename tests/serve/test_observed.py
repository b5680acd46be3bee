"""Figures for Prometheus, read by its own parser, and the access log."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import ask, post_image, post_images
from live_service import running, service
from prometheus_client.parser import text_string_to_metric_families
from toy_detector import ToyDetector, draw_part

from ad_dinov3.infer.drift_watch import DriftWatch, WatchedScorer
from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models, OpenedModel


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def address(lines: list[str]) -> Iterator[str]:
    with service({"line": ToyDetector()}, ServeOptions(upload_mb=1, log_line=lines.append)) as place:
        yield place


def figures(address: str) -> dict[tuple[str, ...], float]:
    """Value by name and labels' values, in the order of the labels' names."""
    text = ask(f"{address}/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def settled(address: str, wanted: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """The figures that are wanted, as they are when they are as wanted: a request is counted after its answer."""
    until = time.monotonic() + 60
    while True:
        found = figures(address)
        if {key: found.get(key) for key in wanted} == wanted or time.monotonic() > until:
            return found
        time.sleep(0.02)


def test_requests_images_scores_and_refusals_are_counted(address: str, tmp_path: Path) -> None:
    bad, good = draw_part(tmp_path / "bad.png", blemish=True), draw_part(tmp_path / "good.png")
    broken = tmp_path / "secret name.png"
    broken.write_bytes(b"no image")
    post_images(f"{address}/predict/batch", [bad, good, broken])
    post_image(f"{address}/predict", bad)
    post_image(f"{address}/predict", broken)
    post_image(f"{address}/predict?model=lime", bad)
    ask(f"{address}/secret/path")
    wanted = {
        ("ad_dinov3_requests_total", "200", "/predict"): 1,
        ("ad_dinov3_requests_total", "422", "/predict"): 1,
        ("ad_dinov3_requests_total", "200", "/predict/batch"): 1,
        ("ad_dinov3_requests_total", "404", "none"): 1,
        ("ad_dinov3_refused_total", "image or wish"): 1,
        ("ad_dinov3_refused_total", "unknown"): 2,
        ("ad_dinov3_images_total", "anomalous", "line"): 2,
        ("ad_dinov3_images_total", "normal", "line"): 1,
        ("ad_dinov3_images_total", "failed", "line"): 1,
        ("ad_dinov3_anomaly_score_count", "line"): 3,
        ("ad_dinov3_anomaly_score_bucket", "0.3", "line"): 1,
        ("ad_dinov3_queue_seconds_count",): 3,
        ("ad_dinov3_in_hand",): 0,
    }
    found = settled(address, wanted)
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["ad_dinov3_batch_size_sum",] == 3
    assert [key[1:3] for key in found if key[0] == "ad_dinov3_info"] == [("f" * 16, "line")]
    assert "secret" not in str(found)


def test_routes_with_a_model_in_their_address_have_one_label_for_all(address: str) -> None:
    for name in ("line", "lime", "lemon"):
        ask(f"{address}/v2/models/{name}")
    found = settled(address, {("ad_dinov3_requests_total", "404", "/v2/models/{model}"): 2})
    routes = {key[2] for key in found if key[0] == "ad_dinov3_requests_total"}
    assert routes - {"/metrics"} == {"/v2/models/{model}"}


def test_each_request_is_a_line_with_the_id_that_its_answer_has(address: str, lines: list[str], tmp_path: Path) -> None:
    part = draw_part(tmp_path / "part.png")
    own = post_image(f"{address}/predict?threshold=0.5", part).headers["X-Request-ID"]
    kept = ask(urllib.request.Request(f"{address}/health", headers={"X-Request-ID": "camera-7.1"}))
    replaced = ask(urllib.request.Request(f"{address}/a%0Ab", headers={"X-Request-ID": 'x" y'}))
    until = time.monotonic() + 30
    while len(lines) < 3 and time.monotonic() < until:
        time.sleep(0.01)  # a line is written after its answer
    found = [json.loads(line) for line in lines]
    assert [(one["method"], one["path"], one["status"]) for one in found] == [
        ("POST", "/predict", 200),
        ("GET", "/health", 200),
        ("GET", "/a\nb", 404),
    ]
    assert [one["request_id"] for one in found] == [own, "camera-7.1", replaced.headers["X-Request-ID"]]
    assert kept.headers["X-Request-ID"] == "camera-7.1"
    assert len(own) == len(found[2]["request_id"]) == 32
    assert found[1]["bytes"] == len(kept.body)
    assert all("\n" not in line for line in lines)


def test_probes_have_short_names_too(address: str) -> None:
    assert json.loads(ask(f"{address}/healthz").body) == {"live": True}
    assert json.loads(ask(f"{address}/readyz").body) == {"ready": True}


def test_a_request_that_is_refused_early_is_counted_and_has_an_id(address: str) -> None:
    headers = {"Content-Length": str(2**20 + 1), "Content-Type": "image/png"}  # the answer comes before the body
    answer = ask(urllib.request.Request(f"{address}/predict", b"", headers))
    assert (answer.status, len(answer.headers["X-Request-ID"])) == (413, 32)
    key = ("ad_dinov3_refused_total", "size")
    assert settled(address, {key: 1})[key] == 1


def test_a_watched_model_tells_of_a_change_and_an_unwatched_one_says_nothing(tmp_path: Path) -> None:
    watch = DriftWatch({})
    openers = {
        "line": lambda: OpenedModel(WatchedScorer(ToyDetector(), watch), 0.3, "toy", "toy", "f" * 16, drift=watch),
        "other": lambda: OpenedModel(ToyDetector(), 0.3, "toy", "toy", "f" * 16),
    }
    with running(Models(openers), ServeOptions(upload_mb=1), Metrics()) as place:
        good, bad = draw_part(tmp_path / "good.png"), draw_part(tmp_path / "bad.png", blemish=True)
        post_images(f"{place}/predict/batch", [good] * 60)
        before = figures(place)
        post_images(f"{place}/predict/batch", [bad] * 20)
        line, other = json.loads(ask(f"{place}/health").body)["models"]
        after = figures(place)
    assert before["ad_dinov3_has_changed", "line"] == 0
    assert after["ad_dinov3_has_changed", "line"] == 1
    assert after["ad_dinov3_drift_odds", "line"] > 2 > before["ad_dinov3_drift_odds", "line"]
    assert ("ad_dinov3_has_changed", "other") not in after
    assert line["drift"] == {"images": 80, "odds": pytest.approx(line["drift"]["odds"]), "has_changed": True}
    assert other["drift"] is None
