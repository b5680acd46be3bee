"""Prompt ensembles as data, and the two embeddings that they give each class: normal and abnormal.

A sentence is a template around a state around the class's words: "a photo of the {}." + "damaged {}" + "metal nut".
"""

from __future__ import annotations

import hashlib
import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ad_dinov3.config import States
from ad_dinov3.config.methods import has_one_place
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import replacing, user_cache
from ad_dinov3.types import TextEncoder, class_words

_LOG = logging.getLogger(__name__)

_ARTICLES = ("a", "the")
_LOOKS = (
    "bad",
    "low resolution",
    "cropped",
    "bright",
    "dark",
    "close-up",
    "black and white",
    "jpeg corrupted",
    "blurry",
    "good",
)
_SIZES = ("", "large ", "small ", "cool ")
_INSPECTION_LOOKS = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")

_NORMAL = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
_ABNORMAL = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")


class Sentences(NamedTuple):
    """What is said of one class: S_n normal and S_a abnormal sentences."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]


@dataclass(frozen=True)
class PromptSet:
    """A prompt ensemble.

    Attributes:
        normal, abnormal: states, each with one ``{}`` for the class's words.
        templates: sentences, each with one ``{}`` for the state.
        class_names: words for a class whose folder name says nothing, such as ``{"01": "metal casting"}``.
        raw_class_names: leave folder names as they are ("metal_nut"), as the released code of AD-DINOv3 does;
            otherwise as `class_words` has it.

    Raises:
        ConfigError: an empty list, or an entry without exactly one ``{}``.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]
    class_names: Mapping[str, str] = field(default_factory=dict)
    raw_class_names: bool = False

    def __post_init__(self) -> None:
        for what, entries in (("normal", self.normal), ("abnormal", self.abnormal), ("templates", self.templates)):
            if not entries:
                raise ConfigError(f"expected at least one entry in {what}")
            for entry in entries:
                if not has_one_place(entry):
                    raise ConfigError(f"expected exactly one {{}} in each entry of {what}, got {entry!r}")

    def saying(self, states: States | None) -> PromptSet:
        """The same templates around other states; None: around the same ones."""
        return self if states is None else replace(self, normal=states.normal, abnormal=states.abnormal)

    def words(self, class_name: str) -> str:
        """What the class is called in a sentence."""
        if class_name in self.class_names:
            return self.class_names[class_name]
        return class_name if self.raw_class_names else class_words(class_name)

    def sentences(self, class_name: str) -> Sentences:
        """Every state in every template, about one class."""
        words = self.words(class_name)
        return Sentences(self._said(self.normal, words), self._said(self.abnormal, words))

    def _said(self, states: tuple[str, ...], words: str) -> tuple[str, ...]:
        return tuple(template.format(state.format(words)) for state in states for template in self.templates)


# APRIL-GAN's ensemble (ByChelsea/VAND-APRIL-GAN), which AD-DINOv3 and AnomalyCLIP's helpers share: 245 + 175 sentences.
DEFAULT_PROMPTS = PromptSet(
    normal=_NORMAL,
    abnormal=_ABNORMAL,
    templates=(
        *(f"a {look} photo of {article} {{}}." for look in _LOOKS for article in _ARTICLES),
        *(f"a photo of {article} {size}{{}}." for size in _SIZES for article in _ARTICLES),
        "a photo of my {}.",
        "a photo of one {}.",
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    ),
)

# AdaCLIP (Cao et al., ECCV 2024): the same states in four templates.
ADACLIP_PROMPTS = PromptSet(
    normal=_NORMAL,
    abnormal=_ABNORMAL,
    templates=(
        "a bad photo of a {}.",
        "a low resolution photo of the {}.",
        "a bad photo of the {}.",
        "a cropped photo of the {}.",
    ),
)

# WinCLIP (Jeong et al., CVPR 2023): 22 templates, no "broken".
WINCLIP_PROMPTS = PromptSet(
    normal=_NORMAL,
    abnormal=tuple(state for state in _ABNORMAL if state != "broken {}"),
    templates=(
        *(f"a {look} photo of {article} {{}}." for look in _INSPECTION_LOOKS for article in _ARTICLES),
        *(f"a photo of {article} {size}{{}}." for size in ("", "small ", "large ") for article in _ARTICLES),
        *(f"a photo of {article} {{}} for visual inspection." for article in _ARTICLES),
        *(f"a photo of {article} {{}} for anomaly detection." for article in _ARTICLES),
    ),
)


def read_prompt_file(path: Path) -> PromptSet:
    """A prompt ensemble from a TOML file; what it leaves out is as in ``DEFAULT_PROMPTS``.

    Its keys: ``templates`` (list), ``[states]`` with ``normal`` and ``abnormal`` (lists), ``[class_names]`` (folder
    name = "words").

    Raises:
        ConfigError: a file that cannot be read or parsed, an unknown key, a value of another form.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    _refuse_unknown(path, "", content, {"templates", "states", "class_names"})
    states = _table(path, "states", content)
    _refuse_unknown(path, "states.", states, {"normal", "abnormal"})
    words = _table(path, "class_names", content)
    if not all(isinstance(value, str) for value in words.values()):
        raise ConfigError(f'{path}: expected [class_names] to be lines of the form folder_name = "words"')
    try:
        return PromptSet(
            normal=_entries(path, "normal", states, DEFAULT_PROMPTS.normal),
            abnormal=_entries(path, "abnormal", states, DEFAULT_PROMPTS.abnormal),
            templates=_entries(path, "templates", content, DEFAULT_PROMPTS.templates),
            class_names={name: str(value) for name, value in words.items()},
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None


def encode_classes(
    encoder: TextEncoder, prompts: PromptSet, class_names: Sequence[str], *, cache_dir: Path | None = None
) -> dict[str, Tensor]:
    """The two embeddings of each class: (2, D) float32 on the CPU, row 0 normal, row 1 abnormal, each of length 1.

    Each sentence's embedding is L2-normalised, the mean over a state's sentences is L2-normalised again (APRIL-GAN).
    Classes that share their words are encoded once, and embeddings are kept in ``cache_dir`` (by default
    ``text_cache_root()``) under the encoder's fingerprint and the sentences.
    """
    folder = text_cache_root() if cache_dir is None else cache_dir
    by_sentences: dict[Sentences, Tensor] = {}
    for sentences in dict.fromkeys(map(prompts.sentences, class_names)):
        key = hashlib.sha256(json.dumps([encoder.fingerprint, *sentences]).encode()).hexdigest()
        cached = folder / f"{key}.safetensors"
        embedding = _read_cached(cached)
        if embedding is None:
            embedding = torch.stack([_ensemble(encoder, said) for said in sentences])
            _write_cached(cached, embedding)
        by_sentences[sentences] = embedding
    return {name: by_sentences[prompts.sentences(name)] for name in class_names}


def text_cache_root() -> Path:
    """Where text embeddings are kept: ad-dinov3/text in the user's cache folder."""
    return user_cache("text")


def _ensemble(encoder: TextEncoder, sentences: Sequence[str]) -> Tensor:
    embeddings = torch.nn.functional.normalize(encoder.encode_sentences(sentences).float(), dim=-1)  # (S, D)
    return torch.nn.functional.normalize(embeddings.mean(0), dim=-1).cpu()


def _read_cached(path: Path) -> Tensor | None:
    try:
        return load_file(path)["embeddings"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        _LOG.warning("%s: unreadable, encoding again (%s)", path, error)
        return None


def _write_cached(path: Path, embedding: Tensor) -> None:
    try:
        with replacing(path) as unfinished:
            save_file({"embeddings": embedding.contiguous()}, unfinished)
    except (OSError, SafetensorError) as error:  # a cache that cannot be written costs time, not the result
        _LOG.warning("%s: cannot be written, going on without (%s)", path, error)


def _refuse_unknown(path: Path, prefix: str, content: Mapping[str, object], known: set[str]) -> None:
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ConfigError(f"{path}: unknown key {prefix}{unknown[0]}; known are {', '.join(sorted(known))}")


def _table(path: Path, key: str, content: Mapping[str, object]) -> Mapping[str, object]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a table [{key}], got {value!r}")
    return value


def _entries(path: Path, key: str, content: Mapping[str, object], default: tuple[str, ...]) -> tuple[str, ...]:
    value = content.get(key, list(default))
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{path}: expected {key} to be a list of strings, got {value!r}")
    return tuple(value)
