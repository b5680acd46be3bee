"""Images compared with normal ones: by Python, by exported folders and through views, on a model that is made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ad_dinov3
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.infer.compared import load_references, remembered, save_references, scorer_of
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load, look_through
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.references.calibration import References


def picture(seed: int, defect: bool = False) -> np.ndarray:
    draw = np.random.default_rng(seed)
    image = np.tile(np.linspace(60, 180, 200)[None, :, None], (200, 1, 3)) + draw.normal(0, 4, (200, 200, 3))
    image[60:140, 80:84] = 90
    if defect:
        image[100:130, 20:50] = draw.uniform(0, 255, (30, 30, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    found = load()
    assert isinstance(found, Detector)
    found.remember([picture(seed) for seed in range(6)])
    return found


def files(folder: Path, seeds: Sequence[int], defect: bool = False) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}.png" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        Image.fromarray(picture(seed, defect)).save(path)
    return paths


def test_a_defect_is_found_where_it_is_and_good_images_pass(detector: Detector) -> None:
    good = [detector.predict(picture(seed)) for seed in range(20, 26)]
    bad = detector.predict(picture(30, defect=True))
    assert sum(prediction.is_anomalous for prediction in good) <= 2
    assert bad.is_anomalous
    assert bad.threshold == detector.threshold == 0.5
    assert bad.p_value == pytest.approx(1 / 7)
    (x0, y0, x1, y1) = bad.regions[0].box
    assert x0 < 35 < x1
    assert y0 < 115 < y1
    assert bad.to_dict()["p_value"] == pytest.approx(1 / 7, abs=1e-5)


def test_the_promise_is_said_in_words(detector: Detector) -> None:
    assert detector.promises["object"].startswith("with your 6 good images about 1 good part in 7 will be flagged")
    assert detector.normal_classes == ("object",)


def test_scores_do_not_depend_on_the_order_of_normal_or_other_images(detector: Detector) -> None:
    again = load()
    again.remember([picture(seed) for seed in range(5, -1, -1)])
    bad, good = picture(30, defect=True), picture(20)
    assert again.predict(bad).score == pytest.approx(detector.predict(bad).score, abs=1e-3)
    one, other = detector.predict_batch([good, bad])
    other_, one_ = detector.predict_batch([bad, good])
    assert (one.score, other.score) == pytest.approx((one_.score, other_.score), abs=1e-5)


def test_each_normal_image_is_calibrated_by_a_memory_without_it(detector: Detector) -> None:
    plain = load()
    assert isinstance(plain, Detector)
    images = [picture(seed) for seed in range(6)]
    calibration = detector.references.calibrations["object"]
    others = remembered(plain, images[1:], "object")
    raw = scorer_of(plain, References(others.known), WHOLE).score(plain.prepare(images[0])[None], ["object"])
    assert calibration.scores[0] == pytest.approx(float(raw.scores[0]), abs=0.1)
    inside = scorer_of(plain, References(detector.references.known), WHOLE)
    assert float(inside.score(plain.prepare(images[0])[None], ["object"]).scores[0]) < calibration.scores[0]


def test_a_saved_model_compares_as_before_and_knows_what_it_has_seen(detector: Detector, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path / "line")
    assert "remembers normal images of: object" in (tmp_path / "line" / "README.md").read_text()
    again = ad_dinov3.load(tmp_path / "line")
    bad = picture(30, defect=True)
    assert again.predict(bad).score == detector.predict(bad).score
    assert again.fingerprint == detector.fingerprint != load().fingerprint


def test_one_normal_image_gives_a_memory_without_a_promise() -> None:
    found = load()
    assert found.remember([picture(0)] * 3) is None
    assert found.promises == {}
    assert found.predict(picture(3, defect=True)).p_value is None
    assert found.predict(picture(3, defect=True)).score > found.predict(picture(3)).score


def test_tiles_compare_tiles_and_a_model_looks_in_one_way() -> None:
    found, view = load(), View(tile_px=120)
    assert isinstance(found, Detector)
    found.remember([picture(seed) for seed in range(4)], view=view)
    scorer = look_through(found, view).scorer
    good, bad = (scorer.score(scorer.prepare(picture(9, defect))[None], ["object"]) for defect in (False, True))
    assert float(good.scores[0]) < float(bad.scores[0]) > 0.5
    with pytest.raises(ConfigError, match="in one way"):
        found.predict(picture(1))


def test_calibration_moves_the_threshold_of_a_model_without_memory(tmp_path: Path) -> None:
    found, plain = load(), load()
    paths = files(tmp_path, range(25))
    words = found.calibrate(paths, 0.1)
    assert words.startswith("with your 25 good images about 1 good part in 13 will be flagged")
    scores = [plain.predict(path).score for path in paths]
    flagged = [found.predict(path).is_anomalous for path in paths]
    assert sum(flagged) == 1
    assert flagged[int(np.argmax(scores))]


def test_images_that_the_model_knows_cannot_calibrate_it(tmp_path: Path) -> None:
    found, paths = load(), files(tmp_path, range(12))
    found.remember(paths)
    with pytest.raises(ConfigError, match="has seen this image"):
        found.calibrate(paths, 0.2)
    with pytest.raises(ConfigError, match=r"10 good images cannot promise 5 %"):
        load().calibrate([picture(seed) for seed in range(10)], 0.05)


def test_a_class_without_normal_images_is_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="no normal images of bottle; there are some of object"):
        detector.predict(picture(1), class_name="bottle")


def test_no_references_leave_no_file_and_a_broken_file_is_named(tmp_path: Path) -> None:
    save_references(References(), tmp_path)
    assert load_references(tmp_path).is_empty
    (tmp_path / "references.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="remember the normal images again"):
        load_references(tmp_path)
