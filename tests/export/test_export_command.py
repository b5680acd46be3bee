from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import learned_model, vit_folder
from typer.testing import CliRunner

from ad_dinov3.bench.subjects import open_subject
from ad_dinov3.cli import export
from ad_dinov3.cli.export import read_size
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.parity import TOLERANCES, Parity
from ad_dinov3.export.speed import Contender, PeakMemory, energy_joules, race
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.model import save_model

pytest.importorskip("openvino")
RUN = CliRunner(env={"COLUMNS": "200"})


def test_evaluate_takes_an_exported_folder(tmp_path: Path) -> None:
    save_model(learned_model(vit_folder(tmp_path / "vit"), method__rarity=0), tmp_path / "model")
    photo = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "0.png")
    arguments = [str(tmp_path / "model"), "-o", str(tmp_path / "line"), "--calibration", str(tmp_path / "photos")]
    result = RUN.invoke(export.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "largest map difference" in result.output
    subject = open_subject("ad_dinov3", str(tmp_path / "line"))
    assert subject.device == "openvino fp32 on cpu"
    with pytest.raises(ConfigError, match="export of ad_dinov3, not of dinov3_plain"):
        open_subject("dinov3_plain", str(tmp_path / "line"))


@pytest.mark.parametrize(("ratio", "is_said"), [(0.91, True), (2.5, False), (None, False)])
def test_int8_that_is_slower_than_fp32_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float | None, is_said: bool
) -> None:
    parity = Parity(4, 0.1, 0.001, 0.99, 0.01, 0, 0.0, 0.5, TOLERANCES["int8"], speed_over_fp32=ratio)
    monkeypatch.setattr("ad_dinov3.export.build.export_model", lambda *_: parity)
    save_model(learned_model(vit_folder(tmp_path / "vit")), tmp_path / "model")
    (tmp_path / "out").mkdir()
    result = RUN.invoke(export.app, [str(tmp_path / "model"), "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert ("fp32 is faster than int8 on this processor" in result.output) == is_said
    assert ("speed over fp32" in result.output) == (ratio is not None)


def test_energy_counters_are_summed_and_their_absence_is_said(tmp_path: Path) -> None:
    assert energy_joules(tmp_path) is None
    for package, count in ((0, 2_000_000), (1, 500_000)):
        (tmp_path / f"intel-rapl:{package}").mkdir()
        (tmp_path / f"intel-rapl:{package}" / "energy_uj").write_text(f"{count}\n")
    assert energy_joules(tmp_path) == 2.5


def test_memory_is_the_rise_inside_the_blocks() -> None:
    memory = PeakMemory()
    with memory.watch():
        block = np.ones(40_000_000, np.uint8)
    if memory.rise_mb is None:
        pytest.skip("this system does not tell")
    assert 30 < memory.rise_mb < 80
    assert block[0] == 1


@pytest.mark.parametrize(("text", "size"), [("512", (512, 512)), ("256x384", (256, 384)), ("64X32", (64, 32))])
def test_sizes_are_read(text: str, size: tuple[int, int]) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["auto", "0", "1x2x3", "-5", ""])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a number of px"):
        read_size(text)


class _Counting:
    """Notes who is called when."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def score(self, batch: np.ndarray, class_names: object) -> RawScores:
        self.log.append(self.name)
        return RawScores(np.zeros((len(batch), 1, 1), np.float32), np.zeros(len(batch), np.float32))


def test_contenders_take_turns_and_the_warm_up_does_not_count() -> None:
    log: list[str] = []
    contenders = [Contender(name, "model", _Counting(name, log), (8, 8)) for name in "ab"]
    speeds = race(contenders, batch_size=4, rounds=3, warm_up=2)
    assert log == ["a", "b"] * 6
    assert [(speed.name, speed.calls, speed.batch_size) for speed in speeds] == [("a", 3, 4), ("b", 3, 4)]
    assert all(speed.p50_ms <= speed.p95_ms <= speed.p99_ms for speed in speeds)
