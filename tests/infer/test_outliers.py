"""The adapter holds scikit-learn's conventions, and says what the detector says."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from ad_dinov3.assets import GOOD_SAMPLES, SAMPLES
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.outliers import OutlierDetector

GOOD = sorted((GOOD_SAMPLES / "cookie").glob("*.jpg"))[:5]
TEST = sorted((SAMPLES / "cookie" / "test").rglob("*.jpg"))
# What check_estimator asks of every estimator before it hands over tables of numbers, which this one does not take.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
)


@pytest.fixture(scope="module")
def fitted() -> OutlierDetector:
    return OutlierDetector(batch_size=4).fit(GOOD)


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_of_scikit_learn_that_need_no_table_pass(name: str) -> None:
    getattr(estimator_checks, name)("OutlierDetector", OutlierDetector())


def test_signs_offset_and_decisions_are_those_of_an_outlier_detector(fitted: OutlierDetector) -> None:
    scores, decisions, labels = fitted.score_samples(TEST), fitted.decision_function(TEST), fitted.predict(TEST)
    predictions = fitted.detector_.predict_batch(TEST)
    np.testing.assert_allclose(scores, [-one.score for one in predictions], atol=1e-5)
    np.testing.assert_allclose(decisions, scores - fitted.offset_)
    assert labels.tolist() == [-1 if one.is_anomalous else 1 for one in predictions]
    assert set(labels.tolist()) == {-1, 1}
    assert "flagged" in str(fitted.promise_)


def test_repr_of_the_detector_says_what_it_is_and_knows(fitted: OutlierDetector) -> None:
    assert repr(fitted.detector_) == (
        "<Detector ad_dinov3 on lite0, input 256 x 256 px, threshold 0.500, compares with normal images of object>"
    )


def test_it_clones_travels_in_a_pipeline_and_pickles(fitted: OutlierDetector) -> None:
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.score_samples(TEST[:1]), fitted.score_samples(TEST[:1]))
    assert clone(fitted).get_params() == fitted.get_params()
    pipeline = make_pipeline(clone(fitted)).fit(GOOD)
    assert pipeline.predict(TEST).tolist() == fitted.predict(TEST).tolist()


def test_what_was_not_fitted_or_has_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        OutlierDetector().predict(TEST)
    with pytest.raises(ConfigError):
        OutlierDetector().fit([])
