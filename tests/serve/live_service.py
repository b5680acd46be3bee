"""A service on a free port of this machine, with toy detectors behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import uvicorn
from toy_detector import ToyDetector

from ad_dinov3.serve.app import ServeOptions, create_app
from ad_dinov3.serve.metrics import Metrics
from ad_dinov3.serve.models import Models, OpenedModel

THRESHOLD = 0.3


def opened(scorer: ToyDetector) -> OpenedModel:
    return OpenedModel(scorer, THRESHOLD, "toy <1>", "toy", "f" * 16)


@contextmanager
def service(scorers: Mapping[str, ToyDetector], options: ServeOptions) -> Iterator[str]:
    """The address of a service that runs inside the block."""
    metrics = Metrics()
    openers = {name: partial(opened, scorer) for name, scorer in scorers.items()}
    with running(Models(openers, on_batch=metrics.batch), options, metrics) as address:
        yield address


@contextmanager
def running(models: Models, options: ServeOptions, metrics: Metrics) -> Iterator[str]:
    """The same, of models that the test holds."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(models, options, metrics), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
