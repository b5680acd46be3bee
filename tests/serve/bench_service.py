"""A folder of results without a model, and the workbench on it: in this process, or in one that can be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from numpy.typing import NDArray
from toy_detector import GRID, SIDE, ToyDetector, draw_part

from ad_dinov3.config import PRESETS
from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.compared import (
    Answer,
    remembered,
    save_references,
    scorer_of,
    threshold_of,
    with_class,
)
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.exported import SessionInput
from ad_dinov3.infer.good_images import distinct
from ad_dinov3.infer.opening import ModelSpec, abilities_of
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.model import new_model
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.references.calibration import References
from ad_dinov3.references.tokens import comparison_tokens
from ad_dinov3.serve.limits import Limits
from ad_dinov3.serve.workbench.app import create_workbench
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel

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


class TeachableToy(ToyDetector):
    """The toy, with the memory and the calibration of real models over the colours of its cells."""

    method = "toy"
    own_threshold = THRESHOLD
    input = SessionInput(SIDE, SIDE, "bilinear")

    def __init__(self) -> None:
        super().__init__()
        self.references = References()
        self.go_on = threading.Event()  # scoring waits for it
        self.go_on.set()

    @property
    def threshold(self) -> float:
        return threshold_of(self, self.references)

    @property
    def fingerprint(self) -> str:
        return "f" * 16 + self.references.fingerprint

    @property
    def normal_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.references.known)

    @property
    def promises(self) -> dict[str, str]:  # type: ignore[override]
        return self.references.promises

    def zero_shot(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        return ToyDetector.score(self, batch, class_names)

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer:
        cells = batch.astype(np.float32).reshape(len(batch), 3, GRID, SIDE // GRID, GRID, SIDE // GRID).mean((3, 5))
        stage = np.concatenate([cells, np.full_like(cells, 50)], axis=1).transpose(0, 2, 3, 1)
        return Answer(self.zero_shot(batch, class_names), comparison_tokens([stage]))

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        assert self.go_on.wait(60)
        return scorer_of(self, self.references).score(batch, class_names)

    def remember(self, images: Sequence[ImageSource], class_name: str = "part", view: View = WHOLE) -> str | None:
        self.references = with_class(self.references, remembered(self, distinct(images), class_name, view))
        return self.promises.get(class_name)

    @property
    def states(self) -> None:
        return None

    def with_states(self, normal: Sequence[str], abnormal: Sequence[str]) -> TeachableToy:
        raise ConfigError("the toy has no prompts")

    def save_pretrained(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True)
        save_references(self.references, Path(folder))


def worded_model(clip: str, folder: Path) -> BenchModel:
    """A small WinCLIP of random weights, saved and opened again: a model whose prompts name states."""
    small = {"encoder": clip, "input.height": 24, "input.width": 24}
    Detector(new_model(PRESETS["winclip"].with_settings(small), {"part": "part"}, offline=True)).save_pretrained(folder)
    spec = ModelSpec(str(folder), offline=True)
    return BenchModel(spec.model, spec.open, abilities=abilities_of(spec))


def score_with(model: BenchModel, images: Path, out: Path) -> Path:
    """What predict writes of a folder with a model."""
    plain = model.plain()
    options = DriveOptions("part", DecisionRule(plain.threshold), threads=1)
    run = FolderRun(out, model.name, model.fingerprint_of(plain), options)
    score_into_folder(find_images([str(images)]), model.scorer_of(plain), run)
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
