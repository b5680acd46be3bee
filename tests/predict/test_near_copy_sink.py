"""Near copies of normal images are told of once for each run that is closed."""

from __future__ import annotations

from pathlib import Path

from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import ImageFile
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions, drive
from ad_dinov3.predict.near_copy_sink import NearCopySink


def test_copies_are_told_of_once_and_only_those_of_their_own_class(tmp_path: Path) -> None:
    normal = draw_part(tmp_path / "good" / "known.png")
    parts = [
        ImageFile(path, path.name)
        for path in (draw_part(tmp_path / "a.png"), draw_part(tmp_path / "b.png", blemish=True))
    ]
    told: list[str] = []
    sink = NearCopySink({"object": [normal]}, told.append)
    for name, expected in (("object", 1), ("object", 2), ("bolt", 2)):
        drive(parts, ToyDetector(), [sink], DriveOptions(name, DecisionRule(0.5)))
        assert len(told) == expected
    assert all(words.startswith(f"1 image is nearly a normal one (a.png is like {normal})") for words in told)
