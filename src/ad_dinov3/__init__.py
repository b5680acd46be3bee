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
    from ad_dinov3.errors import AdDinoError as AdDinoError
    from ad_dinov3.infer.detector import Detector as Detector
    from ad_dinov3.infer.opening import load as load
    from ad_dinov3.infer.prediction import Prediction as Prediction
    from ad_dinov3.predict.row_scorer import RowScorer as RowScorer
    from ad_dinov3.training.loop import train as train

__version__ = "0.1.0"

_HOMES = {
    "AdDinoError": "errors",
    "Detector": "infer.detector",
    "Prediction": "infer.prediction",
    "RowScorer": "predict.row_scorer",
    "load": "infer.opening",
    "train": "training.loop",
}
__all__ = ["AdDinoError", "Detector", "Prediction", "RowScorer", "__version__", "load", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ad_dinov3' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ad_dinov3.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
