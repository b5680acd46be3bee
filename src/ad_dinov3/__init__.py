"""Zero-shot visual anomaly detection: where the anomaly is, how sure it is, and what to do next.

    import ad_dinov3

    detector = ad_dinov3.load()
    prediction = detector.predict("part.jpg")

Importing the package costs nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# GNU OpenMP's threads spin between parallel regions; on a loaded machine that makes two threads several times slower
# than one. The policy is read once, when torch is loaded, so it must be set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from ad_dinov3.bench.python import evaluate as evaluate
    from ad_dinov3.config import PRESETS as PRESETS
    from ad_dinov3.data.catalog import open_data as open_data
    from ad_dinov3.errors import AdDinoError as AdDinoError
    from ad_dinov3.infer.detector import Detector as Detector
    from ad_dinov3.infer.opening import load as load
    from ad_dinov3.infer.outliers import OutlierDetector as OutlierDetector
    from ad_dinov3.infer.prediction import Prediction as Prediction
    from ad_dinov3.infer.predictions import Predictions as Predictions
    from ad_dinov3.infer.session import Session as Session
    from ad_dinov3.model import new_model as new_model
    from ad_dinov3.predict.row_scorer import RowScorer as RowScorer
    from ad_dinov3.training.loop import train as train

__version__ = "0.2.0"

_HOMES = {
    "AdDinoError": "errors",
    "Detector": "infer.detector",
    "OutlierDetector": "infer.outliers",
    "PRESETS": "config",
    "Prediction": "infer.prediction",
    "Predictions": "infer.predictions",
    "RowScorer": "predict.row_scorer",
    "Session": "infer.session",
    "evaluate": "bench.python",
    "load": "infer.opening",
    "new_model": "model",
    "open_data": "data.catalog",
    "train": "training.loop",
}
__all__ = [
    "PRESETS",
    "AdDinoError",
    "Detector",
    "OutlierDetector",
    "Prediction",
    "Predictions",
    "RowScorer",
    "Session",
    "__version__",
    "evaluate",
    "load",
    "new_model",
    "open_data",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ad_dinov3' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ad_dinov3.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
