"""A stream over HTTP that goes away and comes back, and what becomes of its frames."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from ad_dinov3.data.cameras import Camera, camera_frames, is_camera
from ad_dinov3.data.streams import ImageFile

pytest.importorskip("av", reason="PyAV is not installed")
FRAME = 20


@contextmanager
def mjpeg(port: int, levels: Iterator[int]) -> Iterator[None]:
    """A camera that shows grey levels, 20 a second."""
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=edge")
            self.end_headers()
            for level in levels:
                picture = io.BytesIO()
                Image.new("RGB", (64, 48), (level, level, level)).save(picture, "JPEG")
                content = picture.getvalue()
                head = f"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                try:
                    self.wfile.write(head + content + b"\r\n")
                except OSError:
                    return
                if stopped.wait(1 / FRAME):
                    return

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            stopped.set()
            server.shutdown()


def wait_for(get: Callable[[], list[ImageFile]]) -> ImageFile:
    until = time.monotonic() + 90
    while True:
        if found := get():
            return found[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_newest_frame_wins_and_a_camera_that_was_away_is_found_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    problems: list[str] = []
    camera = Camera(f"http://me:secret@127.0.0.1:{port}/live", problems.append, first_pause_s=0.1)
    assert camera.settled() == []
    with mjpeg(port, iter(range(50, 250))):
        first = wait_for(camera.settled)
        assert first.load_within(10**9).pixels.shape == (48, 64, 3)
        assert abs(datetime.fromisoformat(str(first.taken_at)) - datetime.now(UTC)) < timedelta(seconds=90)
        skipped = camera.skipped
        while camera.skipped < skipped + 10:  # nobody looks meanwhile
            time.sleep(0.02)
        second = wait_for(camera.settled)
        assert second.load_within(10**9).pixels.mean() > first.load_within(10**9).pixels.mean() + 5
        assert first.name < second.name
    camera.settled()
    with mjpeg(port, iter([7] * 500)):
        until = time.monotonic() + 90
        while wait_for(camera.settled).load_within(10**9).pixels.mean() > 20:
            assert time.monotonic() < until
    camera.close()
    assert all(problems)
    assert problems
    assert "secret" not in str(problems)


class _Locked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_camera_that_refuses_the_password_is_asked_again_and_nobody_reads_the_password() -> None:
    problems: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.server_port}/live"
        until = time.monotonic() + 60
        frames = camera_frames(address, problems.append, lambda: len(problems) > 1 or time.monotonic() > until)
        assert list(frames) == []
        server.shutdown()
    assert len(problems) > 1
    assert all("authorization failed" in words and "secret" not in words for words in problems)


def test_cameras_are_told_from_folders() -> None:
    for source in ("0", "/dev/video2", "rtsp://host/1", "https://host/mjpeg"):
        assert is_camera(source)
    for source in ("folder", "/dev/null", "ftp://host/x", "./0x", "-1"):
        assert not is_camera(source)
