"""The methods, one row each: what commands, model, bench and export know of a method, they know from here.

A row is light. The method's own functions are ``PARTS`` in the file of its name beside this one, which is imported with
torch and the networks when `parts_of` asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ad_dinov3.config import PRESETS, AdDinoV3Config, ModelConfig, Settings
from ad_dinov3.config.methods import (
    AdaClipConfig,
    AnomalyClipConfig,
    AnomalyDinoConfig,
    AprilGanConfig,
    Dinov3PlainConfig,
    MahalanobisConfig,
    MuScConfig,
    SubspaceAdConfig,
    UniADetConfig,
    WinClipConfig,
)
from ad_dinov3.errors import ConfigError

if TYPE_CHECKING:
    from ad_dinov3.methods.head import Parts


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        title: what people call it.
        settings: the class of its settings, whose ``kind`` is its name.
        preset: the preset that it starts from.
        is_trained: it must be trained before it scores; the others are ready.
        authors_preset: the preset that a checkpoint of its authors is opened with; None: there are no such checkpoints.
        remembers: it compares with normal images in a way of its own.
        calibrates: the normal images that it remembers calibrate it, each left out in turn.
        compares_folders: it scores the images of a folder by each other, and none by itself.
        tells_tokens: its features are those of a backbone's stages, by which images can be compared.
        borrows_encoder: it has no encoder of its own, and runs on that of any model.
        no_graph: why it cannot be exported; None: `ad_dinov3.export` has its graph.
        weights: names of all weights that a model of it needs.
        says_states: the prompts of a model with these settings are sentences that name normal and abnormal states.
    """

    title: str
    settings: type[Settings]
    preset: str
    is_trained: bool = True
    authors_preset: str | None = None
    remembers: bool = False
    calibrates: bool = False
    compares_folders: bool = False
    tells_tokens: bool = True
    borrows_encoder: bool = False
    no_graph: str | None = None
    weights: Callable[[ModelConfig], tuple[str, ...]] = lambda config: (config.encoder,)
    says_states: Callable[[ModelConfig], bool] = lambda config: False


def _ad_dinov3_weights(config: ModelConfig) -> tuple[str, ...]:
    settings = config.method
    if isinstance(settings, AdDinoV3Config) and _reads_clip(config):
        return config.encoder, settings.prompts.text_encoder
    return (config.encoder,)


def _reads_clip(config: ModelConfig) -> bool:
    return isinstance(config.method, AdDinoV3Config) and config.method.prompts.source == "clip"


def _always(config: ModelConfig) -> bool:
    return True


METHODS: dict[str, Row] = {
    "ad_dinov3": Row(
        "AD-DINOv3",
        AdDinoV3Config,
        "default",
        authors_preset="released",
        weights=_ad_dinov3_weights,
        says_states=_reads_clip,
    ),
    "dinov3_plain": Row(
        "DINOv3 tokens, untrained",
        Dinov3PlainConfig,
        "dinov3_plain",
        is_trained=False,
        borrows_encoder=True,
    ),
    "winclip": Row("WinCLIP", WinClipConfig, "winclip", is_trained=False, remembers=True, says_states=_always),
    "april_gan": Row(
        "APRIL-GAN",
        AprilGanConfig,
        "april_gan",
        authors_preset="april_gan",
        remembers=True,
        says_states=_always,
    ),
    "anomalyclip": Row("AnomalyCLIP", AnomalyClipConfig, "anomalyclip", authors_preset="anomalyclip"),
    "adaclip": Row(
        "AdaCLIP",
        AdaClipConfig,
        "adaclip",
        authors_preset="adaclip",
        tells_tokens=False,  # its prompts enter the backbone itself: its features are what the first block takes
        no_graph="its sentences pass through the text tower with every image, and its image score rests on a k-means "
        "that goes on until it settles; run it with torch",
        says_states=_always,
    ),
    "anomalydino": Row(
        "AnomalyDINO",
        AnomalyDinoConfig,
        "anomalydino",
        is_trained=False,
        remembers=True,
        calibrates=True,
        borrows_encoder=True,
        no_graph="it is nothing without the normal images that it remembers, and a graph holds none; run it with torch",
    ),
    "subspacead": Row(
        "SubspaceAD",
        SubspaceAdConfig,
        "subspacead",
        is_trained=False,
        remembers=True,
        calibrates=True,
        borrows_encoder=True,
        no_graph="it is nothing without the normal images that it remembers, and a graph holds none; run it with torch",
    ),
    "musc": Row(
        "MuSc",
        MuScConfig,
        "musc",
        is_trained=False,
        compares_folders=True,
        borrows_encoder=True,
        no_graph="it looks at all images of a folder at once, and a graph at one; run it with torch",
    ),
    "uniadet": Row(
        "UniADet",
        UniADetConfig,
        "uniadet",
        remembers=True,
        calibrates=True,
        no_graph="no graph of it has been written; run it with torch",
    ),
    "mahalanobis": Row(
        "Mahalanobis distance of filter responses",
        MahalanobisConfig,
        "mahalanobis",
        is_trained=False,
        tells_tokens=False,
        no_graph="it is computed by numpy and scipy; run it as it is",
        weights=lambda config: (),
    ),
}
"""What ``--method`` calls a method -> the method."""


def method_row(name: str) -> Row:
    """A method by its name.

    Raises:
        ConfigError: there is no such method; the message lists them.
    """
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def incomparable(name: str) -> str:
    """Why a method cannot compare images with normal ones; empty: it can."""
    row = METHODS[name]
    return "" if row.remembers or row.tells_tokens else f"{row.title} has no tokens by which images can be compared"


def check_comparable(name: str) -> None:
    """Refuse normal images for a method that cannot compare with any.

    Raises:
        ConfigError: this one cannot.
    """
    if reason := incomparable(name):
        raise ConfigError(reason)


def borrowing(name: str, lender: ModelConfig) -> ModelConfig:
    """Settings of a method that runs on the encoder and the input of another model."""
    shared = {"encoder": lender.encoder, "encoder_stages": lender.encoder_stages, "input": lender.input}
    return PRESETS[METHODS[name].preset].model_copy(update=shared)


def parts_of(name: str) -> Parts[Any, Any]:
    """A method's own functions; each takes the settings and the head of this very method."""
    parts: Parts[Any, Any] = import_module(f"ad_dinov3.methods.{name}").PARTS
    return parts


def names_of(which: Callable[[Row], object]) -> str:
    """The methods that something holds for, as a sentence lists them: "winclip and april_gan"."""
    names = [name for name, row in METHODS.items() if which(row)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
