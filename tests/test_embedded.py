"""The embedded model works out of the box: offline, from the package's own files, on the package's own samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ad_dinov3
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.data.masks import load_mask
from ad_dinov3.infer.detector import Detector
from ad_dinov3.metrics.ranking import ranking_metrics

SAMPLES = Path(ad_dinov3.__file__).parent / "data" / "samples"
PACKAGE_BYTES = 16_000_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    return ad_dinov3.load(offline=True)


def test_embedded_files_stay_within_their_bound() -> None:
    folders = [SAMPLES.parents[1] / "encoders" / "nano", SAMPLES.parents[1] / "methods" / "embedded"]
    total = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert 0 < total < PACKAGE_BYTES


def test_two_detectors_give_the_same_bits(detector: Detector) -> None:
    image = decode_image(read_folder(SAMPLES)[0].image_path)
    other = ad_dinov3.load()
    np.testing.assert_array_equal(detector.predict(image).anomaly_map, other.predict(image).anomaly_map)
    assert detector.fingerprint == other.fingerprint


def test_defects_of_the_samples_rank_above_their_surroundings(detector: Detector) -> None:
    samples = read_folder(SAMPLES)
    maps = [detector.predict(sample.image_path).anomaly_map for sample in samples]
    masks = [load_mask(sample) for sample in samples]
    value = ranking_metrics(maps, masks).auroc
    assert value is not None
    assert value > 0.7


def test_class_names_do_not_matter_to_learned_prompts(detector: Detector) -> None:
    image = decode_image(read_folder(SAMPLES)[0].image_path)
    one, two = detector.predict(image, "metal_nut"), detector.predict(image, "bottle")
    np.testing.assert_array_equal(one.anomaly_map, two.anomaly_map)


def test_held_out_tiles_rank_better_than_untrained(detector: Detector, real_data: Path) -> None:
    """A slice of what results/ says in full: magnetic tiles were not trained on."""
    from ad_dinov3.model import plain_model

    assert "mtd" not in detector.config.trained_on
    tiles = [sample for sample in read_folder(real_data / "mtd") if sample.is_anomalous][::10]
    masks = [load_mask(sample) for sample in tiles]
    plain = Detector(plain_model("nano", detector.config))
    trained, untrained = (
        ranking_metrics([model.predict(sample.image_path).anomaly_map for sample in tiles], masks).auroc
        for model in (detector, plain)
    )
    assert trained is not None
    assert untrained is not None
    assert trained > untrained
