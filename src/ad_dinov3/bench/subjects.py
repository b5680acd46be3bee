"""Methods made ready for measuring: detectors and exported models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.bench.checks import check_method
from ad_dinov3.bench.protocol import Protocol
from ad_dinov3.bench.run import Subject
from ad_dinov3.bench.scoring import TestSet
from ad_dinov3.data.streams import ImageFile
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.good_images import file_hashes
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.session import Session
from ad_dinov3.methods.table import METHODS
from ad_dinov3.predict.compare import Comparison, FolderScorer, compare_images
from ad_dinov3.references.mutual import content_digest


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


@dataclass(frozen=True)
class SelfCompared:
    """A method that compares the images of a data set with each other.

    Attributes:
        subject: the method, ready for this data set and no other.
        remarks: what a person should know, such as which class cannot be compared.
    """

    subject: Subject
    remarks: tuple[str, ...]


def compared_with_itself(
    subject: Subject,
    data: TestSet,
    protocol: Protocol,
    normals: Mapping[str, Sequence[Path]],
    scratch: Path,
    seed: int | None = None,
) -> SelfCompared:
    """The same method, looking at all images of each class before it scores one; it is told no label.

    Args:
        subject: a model, of torch or exported with its tokens.
        data: the images; each is compared with those of its class alone.
        protocol: says what prompts call a class.
        normals: class name -> files of normal images that are compared along with the others.
        scratch: a folder for the tokens, removed again.
        seed: of the draw of normal images, if they were drawn.

    Raises:
        ConfigError: the baseline compares nothing, or the model tells no tokens.
    """
    detector = subject.detector
    if not isinstance(detector, Detector | Session):
        raise ConfigError(f"{subject.model}: {subject.method} has no tokens by which images can be compared")
    found: list[Comparison] = []
    for name in dict.fromkeys(sample.class_name for sample in data.samples):
        words = data.words_of(name, protocol)
        paths = [sample.image_path for sample in data.samples if sample.class_name == name]
        items = [ImageFile(path, str(path), class_name=words) for path in paths]
        given = {words: normals[name]} if name in normals else {}
        found.append(compare_images(detector, items, lambda item: str(item.class_name), given, scratch))
    answers = {key: raw for one in found for key, raw in one.scorer.answers.items()}
    good = [path for paths in normals.values() for path in paths]
    drawn = "" if seed is None else f", seed {seed}"
    looked_at = content_digest("".join(one.fingerprint for one in found).encode())
    also = f" and {len(good)} normal ones{drawn}" if good else ""
    compared = replace(
        subject,
        detector=FolderScorer(detector, answers),
        model=f"{subject.model} comparing the {len(data.samples)} images with each other{also}",
        weights_hash=f"{subject.weights_hash}-{looked_at[:16]}",
        seen_images=subject.seen_images | file_hashes(good),
    )
    return SelfCompared(compared, tuple(remark for one in found for remark in one.remarks))


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
