"""A model: settings, a frozen encoder and a trained head; and the folder it is saved in.

    config.json          format version, settings, names of classes and training data
    head.safetensors     adapters and baked prompts; never the backbone's weights
    memory.safetensors   tokens of normal images, where a few-shot method was given some
    training_images.txt  sha256 of every training image, one a line: evaluation refuses data that overlap
    README.md            model card
    NOTICE.md            the licence that the backbone's weights put on what is derived from them

Conventions of the Hugging Face hub: the same folder, pushed as it is, is a model repository.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.config import PRESETS, ModelConfig, States
from ad_dinov3.data.copies import here
from ad_dinov3.data.remote import is_uri
from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.encoders.prompts import PromptSet
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.files import read_seen_images, write_seen_images, write_text
from ad_dinov3.methods.head import Head
from ad_dinov3.methods.references import Memory, References
from ad_dinov3.methods.table import METHODS, borrowing, method_row, names_of, parts_of
from ad_dinov3.types import DEFAULT_CLASS, ImageEncoder, Scores, class_words
from ad_dinov3.weights import read_tensors
from ad_dinov3.weights.saved import CONFIG, HEAD, read_config, saved_folder
from ad_dinov3.weights.tensors import check_finite, write_tensors

_ENCODE_BATCH = 8
_MEMORY, _CARD, _NOTICE = "memory.safetensors", "README.md", "NOTICE.md"


@dataclass(frozen=True)
class Model:
    """A complete way from input tensors to scores.

    Attributes:
        config: every choice behind it.
        encoder: frozen.
        head: scores features.
        training_images: sha256 of the files that the head was trained on, or that it remembers as normal.
    """

    config: ModelConfig
    encoder: ImageEncoder
    head: Head
    training_images: frozenset[str] = frozenset()

    @property
    def seen_images(self) -> frozenset[str]:
        """sha256 of the files that the head or, as far as it says, the encoder has seen."""
        return self.training_images | self.encoder.spec.training_images

    def score(self, images: Tensor, class_names: Sequence[str]) -> Scores:
        """Scores of (B, 3, H, W) uint8 images.

        Raises:
            ShapeError: H or W is not a multiple of the encoder's step.
            ConfigError: a class has no baked prompt; see `with_prompts`.
        """
        return self.head.score(self.encoder.encode(images), class_names)

    @property
    def fingerprint(self) -> str:
        """Hex digest over settings, encoder and head: equal fingerprints give equal maps."""
        digest = hashlib.sha256(self.config.model_dump_json().encode() + self.encoder.spec.fingerprint.encode())
        for name, tensor in sorted((self.head.state_dict() | _memory(self)).items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def to(self, device: str) -> Model:
        """Move encoder and head to a device, in place, and return the model."""
        return replace(self, encoder=self.encoder.to(device), head=self.head.to(device))


def new_model(config: ModelConfig, words: Mapping[str, str] | None = None, *, offline: bool = False) -> Model:
    """A model with first values: ready where its method is not trained, else the one to train.

    Args:
        config: every choice; its seed decides the head's first values.
        words: class name -> what the class is called in a sentence; the class ``object`` is always there.
        offline: never download.

    Raises:
        WeightsError: the encoder's or the text encoder's weights are missing or do not fit.
        ConfigError: settings that the encoder cannot meet.
    """
    words = {**(words or {}), DEFAULT_CLASS: DEFAULT_CLASS}
    built = parts_of(config.method.kind).new(config.method, _encoder_here(config), words, offline)
    return Model(config.model_copy(update={"class_names": built.head.class_names}), built.encoder, built.head)


def open_method(method: str | None, model: str, weights: str | None = None, *, offline: bool = False) -> Model:
    """A model of a named method.

    Args:
        method: a key of `METHODS`; None: whatever the model's folder is of.
        model: ``embedded``, a model's folder, a hub repository, or a checkpoint file of the method's authors. What is
            not trained needs none; a method that borrows an encoder takes it and the input from there.
        weights: the encoder of what does not come from a model's folder: name, folder, file or a URI of one; by default
            its own.
        offline: never download.

    Raises:
        ConfigError: no such method, the model is of another one, a method that must be trained came without a model, or
            weights for what holds its own.
        WeightsError: files are missing or do not fit.
    """
    if method is None:
        return _load_held(model, weights, offline)
    row = method_row(method)
    chosen: dict[str, object] = {"encoder": weights} if weights else {}
    if row.borrows_encoder and not weights:
        lender = read_config(saved_folder(model, offline=offline))
        if lender.method.kind == method:
            return load_model(model, offline=offline)
        return new_model(borrowing(method, lender), offline=offline)
    if row.borrows_encoder or (not row.is_trained and model == EMBEDDED):
        return new_model(PRESETS[row.preset].model_copy(update=chosen), offline=offline)
    if Path(model).is_file():
        return _from_authors(method, Path(model), chosen, offline)
    return _load_of(method, model, weights, offline)


def with_prompts(model: Model, class_names: Sequence[str], *, offline: bool = False) -> Model:
    """The same model with the prompts of further classes baked in; loads the text encoder only if one is missing.

    Raises:
        WeightsError: a class is new and the text encoder's weights are missing.
    """
    add_prompts = parts_of(model.config.method.kind).add_prompts
    new = {name: class_words(name) for name in class_names if name not in model.head.class_names}
    if add_prompts is None or not new:
        return model
    head = copy.deepcopy(model.head)
    add_prompts(head, _encoder_here(model.config), new, offline)
    return replace(model, head=head, config=model.config.model_copy(update={"class_names": head.class_names}))


def states_of(model: Model) -> States | None:
    """The states that a model's prompts name; None: its prompts are no sentences, or it has none.

    Raises:
        ConfigError: the file of its ensemble is gone.
    """
    prompts = _ensemble(model.config)
    return None if prompts is None else States(normal=prompts.normal, abnormal=prompts.abnormal)


def with_states(model: Model, states: States, *, offline: bool = False) -> Model:
    """The same model with prompts that name other states, in its method's own templates; loads the text encoder.

    All classes are baked anew, as their names say; `save_model` keeps the states.

    Raises:
        ConfigError: the model's prompts are no sentences, or a state has not exactly one ``{}``.
        WeightsError: the text encoder's weights are missing.
    """
    config, parts = model.config, parts_of(model.config.method.kind)
    changed = config.model_copy(update={"method": config.method.model_copy(update={"states": states})})
    if parts.settle is None or parts.add_prompts is None or _ensemble(changed) is None:
        able = names_of(lambda row: row.says_states(PRESETS[row.preset]))
        raise ConfigError(f"the prompts of this model of {config.method.kind} name no states; those of {able} do")
    head = copy.deepcopy(model.head)
    parts.settle(head, changed.method)
    words = {name: class_words(name) for name in head.class_names}
    parts.add_prompts(head, _encoder_here(changed), words, offline)
    return replace(model, head=head, config=changed)


def _ensemble(config: ModelConfig) -> PromptSet | None:
    ensemble = parts_of(config.method.kind).ensemble
    return None if ensemble is None else ensemble(config.method)


def with_normals(model: Model, class_name: str, images: Tensor, hashes: Sequence[str] = ()) -> Model:
    """The same model, but comparing images of one class with normal ones, in its method's own way.

    Its head remembers them in place of earlier ones of that class; `save_model` keeps them.

    Args:
        model: one whose method has a memory.
        class_name: what the images show.
        images: (K, 3, H, W) uint8 at the size of the images to come.
        hashes: sha256 of their files, so that nobody measures the model on them.

    Raises:
        ConfigError: the method has no memory, or there are no images.
        ShapeError: H or W is not a multiple of the encoder's step.
    """
    return with_memories(model, class_name, [memory_of(model, image) for image in images], hashes)


def memory_of(model: Model, image: Tensor) -> Memory:
    """What a normal image (3, H, W) uint8 leaves in a model whose method has a memory; errors as in `with_normals`."""
    parts = parts_of(model.config.method.kind)
    if parts.memory is None:
        able = names_of(lambda row: row.remembers)
        raise ConfigError(f"{model.config.method.kind} has no memory of its own for normal images; {able} have")
    shown = image[None] if parts.shown is None else parts.shown(model.head, image[None])
    return parts.memory(model.head, (model.encoder.encode(batch) for batch in torch.split(shown, _ENCODE_BATCH)))


def with_memories(model: Model, class_name: str, memories: Sequence[Memory], hashes: Sequence[str] = ()) -> Model:
    """As `with_normals`, from what `memory_of` found of each image."""
    remember = parts_of(model.config.method.kind).remember
    if remember is None or not memories:
        raise ConfigError(f"{class_name}: no normal images to remember")
    head = copy.deepcopy(model.head)
    remember(head, class_name, memories)
    return replace(model, head=head, training_images=model.training_images | frozenset(hashes))


def normal_classes(model: Model) -> tuple[str, ...]:
    """Classes that the model has normal images of; empty for most."""
    references = _references(model)
    return () if references is None else references.class_names


def save_model(model: Model, folder: Path, card: str = "") -> None:
    """Write the model's folder; each file is written beside and then renamed, config.json as the last.

    A folder that is cut short does not load, so none loads without the list of the images that it has seen.

    Args:
        model: one of any method.
        folder: made if missing.
        card: Markdown that goes below the generated part of the model card, such as measured figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    withdraw_model(folder)
    write_seen_images(folder, model.training_images)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    write_tensors(folder / HEAD, state)
    memory = _memory(model)
    if memory:
        write_tensors(folder / _MEMORY, memory)
    else:
        (folder / _MEMORY).unlink(missing_ok=True)
    write_text(folder / _CARD, _model_card(model, card))
    write_text(folder / _NOTICE, _notice(model))
    write_text(folder / CONFIG, model.config.model_dump_json(indent=2))


def withdraw_model(folder: Path) -> None:
    """Make a folder that does not load until `save_model` has written all of it, whatever it holds."""
    (folder / CONFIG).unlink(missing_ok=True)


def load_model(where: str | Path = EMBEDDED, *, device: str = "cpu", offline: bool = False) -> Model:
    """A saved model.

    Args:
        where: ``embedded``, a model's folder, or a repository id of the Hugging Face hub.
        device: a torch device.
        offline: never download.

    Raises:
        WeightsError: the folder or one of its files is missing, or the files do not fit together.
        ConfigError: config.json holds settings that this version does not know.
    """
    folder = saved_folder(where, offline=offline)
    config = read_config(folder)
    file = folder / HEAD
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder}: not a saved model ({error}); expected {CONFIG} and {HEAD}") from None
    check_finite(state, file)
    built = parts_of(config.method.kind).shell(config.method, _encoder_here(config), state, offline)
    built.head.load_state_dict(checked_state(str(file), state, built.head.state_dict()))
    model = Model(config, built.encoder, built.head.eval(), read_seen_images(folder))
    if (folder / _MEMORY).is_file():
        _restore_memory(model, folder / _MEMORY)
    return model.to(device)


def _encoder_here(config: ModelConfig) -> ModelConfig:
    """The settings with a copy on this machine in the place of an encoder's URI."""
    copied = {"encoder": str(here(config.encoder))} if is_uri(config.encoder) else {}
    return config.model_copy(update=copied)


def _load_held(model: str, weights: str | None, offline: bool) -> Model:
    if weights:
        raise ConfigError(f"--weights {weights}: {model} names its own encoder; it takes none")
    return load_model(model, offline=offline)


def _load_of(method: str, model: str, weights: str | None, offline: bool) -> Model:
    """A saved model of one method."""
    held = read_config(saved_folder(model, offline=offline)).method.kind
    if held != method and model == EMBEDDED:
        raise ConfigError(
            f"{method} must be trained: name a model's folder or a checkpoint of its authors with --model, or "
            f"train one with `ad-dinov3 train --method {method} --data ... --out DIR`"
        )
    if held != method:
        raise ConfigError(f"{model} is a model of {held}, not of {method}")
    return _load_held(model, weights, offline)


def _from_authors(method: str, file: Path, chosen: Mapping[str, object], offline: bool) -> Model:
    preset, read_authors = METHODS[method].authors_preset, parts_of(method).read_authors
    if preset is None or read_authors is None:
        able = names_of(lambda row: row.authors_preset)
        raise ConfigError(f"{file}: {method} reads no checkpoint; {able} read those of their authors")
    tensors = read_tensors(file)
    opened = new_model(PRESETS[preset].model_copy(update=dict(chosen)), offline=offline)
    read_authors(opened.head, tensors, str(file))
    return opened


def _references(model: Model) -> References | None:
    references = parts_of(model.config.method.kind).references
    return references(model.head) if references else None


def _memory(model: Model) -> dict[str, Tensor]:
    """What a model remembers of normal images; empty for most."""
    references = _references(model)
    return {} if references is None else references.tensors()


def _restore_memory(model: Model, file: Path) -> None:
    references = _references(model)
    if references is None:
        raise WeightsError(f"{file}: {model.config.method.kind} has no memory for normal images; remove the file")
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); remember the normal images again") from None
    references.restore(tensors, str(file))


def _model_card(model: Model, more: str) -> str:
    config, spec = model.config, model.encoder.spec
    lines = [
        "---",
        "library_name: ad-dinov3",
        "pipeline_tag: image-segmentation",
        f"tags: [anomaly-detection, zero-shot, {config.method.kind}]",
        "---",
        "",
        f"# {METHODS[config.method.kind].title} head on {spec.name}",
        "",
        "Adapters and baked prompts for zero-shot anomaly detection; the frozen backbone is not part of this folder.",
        "",
        f"- preset: {config.preset}; input {config.input.height}x{config.input.width} px",
        f"- trained on: {', '.join(config.trained_on) or 'nothing'}",
        f"- compares with normal images of: {', '.join(normal_classes(model)) or 'no class'}",
        f"- images seen, not to be measured on: {len(model.seen_images)}",
        f"- classes with prompts: {', '.join(config.class_names) or 'none; the class has no say'}",
        f"- licence of the backbone's weights: {spec.licence}; see NOTICE.md",
        "",
        '    detector = ad_dinov3.load("THIS FOLDER")',
        '    prediction = detector.predict("part.jpg")',
        "",
    ]
    return "\n".join(lines) + more


def _notice(model: Model) -> str:
    spec = model.encoder.spec
    return (
        f"The head in this folder was trained on features of {spec.name}, whose weights are under: {spec.licence}.\n"
        "The weights themselves are not included. Check that your use of the head meets that licence."
    )
