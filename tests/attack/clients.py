"""Clients of the service by raw sockets, and the service as a process of its own."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


def picture(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (120, 90, 60)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


def exchange(address: tuple[str, int], request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to raw bytes."""
    with connected(address) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            if body and len(body) >= int(fields.get("content-length", 0)):
                break
    return int(answer.split()[1]), {name.lower(): value for name, value in fields.items()}, body


def posted(body: bytes, *headers: str, path: str = "/predict") -> bytes:
    """A raw request with an image as its body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def command(*options: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """`ad-dinov3 serve` in a process of its own."""
    arguments = [sys.executable, "-m", "ad_dinov3", "serve", "--port", "0", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "http://" in line)
        host, port = line.partition("http://")[2].split(",")[0].split(":")
        address = (host, int(port))
        while True:
            try:
                urllib.request.urlopen(f"http://{host}:{port}/health", timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process, address
    finally:
        process.kill()
        process.wait()
