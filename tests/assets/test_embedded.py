"""The embedded model works out of the box: offline, from the package's own files, on the package's own samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ad_dinov3
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.run import score
from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.bench.subjects import detector_subject
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import DataError
from ad_dinov3.export.graph import trace
from ad_dinov3.export.graphs import score_graph
from ad_dinov3.infer.detector import Detector
from ad_dinov3.methods.table import borrowing
from ad_dinov3.metrics.ranking import ranking_metrics
from ad_dinov3.model import new_model

SAMPLES = Path(ad_dinov3.__file__).parent / "assets" / "samples"
PACKAGE_BYTES = 16_000_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    return ad_dinov3.load(offline=True)


def test_embedded_files_stay_within_their_bound() -> None:
    folders = [SAMPLES.parent / name for name in ("lite0", "nano", "embedded")]
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


@pytest.mark.slow
def test_traced_graph_takes_any_batch(detector: Detector) -> None:
    graph = score_graph(detector.model, (64, 64))
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    traced = trace(graph).module()
    with torch.inference_mode():
        for batch in (images, images[:1]):
            for found, expected in zip(traced(batch), graph(batch), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_class_names_do_not_matter_to_learned_prompts(detector: Detector) -> None:
    image = decode_image(read_folder(SAMPLES)[0].image_path)
    one, two = detector.predict(image, "metal_nut"), detector.predict(image, "bottle")
    np.testing.assert_array_equal(one.anomaly_map, two.anomaly_map)


def test_samples_rank_better_than_untrained(detector: Detector) -> None:
    samples = read_folder(SAMPLES)
    images, masks = [decode_image(sample.image_path) for sample in samples], [load_mask(sample) for sample in samples]
    plain = Detector(new_model(borrowing("dinov3_plain", detector.config)))
    trained, untrained = (
        ranking_metrics([model.predict(image).anomaly_map for image in images], masks).auroc
        for model in (detector, plain)
    )
    assert trained is not None
    assert untrained is not None
    assert trained > untrained + 0.2


def test_images_of_its_training_are_refused_for_evaluation(detector: Detector, real_data: Path, tmp_path: Path) -> None:
    """The shipped weights saw all seven sets; figures of unseen data are those of the folds."""
    cookies = TestSet("renamed", tuple(read_folder(real_data / "aws_cookies")))
    with pytest.raises(DataError, match="training or normal images"):
        score(detector_subject(detector, "embedded", "cpu"), cookies, PROTOCOLS["paper"], tmp_path)
