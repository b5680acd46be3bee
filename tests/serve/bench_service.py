"""A folder of results without a model, and the workbench on it: in this process, or in one that can be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.serve.limits import Limits
from ad_dinov3.serve.workbench.app import create_workbench
from ad_dinov3.serve.workbench.bench import Bench

THRESHOLD = 0.3


def draw_parts(folder: Path, good: int = 3, cracked: int = 3) -> Path:
    """Grey parts, those of ``crack`` with a white square."""
    for number in range(good):
        draw_part(folder / "good" / f"{number}.png", (96 + number, 80))
    for number in range(cracked):
        draw_part(folder / "crack" / f"{number}.png", (96 + number, 80), blemish=True)
    return folder


def score_parts(images: Path, out: Path, outputs: Outputs | None = None) -> Path:
    """What predict writes of a folder with the toy detector."""
    options = DriveOptions("part", DecisionRule(THRESHOLD), threads=1)
    run = FolderRun(out, "toy", "f" * 16, options, outputs or Outputs())
    score_into_folder(find_images([str(images)]), ToyDetector(), run)
    return out


@contextmanager
def workbench(bench: Bench, keys: tuple[str, ...] = (), limits: Limits | None = None) -> Iterator[str]:
    """The address of a workbench that runs inside the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_workbench(bench, limits or Limits(), keys)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def start_workbench(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, once it answers."""
    words = [sys.executable, "-m", "ad_dinov3", "workbench", str(folder), "--port", str(port), *options]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return process
        except OSError:
            assert process.poll() is None, "the workbench ended"
            assert time.monotonic() < deadline, "the workbench does not answer"
            time.sleep(0.1)
