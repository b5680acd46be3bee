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

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ad_dinov3.assets import EMBEDDED, EMBEDDED_MODEL
from ad_dinov3.config import METHOD_TITLES, PRESETS, ModelConfig, validated
from ad_dinov3.encoders.dinov3 import load_dinov3
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, display_name, encode_classes, read_prompt_file
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.files import read_seen_images, replacing, write_seen_images, write_text
from ad_dinov3.methods.ad_dinov3 import DEFAULT_CLASS, AdDinoV3
from ad_dinov3.methods.adaclip import AdaClip
from ad_dinov3.methods.dinov3_plain import Dinov3Plain
from ad_dinov3.methods.rivals import FEW_SHOT_HEADS, RIVAL_HEADS, add_prompts, load_authors, new_rival, saved_rival
from ad_dinov3.types import Features, ImageEncoder, Method, Scores
from ad_dinov3.weights import read_tensors

_ENCODE_BATCH = 8
_CONFIG, _HEAD, _MEMORY, _CARD, _NOTICE = (
    "config.json",
    "head.safetensors",
    "memory.safetensors",
    "README.md",
    "NOTICE.md",
)


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
    head: Method
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
        if isinstance(self.head, nn.Module):
            for name, tensor in sorted((self.head.state_dict() | _memory(self.head)).items()):
                digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def to(self, device: str) -> Model:
        """The same model on another device."""
        if isinstance(self.head, nn.Module):
            self.head.to(device)
        return replace(self, encoder=self.encoder.to(device))


def new_model(config: ModelConfig, words: Mapping[str, str] | None = None, *, offline: bool = False) -> Model:
    """An untrained model, with the prompts of its classes encoded.

    Args:
        config: every choice; its seed decides the adapters' first values.
        words: class name -> what the class is called in a sentence; the class ``object`` is always there.
        offline: never download.

    Raises:
        WeightsError: the encoder's or the text encoder's weights are not to be had.
        ConfigError: settings that the encoder cannot meet.
    """
    words = {**(words or {}), DEFAULT_CLASS: DEFAULT_CLASS}
    if config.rival is not None:
        rival = new_rival(config, words, offline=offline)
        return Model(config.model_copy(update={"class_names": tuple(words)}), rival.encoder, rival.head)
    encoder = load_dinov3(config.encoder, stages=config.encoder_stages, offline=offline)
    learned = config.prompts.source == "learned"
    text = {} if learned else _encode(config, words, offline)
    width = config.method.width if learned else next(iter(text.values())).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        head = AdDinoV3(config.method, encoder.spec.widths, width, tuple(words), learned)
    if text:
        head.set_prompts(text)
    return Model(config.model_copy(update={"class_names": tuple(text)}), encoder, head)


def plain_model(encoder_name: str, config: ModelConfig, *, offline: bool = False) -> Model:
    """The untrained baseline of Table 2 on any encoder.

    Raises:
        WeightsError: the encoder's weights are not to be had.
    """
    encoder = load_dinov3(encoder_name, offline=offline)
    return Model(config.model_copy(update={"preset": "dinov3_plain", "encoder": encoder_name}), encoder, Dinov3Plain())


def open_method(method: str | None, model: str, weights: str | None = None, *, offline: bool = False) -> Model:
    """A model of a named method.

    Args:
        method: a key of ``config.METHOD_TITLES``; None: whatever the model's folder is of.
        model: ``embedded``, a model's folder or a hub repository; for a rival also a checkpoint file of its authors'
            code. WinCLIP is not trained and needs none; ``dinov3_plain`` takes encoder and input from it.
        weights: the encoder of what does not come from a model's folder, a rival or ``dinov3_plain``: name, folder or
            file; by default its own.
        offline: never download.

    Raises:
        ConfigError: the model is of another method, a method that must be trained came without a model, or weights
            for what holds its own.
        WeightsError: files are missing or do not fit.
    """
    if method not in (None, *METHOD_TITLES):
        raise ConfigError(f"no method {method!r}; there are {', '.join(METHOD_TITLES)}")
    if method == "dinov3_plain":
        config = ModelConfig() if weights else load_model(model, offline=offline).config
        return plain_model(weights or config.encoder, config, offline=offline)
    if method in (None, "ad_dinov3") or Path(model).is_dir():
        if weights:
            raise ConfigError(f"--weights {weights}: {model} names its own encoder; it takes none")
        opened = load_model(model, offline=offline)
        if method not in (None, opened.config.method_name):
            raise ConfigError(f"{model} is a model of {opened.config.method_name}, not of {method}")
        return opened
    config = PRESETS[method].with_settings({"encoder": weights} if weights else {})
    if method == "winclip" and model == EMBEDDED:
        return new_model(config, offline=offline)
    if not Path(model).is_file():
        raise ConfigError(
            f"{method} must be trained: expected a model's folder or a checkpoint of its authors, got {model!r}; "
            f"train one with `ad-dinov3 train --method {method} --data ... --out DIR`"
        )
    opened = new_model(config, offline=offline)
    if isinstance(opened.head, RIVAL_HEADS):
        load_authors(opened.head, read_tensors(Path(model)), model)
    return opened


def with_prompts(model: Model, class_names: Sequence[str], *, offline: bool = False) -> Model:
    """The same model with the prompts of further classes baked in; loads the text encoder only if one is missing.

    Raises:
        WeightsError: a class is new and the text encoder's weights are not to be had.
    """
    head = model.head
    if isinstance(head, RIVAL_HEADS):
        add_prompts(head, model.config, {name: display_name(name) for name in class_names}, offline=offline)
        names = tuple(dict.fromkeys((*model.config.class_names, *class_names)))
        return replace(model, config=model.config.model_copy(update={"class_names": names}))
    if not isinstance(head, AdDinoV3) or head.learned_prompts:
        return model
    new = {name: display_name(name) for name in class_names if name not in head.class_names}
    if not new:
        return model
    known = dict(zip(head.class_names, head.prompts.detach(), strict=True))
    device = head.prompts.device
    head.set_prompts(known | {name: row.to(device) for name, row in _encode(model.config, new, offline).items()})
    return replace(model, config=model.config.model_copy(update={"class_names": head.class_names}))


def with_normals(model: Model, class_name: str, images: Tensor, hashes: Sequence[str] = ()) -> Model:
    """The same model, comparing images of one class with normal ones from now on (WinCLIP+, few-shot APRIL-GAN).

    The head remembers them in place of earlier ones of that class; `save_model` keeps them.

    Args:
        model: of a method with a memory.
        class_name: what the images show.
        images: (K, 3, H, W) uint8 at the size of the images to come.
        hashes: sha256 of their files, so that nobody measures the model on them.

    Raises:
        ConfigError: the method has no memory, or there are no images.
        ShapeError: H or W is not a multiple of the encoder's step.
    """
    if not isinstance(model.head, FEW_SHOT_HEADS):
        raise ConfigError(f"{type(model.head).__name__} has no memory for normal images; winclip and april_gan have")
    if not len(images):
        raise ConfigError(f"{class_name}: no normal images to remember")
    parts = [model.encoder.encode(batch) for batch in torch.split(images, _ENCODE_BATCH)]
    patches = tuple(torch.cat(stage) for stage in zip(*(part.patch_tokens for part in parts), strict=True))
    cls = tuple(torch.cat(stage) for stage in zip(*(part.cls_tokens for part in parts), strict=True))
    model.head.remember(class_name, Features(patches, cls, parts[0].image_size))
    return replace(model, training_images=model.training_images | frozenset(hashes))


def tells_tokens(model: Model) -> bool:
    """Whether the model's features are those of a backbone's stages, by which images can be compared.

    AdaCLIP's prompts enter the backbone itself, and its features are what the first block takes.
    """
    return not isinstance(model.head, AdaClip)


def has_own_memory(model: Model) -> bool:
    """Whether the method compares with normal images in a way of its own: WinCLIP+, few-shot APRIL-GAN."""
    return isinstance(model.head, FEW_SHOT_HEADS)


def normal_classes(model: Model) -> tuple[str, ...]:
    """Classes that the model has normal images of; empty for most."""
    return model.head.references.class_names if isinstance(model.head, FEW_SHOT_HEADS) else ()


def save_model(model: Model, folder: Path, card: str = "") -> None:
    """Write the model's folder; each file is written beside and then renamed, config.json as the last.

    A folder that is cut short does not load, so none loads without the list of the images that it has seen.

    Args:
        model: one with a trained head.
        folder: made if missing.
        card: Markdown that goes below the generated part of the model card, such as measured figures.

    Raises:
        WeightsError: the model has no trained head.
    """
    if not isinstance(model.head, nn.Module):
        raise WeightsError(f"{folder}: {model.config.preset} has no trained head to save")
    folder.mkdir(parents=True, exist_ok=True)
    withdraw_model(folder)
    write_seen_images(folder, model.training_images)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    with replacing(folder / _HEAD) as unfinished:
        save_file(state, unfinished)
    memory = _memory(model.head)
    if memory:
        with replacing(folder / _MEMORY) as unfinished:
            save_file(memory, unfinished)
    else:
        (folder / _MEMORY).unlink(missing_ok=True)
    write_text(folder / _CARD, _model_card(model, card))
    write_text(folder / _NOTICE, _notice(model))
    write_text(folder / _CONFIG, model.config.model_dump_json(indent=2))


def withdraw_model(folder: Path) -> None:
    """Make a folder that does not load until `save_model` has written all of it, whatever it holds."""
    (folder / _CONFIG).unlink(missing_ok=True)


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
    try:
        tree = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / _HEAD)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder}: not a saved model ({error}); expected {_CONFIG} and {_HEAD}") from None
    config = validated(ModelConfig, tree, str(folder / _CONFIG))
    seen = read_seen_images(folder)
    if config.rival is not None:
        rival = saved_rival(config, state, offline=offline)
        if (folder / _MEMORY).is_file():
            _restore_memory(rival.head, folder / _MEMORY)
        return Model(config, rival.encoder, rival.head, seen).to(device)
    encoder = load_dinov3(config.encoder, stages=config.encoder_stages, offline=offline)
    head = AdDinoV3(
        config.method,
        encoder.spec.widths,
        state["prompts"].shape[-1],
        config.class_names or (DEFAULT_CLASS,),
        config.prompts.source == "learned",
    )
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{folder / _HEAD}: does not fit {_CONFIG}: {error}") from None
    return Model(config, encoder, head.eval(), seen).to(device)


def _memory(head: Method) -> dict[str, Tensor]:
    """What a head remembers of normal images; empty for most."""
    return head.references.tensors() if isinstance(head, FEW_SHOT_HEADS) else {}


def _restore_memory(head: Method, file: Path) -> None:
    if not isinstance(head, FEW_SHOT_HEADS):
        raise WeightsError(f"{file}: {type(head).__name__} has no memory for normal images; remove the file")
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); remember the normal images again") from None
    head.references.restore(tensors, str(file))


def saved_folder(where: str | Path, *, offline: bool = False) -> Path:
    """The folder of a model: the embedded one, one here, or one of the Hugging Face hub.

    Raises:
        WeightsError: there is no such model.
    """
    if str(where) == EMBEDDED:
        return EMBEDDED_MODEL
    if Path(where).is_dir():
        return Path(where)
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(where), local_files_only=offline))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{where}: no such model: not a folder here, not {EMBEDDED!r}, and not on the Hugging Face hub ({reason})"
        ) from None


def _encode(config: ModelConfig, words: Mapping[str, str], offline: bool) -> dict[str, Tensor]:
    from ad_dinov3.encoders.clip_text import load_clip_text  # takes a second, and known prompts do not need it

    prompts = read_prompt_file(Path(config.prompts.file)) if config.prompts.file else DEFAULT_PROMPTS
    raw = config.prompts.raw_class_names
    said = prompts.class_names if raw else {**words, **prompts.class_names}
    prompts = replace(prompts, class_names=said, raw_class_names=raw)
    encoder = load_clip_text(config.prompts.text_encoder, activation=config.prompts.activation, offline=offline)
    return encode_classes(encoder, prompts, tuple(words))


def _model_card(model: Model, more: str) -> str:
    config, spec = model.config, model.encoder.spec
    lines = [
        "---",
        "library_name: ad-dinov3",
        "pipeline_tag: image-segmentation",
        f"tags: [anomaly-detection, zero-shot, {config.method_name}]",
        "---",
        "",
        f"# {METHOD_TITLES[config.method_name]} head on {spec.name}",
        "",
        "Adapters and baked prompts for zero-shot anomaly detection; the frozen backbone is not part of this folder.",
        "",
        f"- preset: {config.preset}; input {config.input.height}x{config.input.width} px",
        f"- trained on: {', '.join(config.trained_on) or 'nothing'}",
        f"- compares with normal images of: {', '.join(normal_classes(model)) or 'no class'}",
        f"- images seen, not to be measured on: {len(model.seen_images)}",
        f"- classes with prompts: {', '.join(config.class_names) or 'one learned pair for all'}",
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
