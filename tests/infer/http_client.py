"""One image as a multipart form over HTTP, written out by hand: what curl -F image=@FILE sends."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


def post_image(url: str, path: Path) -> Answer:
    head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return ask(urllib.request.Request(url, head + path.read_bytes() + b"\r\n--edge--\r\n", kind))


def ask(request: urllib.request.Request | str) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())
