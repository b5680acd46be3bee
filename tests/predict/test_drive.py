from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import SIDE, ToyDetector, draw_part

from ad_dinov3.data.decode import DecodedImage
from ad_dinov3.data.streams import ImageFile, find_images
from ad_dinov3.errors import DataError
from ad_dinov3.infer.decide import DecisionRule, upsample
from ad_dinov3.predict.drive import DriveOptions, drive
from ad_dinov3.predict.types import Failure, Outcome, Result

OPTIONS = DriveOptions(rule=DecisionRule(0.3), batch_size=4, threads=2)


class Collector:
    """Keeps what it is given, and can be full or picky."""

    def __init__(self, error: OSError | None = None, only: str = "") -> None:
        self.results: dict[str, Result] = {}
        self.failed: list[str] = []
        self.closed = 0
        self._error, self._only = error, only

    def write(self, result: Result) -> None:
        if self._error is not None and self._only in result.scored.item.name:
            raise self._error
        self.results[result.scored.item.name] = result

    def fail(self, failure: Failure) -> None:
        self.failed.append(failure.item.name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for number in range(11):
        draw_part(tmp_path / f"part{number}.png", (60 + 7 * number, 50 + 3 * number), blemish=number % 3 == 0)
    return tmp_path


def test_every_result_equals_scoring_its_image_alone(parts: Path) -> None:
    collector, detector = Collector(), ToyDetector()
    summary = drive(find_images([str(parts)]), detector, [collector], OPTIONS)
    assert (summary.anomalous, summary.normal, summary.exit_code) == (4, 7, 0)
    assert detector.batches == [4, 4, 3]
    for name, result in collector.results.items():
        image = np.asarray(Image.open(parts / name))
        alone = ToyDetector().score(ToyDetector().prepare(image)[None], ["object"])
        np.testing.assert_array_equal(result.scored.image, image)
        np.testing.assert_array_equal(result.prediction.anomaly_map, upsample(alone.maps[0], image.shape[:2]))
        assert result.prediction.score == alone.scores[0]


def test_outcomes_arrive_in_the_order_of_the_items(parts: Path) -> None:
    (parts / "part4.png").write_bytes(b"")
    outcomes: list[str] = []
    drive(find_images([str(parts)]), ToyDetector(), [], OPTIONS, lambda outcome: outcomes.append(outcome.item.name))
    assert outcomes == [f"part{number}.png" for number in range(11)]


def test_a_broken_image_is_reported_with_its_reason_and_the_rest_is_done(parts: Path) -> None:
    (parts / "part2.png").write_text("not a picture")
    (parts / "part9.png").write_bytes(b"")
    collector = Collector()
    summary = drive(find_images([str(parts)]), ToyDetector(), [collector], OPTIONS)
    assert (summary.scored, summary.exit_code) == (9, 3)
    assert [failure.item.name for failure in summary.failures] == collector.failed == ["part2.png", "part9.png"]
    assert "empty" in summary.failures[1].reason


def test_a_map_of_nan_fails_its_image_alone(parts: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(parts / "bright.png")
    summary = drive(find_images([str(parts)]), ToyDetector(nan_above=200), [], OPTIONS)
    assert [failure.item.name for failure in summary.failures] == ["bright.png"]
    assert summary.scored == 11


def test_inputs_of_different_shapes_never_share_a_batch(parts: Path) -> None:
    class Tall(ToyDetector):
        def prepare(self, image: np.ndarray) -> np.ndarray:
            tensor = super().prepare(image)
            return np.concatenate([tensor, tensor], axis=1) if image.shape[1] > 100 else tensor

        def score(self, batch: np.ndarray, class_names: list[str]):  # type: ignore[no-untyped-def, override]
            return super().score(batch[:, :, :SIDE], class_names)

    detector = Tall()
    summary = drive(find_images([str(parts)]), detector, [], OPTIONS)
    assert summary.scored == 11
    assert detector.batches == [4, 2, 4, 1]


def test_a_slow_sink_holds_the_reading_back(parts: Path) -> None:
    taken, written, furthest = [0], [0], [0]
    lock = threading.Lock()

    def items() -> Iterator[ImageFile]:
        image = np.zeros((50, 50, 3), np.uint8)
        for number in range(60):
            with lock:
                taken[0] += 1
                furthest[0] = max(furthest[0], taken[0] - written[0])
            yield ImageFile(Path("camera"), f"{number}.png", frame=image)

    class Slow(Collector):
        def write(self, result: Result) -> None:
            time.sleep(0.004)
            with lock:
                written[0] += 1

    drive(items(), ToyDetector(), [Slow()], OPTIONS)
    assert written[0] == 60
    ahead = behind = OPTIONS.batch_size + OPTIONS.threads
    assert furthest[0] <= ahead + OPTIONS.batch_size + behind + 2


def test_large_images_are_held_in_smaller_numbers() -> None:
    image = np.zeros((600, 600, 3), np.uint8)  # 1.03 MiB
    items = (ImageFile(Path("camera"), f"{number}.png", frame=image) for number in range(12))
    detector = ToyDetector()
    drive(items, detector, [], DriveOptions(rule=DecisionRule(0.3), batch_size=8, threads=2, memory_mb=16))
    assert max(detector.batches) == 2


def test_decoding_and_writing_go_on_while_the_detector_computes() -> None:
    next_is_decoded, next_is_scored = threading.Event(), threading.Event()

    class Frame(ImageFile):
        def load_within(self, in_hand: int) -> DecodedImage:
            if self.name == "4.png":  # of the second batch
                next_is_decoded.set()
            return super().load_within(in_hand)

    class Waiting(ToyDetector):
        def score(self, batch: np.ndarray, class_names: list[str]):  # type: ignore[no-untyped-def, override]
            if self.batches:
                next_is_scored.set()
            else:
                assert next_is_decoded.wait(60)
            return super().score(batch, class_names)

    class Patient(Collector):
        def write(self, result: Result) -> None:
            assert next_is_scored.wait(60)
            super().write(result)

    patient = Patient()
    frames = [Frame(Path("camera"), f"{number}.png", frame=np.zeros((8, 8, 3), np.uint8)) for number in range(8)]
    drive(frames, Waiting(), [patient], OPTIONS)
    assert len(patient.results) == 8


def test_told_to_stop_it_finishes_what_is_in_hand_and_closes_the_sinks(parts: Path) -> None:
    collector, done = Collector(), [0]

    def count(outcome: Outcome) -> None:
        done[0] += 1

    summary = drive(find_images([str(parts)]), ToyDetector(), [collector], OPTIONS, count, lambda: done[0] > 0)
    assert 0 < summary.scored < 11
    assert (summary.interrupted, summary.exit_code, collector.closed) == (True, 130, 1)
    assert len(collector.results) == summary.scored == done[0]


def test_a_name_that_cannot_be_written_fails_its_image_alone(parts: Path) -> None:
    picky = Collector(error=OSError(36, "File name too long"), only="part7")
    summary = drive(find_images([str(parts)]), ToyDetector(), [picky], OPTIONS)
    assert [(failure.item.name, "too long" in failure.reason) for failure in summary.failures] == [("part7.png", True)]
    assert summary.scored == 10


def test_a_full_disk_ends_the_run_and_closes_the_sinks(parts: Path) -> None:
    full = Collector(error=OSError(28, "No space left on device"))
    with pytest.raises(DataError, match="No space left"):
        drive(find_images([str(parts)]), ToyDetector(), [full], OPTIONS)
    assert full.closed == 1


def test_an_error_of_the_detector_is_not_swallowed(parts: Path) -> None:
    class Broken(ToyDetector):
        def score(self, batch: np.ndarray, class_names: list[str]):  # type: ignore[no-untyped-def, override]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(find_images([str(parts)]), Broken(), [], OPTIONS)


def test_the_steps_of_the_profile_cover_the_run(parts: Path) -> None:
    summary = drive(find_images([str(parts)]), ToyDetector(), [Collector()], OPTIONS)
    steps = {"decode", "resize", "score", "wait for images", "enlarge map", "find regions"}
    assert steps | {"write Collector", "close Collector"} == set(summary.step_seconds)
    assert 0 < summary.step_seconds["score"] <= summary.seconds
