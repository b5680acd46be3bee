"""The overlays of a video's frames, as a video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import ToyDetector

from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.videos import write_videos

av = pytest.importorskip("av", reason="PyAV is not installed")
GREYS = [20, 90, 160, 230]


def row(out: Path, image: str, path: str, grey: int) -> Row:
    overlay = f"overlays/{image}.jpg"
    (out / overlay).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (65, 49), (grey, grey, grey)).save(out / overlay)
    return Row(image=image, path=path, decision="normal", overlay=overlay)


def greys(video: Path) -> list[float]:
    with av.open(str(video)) as container:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


def test_frames_come_back_in_order_at_their_own_rate_and_what_is_no_frame_is_omitted(tmp_path: Path) -> None:
    source = tmp_path / "clip.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(7))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in GREYS:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    out = tmp_path / "out"
    frames = [row(out, f"clip.avi/{i:06}.png", str(source), grey) for i, grey in enumerate(GREYS)]
    gone = [row(out, "line/away.mp4/000000.png", "line/away.mp4", 128)]
    lost = Row(
        image="clip.avi/000004.png", path=str(source), decision="failed", error="the video cannot be decoded further"
    )
    write_videos(out / "videos", [*frames, lost, *gone, row(out, "photo.png", "photo.png", 1)])
    assert {path.relative_to(out / "videos").as_posix() for path in (out / "videos").rglob("*.*")} == {
        "clip.avi.mp4",
        "line/away.mp4",
    }
    assert greys(out / "videos/clip.avi.mp4") == pytest.approx(GREYS, abs=4)
    with av.open(str(out / "videos/clip.avi.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 7
        assert (stream.width, stream.height) == (64, 48)


def test_a_video_without_overlays_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    run = FolderRun(tmp_path / "out", "toy", "toy", DriveOptions(), Outputs(overlays=False), tables=("csv", "video"))
    with pytest.raises(ConfigError, match="a video is made of overlays"):
        score_into_folder(iter(()), ToyDetector(), run)
