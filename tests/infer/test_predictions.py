"""Predictions in tables, in annotation formats and in notebooks."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ad_dinov3.errors import ConfigError, DataError, MissingExtraError, ShapeError
from ad_dinov3.infer.annotations import LABEL_STUDIO_CONFIG
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.predictions import Predictions, predict_images, predict_stream
from infer.toy_detector import ToyDetector, draw_part


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    files = [draw_part(tmp_path / "in" / f"{name}.png", blemish=name != "good") for name in ("a", "good", "<b>")]
    return predict_images(ToyDetector(), files, DecisionRule(0.5), "part")


def test_a_prediction_keeps_the_picture_that_it_is_of_and_draws_on_it(predictions: Predictions, tmp_path: Path) -> None:
    first = predictions[0]
    assert first.image is not None
    drawn = np.asarray(first.overlay())
    np.testing.assert_array_equal(drawn, np.asarray(first.overlay(first.image)))
    assert (first.save(tmp_path / "out") / "overlay.jpg").is_file()
    bare = Prediction(first.anomaly_map, first.score, "bare", "part", 0.5)
    with pytest.raises(ConfigError, match=r"bare: the picture was not kept; give it: overlay\(image\)"):
        bare.overlay()


def test_a_buffer_that_is_used_again_does_not_change_an_earlier_prediction() -> None:
    buffer = np.full((64, 64, 3), 60, np.uint8)
    (one,) = predict_images(ToyDetector(), [buffer], DecisionRule(0.5), "part")
    buffer[:] = 0
    assert one.image is not None
    assert (one.image == 60).all()


def test_a_notebook_shows_picture_decision_and_an_escaped_name(predictions: Predictions) -> None:
    page = predictions._repr_html_()
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 3
    assert max(Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size) <= 420
    assert page.count(": anomalous, score") == 4  # alternative text and caption of two
    assert "<b>" not in page
    assert "and 3 more" in Predictions([*predictions] * 9)._repr_html_()


def test_repr_is_one_line_without_arrays(predictions: Predictions) -> None:
    assert re.fullmatch(
        r"<Prediction .*a\.png: anomalous, score 0\.\d{3} at threshold 0\.500, 1 region, 96 x 80 px>",
        repr(predictions[0]),
    )


def test_tables_hold_what_to_dict_says(predictions: Predictions) -> None:
    told = json.loads(json.dumps(predictions.to_dicts()))
    assert json.loads(json.dumps(predictions.to_arrow().to_pylist())) == told
    frame = predictions.to_pandas()
    assert list(frame.columns) == list(told[0])
    assert list(frame.decision) == ["anomalous", "normal", "anomalous"]
    assert frame.score.tolist() == [row["score"] for row in told]
    assert list(Predictions().to_pandas().columns) == list(told[0])


def test_a_missing_package_is_named_with_its_pip_line(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pandas", "pyarrow", "supervision"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (predictions.to_pandas, predictions.to_arrow, predictions[0].to_supervision):
        with pytest.raises(MissingExtraError, match=r'pip install "ad-dinov3\['):
            call()


def test_supervision_gets_each_region_with_its_own_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("supervision")
    stand_in.Detections = SimpleNamespace  # type: ignore[attr-defined]  # takes the keywords, as the real class does
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:6, 3:9] = 0.9
    anomaly_map[10:19, 10:29] = 0.7
    anomaly_map[13:15, 15:20] = 0.1  # a hole
    found = Prediction(anomaly_map, 0.9, "a", "part", 0.5).to_supervision()
    assert found.xyxy.tolist() == [[3, 2, 9, 6], [10, 10, 29, 19]]
    assert found.mask.shape == (2, 20, 30)
    assert found.mask[1].sum() == 9 * 19 - 10
    np.testing.assert_array_equal(found.mask.any(axis=0), anomaly_map >= 0.5)


def test_coco_boxes_lie_around_the_mask(predictions: Predictions, tmp_path: Path) -> None:
    tree = json.loads(predictions.save_coco(tmp_path / "coco.json").read_text())
    assert (len(tree["images"]), len(tree["annotations"])) == (3, 2)
    x, y, width, height = tree["annotations"][0]["bbox"]
    rows, columns = np.nonzero(predictions[0].mask())
    assert [x, y, x + width - 1, y + height - 1] == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_label_studio_gets_percent_and_the_names_of_its_interface(predictions: Predictions, tmp_path: Path) -> None:
    tasks = json.loads(predictions.save_label_studio(tmp_path / "tasks.json", "/files/?d=").read_text())
    assert tasks[0]["data"]["image"] == f"/files/?d={predictions[0].source}"
    choice, outline = tasks[0]["predictions"][0]["result"]
    assert choice["value"]["choices"] == ["anomalous"]
    assert (outline["original_width"], outline["original_height"]) == (96, 80)
    corners = [(x * 96 / 100, y * 80 / 100) for x, y in outline["value"]["points"]]
    np.testing.assert_allclose(corners, predictions[0].regions[0].polygon)
    for part in (choice, outline):
        assert f'name="{part["from_name"]}"' in LABEL_STUDIO_CONFIG


def test_yolo_outlines_fill_to_the_mask_again(predictions: Predictions, tmp_path: Path) -> None:
    named = Predictions(
        Prediction(one.anomaly_map, one.score, f"line/{place}.png", "part", 0.5)
        for place, one in enumerate(predictions)
    )
    data = named.save_yolo(tmp_path)
    assert "0: anomaly" in data.read_text()
    labels = tmp_path / "labels" / "line"
    assert (labels / "1.txt").read_text().strip() == ""
    (line,) = (labels / "0.txt").read_text().splitlines()
    label, *numbers = line.split()
    corners = [(float(x) * 96, float(y) * 80) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    picture = Image.new("1", (96 * 4, 80 * 4))
    ImageDraw.Draw(picture).polygon([(4 * x, 4 * y) for x, y in corners], fill=1)
    filled = np.asarray(picture)[2::4, 2::4]
    assert label == "0"
    assert (filled != named[0].mask()).mean() < 0.01
    twins = Predictions([named[0], Prediction(named[0].anomaly_map, 0.9, "line/0.jpg", "part", 0.5)])
    with pytest.raises(DataError, match=r"line/0\.jpg and line/0\.png would share"):
        twins.save_yolo(tmp_path / "twins")


def test_a_stream_is_read_one_batch_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    class Counting:
        def __init__(self) -> None:
            self.read = 0

        def images(self) -> object:
            for _ in range(7):
                self.read += 1
                yield np.zeros((32, 32, 3), np.uint8)

        def predict_batch(self, images: object, class_name: str) -> Predictions:
            return predict_images(ToyDetector(), list(images), DecisionRule(0.5), class_name)  # type: ignore[call-overload]

    counting = Counting()
    stream = predict_stream(counting, counting.images(), "part", 3, progress=True)  # type: ignore[arg-type]
    next(stream)
    assert counting.read == 3
    assert len(list(stream)) == 6
    assert "scoring" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["good", Path("good")])
def test_a_path_where_several_images_are_expected_is_refused_with_what_to_write(folder: str | Path) -> None:
    detector = load(offline=True)
    calls: tuple[Callable[[], object], ...] = (
        lambda: detector.remember(folder),  # type: ignore[arg-type]
        lambda: detector.calibrate(folder, 0.5),  # type: ignore[arg-type]
        lambda: detector.predict_batch(folder),  # type: ignore[arg-type]
        lambda: list(detector.predict_many(folder)),  # type: ignore[arg-type]
    )
    for call in calls:
        with pytest.raises(ShapeError, match=r"of a folder: sorted\(Path\('good'\)"):
            call()
