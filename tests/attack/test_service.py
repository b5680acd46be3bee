"""What clients can do to the service: each is refused in words, costs no place, and honest requests are answered."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator

import images
import pytest
from clients import command, connected, exchange, picture, posted
from live_service import service
from toy_detector import ToyDetector

from ad_dinov3.serve.app import ServeOptions

OPTIONS = ServeOptions(at_once=2, upload_mb=1, memory_mb=64, hosts=("line-7",), body_s=1.0)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with service({"toy": ToyDetector()}, OPTIONS) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def test_an_honest_image_is_answered_with_the_headers_that_browsers_heed(address: tuple[str, int]) -> None:
    status, headers, body = exchange(address, posted(picture(), f"Content-Length: {len(picture())}"))
    assert status == 200
    assert json.loads(body)["decision"] == "normal"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"


def test_a_chunked_body_is_refused_whatever_length_it_claims(address: tuple[str, int]) -> None:
    """With a length as well it is no HTTP, and the parser hangs up: a client that is still sending loses the answer."""
    large, small = (b"%x\r\n%b\r\n" % (size, bytes(size)) for size in (1 << 20, 9))
    for chunks, headers in ((large, ()), (small, ("Content-Length: 5",))):
        status, _, body = exchange(address, posted(chunks, *headers, "Transfer-Encoding: chunked"))
        assert status in (400, 411)
        assert body


def test_more_than_the_limit_is_refused_before_it_is_read(address: tuple[str, int]) -> None:
    status, _, body = exchange(address, posted(b"", f"Content-Length: {2 << 20}"))
    assert status == 413
    assert "limit of 1 MiB" in json.loads(body)["detail"]


def test_a_client_that_sends_all_before_it_reads_learns_why_it_is_refused(address: tuple[str, int]) -> None:
    status, _, body = exchange(address, posted(bytes(40 << 20), f"Content-Length: {40 << 20}"))
    assert status == 413
    assert "limit of 1 MiB" in json.loads(body)["detail"]


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.nip.io", ""])
def test_a_foreign_name_is_refused(address: tuple[str, int], host: str) -> None:
    request = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    status, headers, _ = exchange(address, request)
    assert status == 400
    assert "x-frame-options" in headers


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:1", "[::1]:80", "10.1.2.3", "line-7", "LINE-7:8000"])
def test_own_names_and_addresses_are_answered(address: tuple[str, int], host: str) -> None:
    assert exchange(address, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0] == 200


def test_slow_uploads_take_no_place_and_end_at_their_deadline(address: tuple[str, int]) -> None:
    whole = picture()
    with connected(address) as first, connected(address) as second, connected(address) as third:
        for connection in (first, second, third):  # more than there are places
            connection.sendall(posted(whole[:1], f"Content-Length: {len(whole)}"))
        assert exchange(address, posted(whole, f"Content-Length: {len(whole)}"))[0] == 200
        assert b" 408 " in first.recv(65536)


@pytest.mark.parametrize("name", ["rgb.png", "rgba16.png", "jpeg0.jpg", "scans.jpg"])
def test_a_bomb_is_refused_and_costs_nothing(address: tuple[str, int], name: str) -> None:
    bomb = images.bombs()[name]()
    status, _, body = exchange(address, posted(bomb, f"Content-Length: {len(bomb)}"))
    assert status in (413, 422)
    assert json.loads(body)["detail"]


def test_images_in_hand_share_one_memory(address: tuple[str, int]) -> None:
    large = picture(1600)  # 56 MB in hand: one fits into 64 MiB, two do not
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(exchange(address, posted(large, f"Content-Length: {len(large)}"))[0])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 in statuses
    assert set(statuses) <= {200, 503}


def test_half_sent_headers_are_hung_up_on_and_a_stalled_upload_does_not_hold_up_a_stop() -> None:
    with command() as (process, address), connected(address) as half, connected(address) as stalled:
        half.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        stalled.sendall(posted(b"x", "Content-Length: 1000"))
        half.settimeout(20)
        assert half.recv(100) == b""
        process.send_signal(signal.SIGTERM)
        assert process.wait(45) in (0, -signal.SIGTERM)
