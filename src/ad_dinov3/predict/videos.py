"""The overlays of a video's frames as a video again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from importlib import import_module
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_dinov3.data.streams import VIDEO_SUFFIXES
from ad_dinov3.errors import DataError, MissingExtraError
from ad_dinov3.files import replacing
from ad_dinov3.predict.results import Row

_USUAL_RATE = Fraction(25)


def write_videos(folder: Path, rows: Iterable[Row]) -> None:
    """Write an MP4 (H.264) for each video whose frames are among the rows: ``clip.mp4``, ``clip.avi.mp4``.

    A frame is its overlay, below the folder that ``folder`` is in; frames that failed are left out. The video has the
    rate of the one that was read, 25 a second where that is not there any more.

    Args:
        folder: where the videos go; made if there are any.
        rows: in natural order of the names.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: a video cannot be written.
    """
    frames = (row for row in rows if row.overlay and Path(row.path).suffix.lower() in VIDEO_SUFFIXES)
    for (video, path), group in groupby(frames, lambda row: (PurePosixPath(row.image).parent, row.path)):
        target = folder / (video if video.suffix == ".mp4" else f"{video}.mp4")
        _write(target, _rate(Path(path)), (folder.parent / row.overlay for row in group if row.overlay))


def _write(target: Path, rate: Fraction, overlays: Iterator[Path]) -> None:
    av = _av()
    first = _pixels(next(overlays))
    height, width = (side - side % 2 for side in first.shape[:2])  # H.264 halves the colours
    try:
        with replacing(target) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for pixels in chain([first], map(_pixels, overlays)):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise DataError(f"{target}: this video cannot be written ({error.strerror})") from error


def _pixels(overlay: Path) -> NDArray[np.uint8]:
    with Image.open(overlay) as picture:
        return np.asarray(picture.convert("RGB"))


def _rate(video: Path) -> Fraction:
    """Frames a second."""
    av = _av()
    try:
        with av.open(str(video)) as container:
            return container.streams.video[0].average_rate or _USUAL_RATE
    except (av.FFmpegError, OSError, IndexError):
        return _USUAL_RATE


def _av() -> ModuleType:
    try:
        return import_module("av")
    except ImportError as error:
        raise MissingExtraError("av", "video") from error
