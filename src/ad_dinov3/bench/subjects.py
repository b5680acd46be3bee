"""Methods made ready for measuring: a saved model, the untrained baseline, the classical floor."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.checks import check_method
from ad_dinov3.bench.run import Subject
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.infer.session import Session
from ad_dinov3.methods import mahalanobis

_UNTRAINED = ("dinov3_plain", "winclip")
_TOP_SHARE = 0.01


def open_subject(
    method: str | None, model: str, weights: str | None = None, *, device: str = "cpu", offline: bool = False
) -> Subject:
    """A method with weights.

    Args:
        method: one of `ad_dinov3.bench.checks.METHODS`; None: what the model's folder or the exported folder is of.
        model: ``embedded``, a model's folder, an exported folder or a hub repository; the baseline takes its encoder
            and input from it. For a rival its trained model's folder or a checkpoint of its authors; WinCLIP needs
            none.
        weights: another image encoder for ``dinov3_plain``, or the CLIP of a rival that comes from no model's folder.
        device: a torch device.
        offline: never download.

    Raises:
        ConfigError: no such method, or weights for a method that takes none.
        WeightsError: the model's or the encoder's files are missing or do not fit.
    """
    check_method(method, weights)
    if method == "mahalanobis":
        return mahalanobis_subject()
    opened = load(model, method=method, weights=weights, device=device, offline=offline)
    if isinstance(opened, Session):
        return session_subject(opened, model, device)
    is_bare = opened.method in _UNTRAINED and not (opened.method == "winclip" and Path(model).is_dir())
    return detector_subject(opened, opened.config.encoder if is_bare else model, device)


def detector_subject(detector: Detector, model: str, device: str) -> Subject:
    """A detector as it is measured; an untrained method carries no training data."""
    config, method = detector.config, detector.method
    is_trained = method not in _UNTRAINED
    return Subject(
        detector,
        method=method,
        model=model,
        weights_hash=detector.fingerprint,
        input_size=config.input.size,
        interpolation=config.input.interpolation,
        trained_on=config.trained_on if is_trained else (),
        encoder_trained_on=detector.model.encoder.spec.trained_on,
        seen_images=detector.model.seen_images,
        training_seed=config.train.seed if is_trained else None,
        device=device,
    )


def with_normals(subject: Subject, normals: Mapping[str, Sequence[Path]]) -> Subject:
    """The same method, few-shot: it compares images with normal ones of their class from now on.

    Args:
        subject: a model, of torch or exported with its tokens.
        normals: the words of a class, as scoring will say them -> files.

    Raises:
        ConfigError: the baseline takes no normal images, or the model tells no tokens.
        ImageError: a file cannot be decoded.
    """
    detector = subject.detector
    if not isinstance(detector, Detector | Session):
        raise ConfigError(f"{subject.model}: {subject.method} takes no normal images")
    for words, paths in normals.items():
        detector.remember(paths, words)
    count = sum(map(len, normals.values()))
    return replace(
        subject,
        model=f"{subject.model} + {count} normal images",
        weights_hash=detector.fingerprint,
        seen_images=detector.model.seen_images if isinstance(detector, Detector) else detector.seen_images,
    )


def session_subject(session: Session, model: str, device: str) -> Subject:
    """An exported model as it is measured."""
    config = session.config
    return Subject(
        session,
        method=config.method,
        model=model,
        weights_hash=session.fingerprint,
        input_size=config.input.size,
        interpolation=config.input.interpolation,
        trained_on=config.trained_on,
        encoder_trained_on=config.encoder_trained_on,
        seen_images=session.seen_images,
        training_seed=config.training_seed,
        device=f"{config.runtime} {config.precision} on {device}",
    )


def mahalanobis_subject(size_px: int = 256) -> Subject:
    """The classical floor; its hash is that of its source, since it has no weights."""
    source = inspect.getsource(mahalanobis) + str(size_px)
    return Subject(
        _Mahalanobis(size_px),
        method="mahalanobis",
        model="mahalanobis",
        weights_hash=hashlib.sha256(source.encode()).hexdigest()[:16],
        input_size=(size_px, size_px),
        interpolation="bilinear",
    )


class _Mahalanobis:
    def __init__(self, size_px: int) -> None:
        self._size_px = size_px

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_image(image, (self._size_px, self._size_px), "bilinear")

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        maps = np.stack([mahalanobis.mahalanobis_map(image.transpose(1, 2, 0), self._size_px) for image in batch])
        top = max(1, round(_TOP_SHARE * self._size_px**2))
        scores = np.sort(maps.reshape(len(maps), -1), axis=1)[:, -top:].mean(axis=1)
        return RawScores(maps, scores)
