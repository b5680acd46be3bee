"""Rows to a webhook and to a real broker, both of which go away and come back."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.publish import Publisher, PublishSink, sender, shown


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def webhook(port: int, taken: list[bytes], refuse: int = 0) -> Iterator[str]:
    """An HTTP server that takes messages, after it has refused some."""
    refusals = iter(range(refuse))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            refused = next(refusals, None) is not None
            if not refused:
                taken.append(body)
            self.send_response(503 if refused else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/rows"
        server.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def fast(address: str, size: int = 100) -> Publisher:
    return Publisher(sender(address), size, per_second=1000, first_pause_s=0.02)


def test_messages_wait_for_a_webhook_that_is_away_and_arrive_in_order() -> None:
    port, taken = free_port(), list[bytes]()
    publisher = fast(f"http://127.0.0.1:{port}/rows")
    for number in range(5):
        publisher.put(b"%d" % number)
    wait_until(lambda: publisher.error != "")
    with webhook(port, taken, refuse=2):
        assert publisher.close(60) == 0
    assert taken == [b"0", b"1", b"2", b"3", b"4"]


def test_a_full_queue_drops_the_oldest_counts_them_and_never_waits() -> None:
    publisher = fast(f"http://127.0.0.1:{free_port()}/rows", size=3)
    started = time.monotonic()
    for number in range(10):
        publisher.put(b"%d" % number)
    assert time.monotonic() - started < 5
    assert (publisher.waiting, publisher.dropped) == (3, 7)
    assert publisher.close(0.1) == 3


def test_no_more_messages_a_second_are_sent_than_agreed() -> None:
    times: list[float] = []
    publisher = Publisher(lambda message: times.append(time.monotonic()), per_second=20)
    for _ in range(4):
        publisher.put(b"x")
    assert publisher.close(60) == 0
    assert all(after - before >= 0.049 for before, after in pairwise(times))


def test_a_run_tells_of_every_row_as_it_stands_in_the_results(tmp_path: Path) -> None:
    images = tmp_path / "images"
    draw_part(images / "bad.png", blemish=True)
    draw_part(images / "good.png")
    (images / "broken.png").write_bytes(b"no image")
    taken: list[bytes] = []
    with webhook(0, taken) as address:
        publisher = fast(address)
        run = FolderRun(tmp_path / "out", "toy", "toy", DriveOptions())
        sink = PublishSink(publisher, run.key, run.outputs)
        run = FolderRun(tmp_path / "out", "toy", "toy", DriveOptions(), also=(sink,))
        score_into_folder(find_images([str(images)]), ToyDetector(), run)
        assert publisher.close(60) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(map(json.loads, taken), key=lambda row: str(row["image"])) == rows
    assert len(rows) == 3


@contextmanager
def broker(port: int, folder: Path) -> Iterator[None]:
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen(["mosquitto", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            yield
        finally:
            run.kill()


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
def test_messages_reach_a_broker_that_is_killed_and_started_again(tmp_path: Path) -> None:
    mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    port, taken = free_port(), set[bytes]()

    def subscribe(client: mqtt.Client, *_: object) -> None:
        client.subscribe("line/rows", qos=1)

    subscriber = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    subscriber.on_connect = subscribe
    subscriber.on_message = lambda client, data, message: taken.add(message.payload)
    subscriber.reconnect_delay_set(1, 1)
    subscriber.connect_async("127.0.0.1", port)
    subscriber.loop_start()
    publisher = fast(f"mqtt://127.0.0.1:{port}/line/rows")
    with broker(port, tmp_path):
        wait_until(lambda: subscriber.is_connected())
        publisher.put(b"0")
        wait_until(lambda: taken == {b"0"})
    for number in range(1, 30):
        publisher.put(b"%d" % number)
    wait_until(lambda: publisher.error != "")
    with broker(port, tmp_path):
        assert publisher.close(60) == 0
        subscriber.loop_stop()
    assert publisher.dropped == 0


def test_addresses_of_other_kinds_are_refused_without_showing_a_password() -> None:
    for address in ("ftp://me:secret@host/x", "mqtt://me:secret@host", "host"):
        with pytest.raises(ConfigError, match="expected http") as refused:
            sender(address)
        assert "secret" not in str(refused.value)
    assert shown("https://me:secret@host:1/x?token=y") == "https://host:1/x"


def test_a_broker_that_leaves_between_the_question_and_the_message_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    monkeypatch.setattr(client.Client, "is_connected", lambda self: True)  # what it was a moment ago
    publisher = fast(f"mqtt://127.0.0.1:{free_port()}/line/rows")
    publisher.put(b"0")
    wait_until(lambda: "did not take a message" in publisher.error)
    assert publisher.close(timeout_s=0.1) == 1
