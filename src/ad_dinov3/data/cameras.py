"""A camera or a network stream as images: the newest frame wins, and a camera that is away is asked again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import MissingExtraError

_ADDRESS = re.compile(r"(rtsps?|https?)://.+")
_DEVICE = re.compile(r"\d+|/dev/video\d+")
_OPEN_S, _READ_S = 10.0, 5.0  # a stalled camera would hold its reader for ever
_LONGEST_PAUSE_S = 10.0
_LOOK_S = 0.02


def is_camera(source: str) -> bool:
    """Whether a source is a camera's number, its device or the address of a stream."""
    return bool(_ADDRESS.fullmatch(source) or _DEVICE.fullmatch(source))


class Camera:
    """The newest frame of a camera, read by a thread of its own.

    Args:
        source: a number, ``/dev/video0``, ``rtsp://…``, or ``http://…`` with Motion JPEG or video.
        on_problem: told, by that thread, why a camera has ended or is away; no address is in it.
        first_pause_s: until a camera that is away is asked again; it doubles up to 10 s.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self, source: str, on_problem: Callable[[str], None] = lambda words: None, first_pause_s: float = 0.5
    ) -> None:
        try:
            import av  # noqa: F401  said here and not by the thread
        except ModuleNotFoundError:
            raise MissingExtraError("av", "video") from None
        self._source = source
        self._on_problem = on_problem
        self._first_pause_s = first_pause_s
        self._lock = Lock()
        self._newest: tuple[datetime, NDArray[np.uint8]] | None = None
        self._ended = Event()
        self.skipped = 0
        self._thread = Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def settled(self) -> list[ImageFile]:
        """The newest frame, called by its time in UTC; nothing where none has come since the last one."""
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is None:
            return []
        taken, frame = newest
        name = f"{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03}Z.png"
        return [ImageFile(Path(name), name, frame=frame, taken_at=taken.isoformat(timespec="milliseconds"))]

    def close(self) -> None:
        """Let go of the camera."""
        self._ended.set()
        self._thread.join(_OPEN_S + _READ_S)

    def _read(self) -> None:
        pause_s = self._first_pause_s
        while not self._ended.is_set():
            before = time.monotonic()
            words = self._frames()
            if not self._ended.is_set():
                self._on_problem(words)
            pause_s = self._first_pause_s if time.monotonic() - before > _LONGEST_PAUSE_S else pause_s
            self._ended.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _frames(self) -> str:
        """Read until the camera ends; why it did."""
        import av

        address, kind, options = _how_to_open(self._source)
        try:
            opened = av.open(address, format=kind, options=options, timeout=(_OPEN_S, _READ_S))
            with closing(opened) as stream:
                for frame in stream.decode(video=0):
                    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    with self._lock:
                        self.skipped += self._newest is not None
                        self._newest = (datetime.now(UTC), pixels)
                    if self._ended.is_set():
                        break
            return "the stream has ended"
        except IndexError:
            return "it shows no video"
        except (av.FFmpegError, OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error)
            return words.replace(address, "the camera")  # the address may hold a password


def camera_frames(
    source: str, on_problem: Callable[[str], None] = lambda words: None, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[ImageFile]:
    """The frames of a camera, the newest one each time that one is asked for, until ``should_stop`` says so.

    Args:
        source: as `Camera` takes it.
        on_problem: told why a camera has ended or is away.
        should_stop: asked at least ten times a second, also while the camera is away.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    with closing(Camera(source, on_problem)) as camera:
        while not should_stop():
            frames = camera.settled()
            yield from frames
            if not frames:
                time.sleep(_LOOK_S)


def _how_to_open(source: str) -> tuple[str, str | None, dict[str, str]]:
    """Address, format and options for FFmpeg."""
    if _DEVICE.fullmatch(source):
        return (f"/dev/video{source}" if source.isdigit() else source), "v4l2", {}
    return source, None, {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
