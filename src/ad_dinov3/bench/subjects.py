"""Methods made ready for measuring: detectors and exported models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.bench.checks import check_method
from ad_dinov3.bench.run import Subject
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.session import Session
from ad_dinov3.methods.table import METHODS


def open_subject(
    method: str | None, model: str, weights: str | None = None, *, device: str = "cpu", offline: bool = False
) -> Subject:
    """A method with weights.

    Args:
        method: a key of `METHODS`; None: what the model's folder or the exported folder is of.
        model, weights: as `infer.opening.load` takes them.
        device: a torch device.
        offline: never download.

    Raises:
        ConfigError: no such method, or weights for a method that takes none.
        WeightsError: the model's or the encoder's files are missing or do not fit.
    """
    check_method(method, weights)
    opened = load(model, method=method, weights=weights, device=device, offline=offline)
    if isinstance(opened, Session):
        return session_subject(opened, model, device)
    row = METHODS[opened.method]
    is_bare = not row.is_trained and (row.borrows_encoder or model == EMBEDDED)
    return detector_subject(opened, opened.config.encoder if is_bare else model, device)


def detector_subject(detector: Detector, model: str, device: str) -> Subject:
    """A detector as it is measured; what is not trained has no seed of a training."""
    config, method = detector.config, detector.method
    return Subject(
        detector,
        method=method,
        model=model,
        weights_hash=detector.fingerprint,
        input_size=config.input.size,
        interpolation=config.input.interpolation,
        trained_on=config.trained_on,
        encoder_trained_on=detector.model.encoder.spec.trained_on,
        seen_images=detector.model.seen_images,
        training_seed=config.train.seed if METHODS[method].is_trained else None,
        device=device,
    )


def with_normals(subject: Subject, normals: Mapping[str, Sequence[Path]], seed: int | None = None) -> Subject:
    """The same method, few-shot: it compares images with normal ones of their class from now on.

    Args:
        subject: a model, of torch or exported with its tokens.
        normals: the words of a class, as scoring will say them -> files.
        seed: of the draw, if they were drawn.

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
    drawn = "" if seed is None else f", seed {seed}"
    return replace(
        subject,
        model=f"{subject.model} + {count} normal images{drawn}",
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
