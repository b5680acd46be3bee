"""Every error that the package raises on purpose.

    AdDinoError
    ├── ConfigError            a setting is unknown, out of range or contradicts another
    ├── WeightsError           weights are missing, gated, truncated, of another model
    ├── ImageError             one image cannot be decoded (carries the path; a run goes on without it)
    ├── DataError              a data set's tree, manifest or masks do not fit together
    ├── ShapeError             a tensor or array has a shape that the function does not take
    ├── ScoreError             a model answered with NaN, infinity or a value outside [0, 1]
    ├── TrainingError          training cannot go on (NaN, a checkpoint of another run, no disk)
    ├── export.ParityError     an exported graph's maps differ from the model's by more than the tolerance
    └── MissingExtraError      an optional dependency is needed; the message names the pip line

Messages say what was expected, what was found, and what to do next.
"""

from __future__ import annotations

import os
from pathlib import Path


class AdDinoError(Exception):
    """Base of all errors of this package; the command line prints it without a traceback."""


class ConfigError(AdDinoError, ValueError):
    """A setting is unknown, out of range or contradicts another."""


class WeightsError(AdDinoError):
    """Weights are missing, gated, truncated or belong to another model."""


class ImageError(AdDinoError):
    """One image cannot be decoded.

    Args:
        path: the image's file, or a name for an image that came as an array.
        reason: what is wrong, in words for the person who owns the file.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = os.fsencode(path).decode("utf-8", "backslashreplace")
        super().__init__(f"{self.path}: {reason}")
        self.reason = reason


class DataError(AdDinoError):
    """A data set's tree, manifest or masks do not fit together."""


class ShapeError(AdDinoError, ValueError):
    """A tensor or array has a shape that the function does not take."""


class ScoreError(AdDinoError):
    """A model answered with NaN, infinity or a value outside [0, 1]."""


class TrainingError(AdDinoError):
    """Training cannot go on."""


class MissingExtraError(AdDinoError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the module that could not be imported.
        extra: the extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; run: pip install "ad-dinov3[{extra}]"')
