"""The workbench beside the service, below its limits and its keys."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench_service import TeachableToy
from http_client import Answer, ask
from live_service import service
from toy_detector import ToyDetector

from ad_dinov3.serve.app import ServeOptions
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel

KEY = "0123456789abcdef-key"


@contextmanager
def mounted(bench: Bench, *keys: str) -> Iterator[str]:
    with service({"toy": ToyDetector()}, ServeOptions(keys=keys, workbench=bench)) as address:
        yield address


def get(address: str, path: str, **headers: str) -> Answer:
    return ask(urllib.request.Request(f"{address}/{path}", headers=headers))


def review(address: str, **headers: str) -> Answer:
    body = json.dumps({"id": "review-0001", "image": "crack/0.png", "verdict": "ok"}).encode()
    request = urllib.request.Request(f"{address}/workbench/bench/review", body, {"Content-Type": "application/json"})
    for name, value in headers.items():
        request.add_header(name, value)
    return ask(request)


def test_service_and_workbench_answer_at_one_address(scored: Path) -> None:
    bench = Bench(scored, "parts", BenchModel("toy", TeachableToy))
    with mounted(bench) as address:
        assert get(address, "health").status == 200
        assert "workbench</title>" in get(address, "workbench").body.decode()  # led to /workbench/
        assert len(json.loads(get(address, "workbench/bench/images").body)["images"]) == 6
        assert json.loads(review(address).body)["verdicts"] == {"crack/0.png": "ok"}
        assert get(address, "workbench/bench/photo?image=no.png").status == 404
        assert "workbench" not in get(address, "openapi.json").body.decode()
    with pytest.raises(sqlite3.ProgrammingError):  # closed with the service
        bench.store.verdicts()


def test_keys_names_and_limits_are_those_of_the_service(scored: Path) -> None:
    with mounted(Bench(scored, "secret product"), KEY) as address:
        page = get(address, "workbench/")
        assert page.status == 200
        assert "secret product" not in page.body.decode()
        assert page.headers["X-Frame-Options"] == "DENY"
        assert get(address, "workbench/bench/images").status == 401
        assert get(address, "workbench/bench/images", Authorization=f"Bearer {KEY}").status == 200
        assert review(address).status == 401
        assert review(address, Authorization=f"Bearer {KEY}", Origin="http://elsewhere.example").status == 403
        assert get(address, "workbench/", Host="elsewhere.example").status == 400


def test_without_a_folder_there_is_none() -> None:
    with service({"toy": ToyDetector()}, ServeOptions()) as address:
        assert get(address, "workbench/").status == 404
