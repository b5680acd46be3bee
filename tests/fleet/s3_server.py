"""A real S3 server on loopback, moto's, that answers 503 to every N-th request when it is told to."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "parts"
SECRET = "hunter2-secret"


class Flaky:
    """A WSGI application in front of another one; ``every`` 0 lets all requests through."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.every, self.requests, self.refused = 0, 0, 0
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            refuse = bool(self.every) and self.requests % self.every == 0
            self.refused += refuse
            self.paths.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if refuse:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        return self._inner(environ, start_response)


@dataclass
class Store:
    """An S3 server with images, and the front that can make it fail."""

    endpoint: str
    front: Flaky


@contextmanager
def s3_server() -> Iterator[tuple[str, Flaky]]:
    """(endpoint, the server's front) of an S3 server with an empty bucket."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    front = Flaky(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, front, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    try:
        yield endpoint, front
    finally:
        server.shutdown()
        thread.join()


def environment(endpoint: str) -> dict[str, str]:
    """What a client's environment says of the server and of itself."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def upload(folder: Path, endpoint: str) -> None:
    """Put a folder's files into the bucket under their relative names."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            client.put_object(Bucket=BUCKET, Key=file.relative_to(folder).as_posix(), Body=file.read_bytes())
