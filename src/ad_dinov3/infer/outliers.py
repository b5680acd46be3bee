"""A detector with scikit-learn's habits: fit on good images, then score_samples, decision_function and predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.errors import MissingExtraError
from ad_dinov3.infer.opening import load
from ad_dinov3.types import DEFAULT_CLASS

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import Tags
    from sklearn.utils.validation import check_is_fitted
except ImportError as missing:
    raise MissingExtraError("scikit-learn", "sklearn") from missing


class OutlierDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """An outlier detector over images, in the conventions of `sklearn.ensemble.IsolationForest`.

    ``X`` is a sequence of images of any kind and size that `Detector.predict` takes, such as a list of paths; a label
    ``y`` is ignored. High scores are normal, and predictions are 1 for inliers and -1 for outliers.

    Args:
        model: as `ad_dinov3.load` takes it.
        class_name: what the images show; matters only for models with text prompts.
        device: a torch device.
        batch_size: how many images are scored at once.

    Attributes:
        detector_: the fitted `Detector`, for maps and regions.
        offset_: ``decision_function`` is ``score_samples - offset_``.
        promise_: what is promised of false alarms, in words; None after a fit on a single image.
    """

    def __init__(
        self, model: str = EMBEDDED, class_name: str = DEFAULT_CLASS, device: str = "cpu", batch_size: int = 8
    ) -> None:
        self.model = model
        self.class_name = class_name
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Sequence[ImageSource], y: object = None) -> OutlierDetector:
        """Remember good images; one is enough, ten are better.

        Raises:
            ConfigError: there are no images, or the model cannot compare images.
            ImageError: a file cannot be decoded.
        """
        detector = load(self.model, device=self.device)
        self.promise_ = detector.remember(X, self.class_name)
        self.offset_ = -detector.threshold
        self.detector_ = detector
        return self

    def score_samples(self, X: Sequence[ImageSource]) -> NDArray[np.float64]:
        """The images' scores (N,) in [-1, 0], higher is more normal: the image score with its sign turned."""
        check_is_fitted(self)
        stream = self.detector_.predict_many(X, self.class_name, self.batch_size)
        return -np.array([prediction.score for prediction in stream], np.float64)

    def decision_function(self, X: Sequence[ImageSource]) -> NDArray[np.float64]:
        """How far each image lies on the normal side of the threshold (N,); outliers are at most 0."""
        scores = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X: Sequence[ImageSource]) -> NDArray[np.int64]:
        """1 for each image that is called normal, -1 for each that is called anomalous (N,)."""
        return np.where(self.decision_function(X) > 0, 1, -1)

    def __sklearn_tags__(self) -> Tags:
        """Images of any size are no table of numbers."""
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
