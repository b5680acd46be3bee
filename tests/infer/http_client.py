"""One image as a multipart form over HTTP, written out by hand: what curl -F image=@FILE sends."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


def post_image(url: str, path: Path) -> Answer:
    return post_images(url, [path])


def post_images(url: str, paths: Sequence[Path]) -> Answer:
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'.encode()
        + path.read_bytes()
        + b"\r\n"
        for path in paths
    ]
    return send(url, b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge")


def send(url: str, body: bytes, kind: str) -> Answer:
    return ask(urllib.request.Request(url, body, {"Content-Type": kind}))


def ask(request: urllib.request.Request | str) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())
