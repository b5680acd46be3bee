"""Methods made ready for measuring: a saved model, the untrained baseline, the classical floor."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.bench.run import Subject
from ad_dinov3.config import ModelConfig
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector, load
from ad_dinov3.infer.prediction import RawScores
from ad_dinov3.infer.session import Session, is_exported
from ad_dinov3.methods import mahalanobis
from ad_dinov3.model import open_method, plain_model

RIVALS = ("winclip", "april_gan", "anomalyclip", "adaclip")
METHODS = ("ad_dinov3", *RIVALS, "dinov3_plain", "mahalanobis")
_UNTRAINED = ("dinov3_plain", "winclip")
_TOP_SHARE = 0.01


def open_subject(
    method: str, model: str, weights: str | None = None, *, device: str = "cpu", offline: bool = False
) -> Subject:
    """A method with weights.

    Args:
        method: one of `METHODS`.
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
    if method not in METHODS:
        raise ConfigError(f"no method {method!r}; there are {', '.join(METHODS)}")
    if weights and method not in (*RIVALS, "dinov3_plain"):
        raise ConfigError(f"--weights names the encoder of dinov3_plain or a rival; {method} takes none")
    if method == "mahalanobis":
        return mahalanobis_subject()
    if is_exported(model):
        return session_subject(Session(model, device=device), method, model, device)
    if method != "dinov3_plain":
        opened = Detector(open_method(method, model, weights, offline=offline), device=device, offline=offline)
        name = opened.config.encoder if method == "winclip" else model
        return detector_subject(opened, name, device, method)
    config = ModelConfig() if weights else load(model, device=device, offline=offline).config
    encoder = weights or config.encoder
    plain = Detector(plain_model(encoder, config, offline=offline), device=device, offline=offline)
    return detector_subject(plain, encoder, device, "dinov3_plain")


def detector_subject(detector: Detector, model: str, device: str, method: str = "ad_dinov3") -> Subject:
    """A detector as it is measured; an untrained method carries no training data."""
    config = detector.config
    is_trained = method not in _UNTRAINED
    return Subject(
        detector,
        method=method,
        model=model,
        weights_hash=detector.fingerprint,
        input_size=config.input.size,
        interpolation=config.input.interpolation,
        trained_on=config.trained_on if is_trained else (),
        training_images=detector.model.training_images if is_trained else frozenset(),
        training_seed=config.train.seed if is_trained else None,
        device=device,
    )


def session_subject(session: Session, method: str, model: str, device: str) -> Subject:
    """An exported model as it is measured.

    Raises:
        ConfigError: it holds another method.
    """
    config = session.config
    if config.method != method:
        raise ConfigError(f"{model} is an export of {config.method}, not of {method}; name it with --method")
    return Subject(
        session,
        method=method,
        model=model,
        weights_hash=session.fingerprint,
        input_size=config.input.size,
        interpolation=config.input.interpolation,
        trained_on=config.trained_on,
        training_images=session.training_images,
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
