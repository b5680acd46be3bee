"""The detector: any image in, a prediction at its own size out, the same alone and in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ad_dinov3
from ad_dinov3.config import PRESETS
from ad_dinov3.errors import ImageError, ShapeError
from ad_dinov3.infer import detector as module
from ad_dinov3.infer.detector import Detector
from ad_dinov3.model import new_model


@pytest.fixture(scope="module")
def detector(tiny_vit: Path) -> Detector:
    changes = {"encoder": str(tiny_vit), "method.prompts.source": "learned", "method.width": 8, "input.height": 32}
    return Detector(new_model(PRESETS["default"].with_settings(changes | {"input.width": 64})))


@pytest.fixture(scope="module")
def array() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


def test_map_has_the_images_own_size_and_the_unit_range(detector: Detector, array: NDArray[np.uint8]) -> None:
    prediction = detector.predict(array)
    assert prediction.anomaly_map.shape == (50, 90)
    assert prediction.anomaly_map.dtype == np.float32
    assert 0 <= prediction.anomaly_map.min() <= prediction.anomaly_map.max() <= 1
    assert 0 <= prediction.score <= 1


def test_file_array_and_picture_give_one_prediction(
    detector: Detector, array: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(array).save(tmp_path / "part.png")
    maps = [
        detector.predict(source).anomaly_map
        for source in (array, Image.fromarray(array), tmp_path / "part.png", str(tmp_path / "part.png"))
    ]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_grey_equals_its_rgb_twin(detector: Detector, array: NDArray[np.uint8]) -> None:
    grey = array[:, :, 0]
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(detector.predict(grey).anomaly_map, detector.predict(rgb).anomaly_map)


def test_batch_of_mixed_sizes_equals_one_by_one(detector: Detector, array: NDArray[np.uint8]) -> None:
    images = [array, array[:20], array[:, :33], array[10:11, 5:6]]
    together = detector.predict_batch(images)
    streamed = list(detector.predict_many(iter(images), batch_size=3))
    for image, one, two in zip(images, together, streamed, strict=True):
        alone = detector.predict(image)
        assert alone.anomaly_map.shape == image.shape[:2]
        np.testing.assert_allclose(one.anomaly_map, alone.anomaly_map, atol=1e-5)
        np.testing.assert_allclose(two.anomaly_map, alone.anomaly_map, atol=1e-5)
        assert one.score == pytest.approx(alone.score, abs=1e-5)


def test_nothing_in_gives_nothing_out(detector: Detector) -> None:
    assert detector.predict_batch([]) == []
    assert list(detector.predict_many([])) == []


def test_wrong_array_is_refused_with_its_shape(detector: Detector) -> None:
    with pytest.raises(ShapeError, match=r"\(4, 5, 7\)"):
        detector.predict(np.zeros((4, 5, 7), np.uint8))


def test_missing_file_is_named(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png"):
        detector.predict(tmp_path / "gone.png")


def test_smoothing_lowers_the_peak_and_keeps_the_mean(detector: Detector, array: NDArray[np.uint8]) -> None:
    smooth = Detector(
        module.Model(
            detector.config.with_settings({"smoothing_sigma_px": 8.0}), detector.model.encoder, detector.model.head
        )
    )
    batch = detector.prepare(array)[None]
    raw, blurred = detector.score(batch, ["object"]).maps, smooth.score(batch, ["object"]).maps
    assert blurred.max() < raw.max()
    assert blurred.mean() == pytest.approx(raw.mean(), abs=0.05)


def test_saved_detector_comes_back_with_the_same_fingerprint(
    detector: Detector, array: NDArray[np.uint8], tmp_path: Path
) -> None:
    detector.save_pretrained(tmp_path / "model")
    again = ad_dinov3.load(tmp_path / "model")
    assert again.fingerprint == detector.fingerprint
    np.testing.assert_array_equal(again.predict(array).anomaly_map, detector.predict(array).anomaly_map)


def test_pushing_uploads_the_saved_folder(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object]] = []

    class Hub:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            calls.append(("create", (repo_id, private, exist_ok)))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            calls.append(("upload", sorted(path.name for path in Path(folder_path).iterdir())))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)

    assert detector.push_to_hub("me/parts", tmp_path / "model", private=True) == "https://hub/me/parts"
    assert calls[0] == ("create", ("me/parts", True, True))
    uploaded = calls[1][1]
    assert isinstance(uploaded, list)
    assert {"config.json", "head.safetensors", "README.md"} <= set(uploaded)
    assert not any("backbone" in name or name == "model.safetensors" for name in uploaded)
