"""From settings to a rival: its frozen encoder and its head, new or saved, and the prompts of further classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ad_dinov3.config import ModelConfig
from ad_dinov3.config.methods import AdaClipConfig, AnomalyClipConfig, AprilGanConfig, RivalConfig, WinClipConfig
from ad_dinov3.encoders.clip_image import ClipImageEncoder, ClipTaps, LoadedVision, build_clip_vision
from ad_dinov3.encoders.clip_text import ClipTextEncoder, build_clip_text
from ad_dinov3.encoders.clip_text_tower import ClipTextTower
from ad_dinov3.encoders.dinov3 import quarters
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, PromptSet, encode_classes
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods import adaclip, anomalyclip, april_gan, winclip
from ad_dinov3.methods.clip_common import checked_state
from ad_dinov3.weights import load_clip_weights, resolve_weights

RivalHead = winclip.WinClip | april_gan.AprilGan | anomalyclip.AnomalyClip | adaclip.AdaClip
RIVAL_HEADS = (winclip.WinClip, april_gan.AprilGan, anomalyclip.AnomalyClip, adaclip.AdaClip)
FEW_SHOT_HEADS = (winclip.WinClip, april_gan.AprilGan)
"""Those that compare with normal images where they have some."""


@dataclass(frozen=True)
class Rival:
    """A rival's two parts."""

    encoder: ClipImageEncoder
    head: RivalHead


def new_rival(config: ModelConfig, words: Mapping[str, str], *, offline: bool = False) -> Rival:
    """An untrained rival, with the prompts of its classes where it has prompts of classes.

    Args:
        config: one with a rival; its seed decides the head's first values.
        words: class name -> what the class is called where ``class_words`` says ``words``.
        offline: never download.

    Raises:
        WeightsError: the CLIP's weights are not to be had.
        ConfigError: settings that the CLIP cannot meet.
    """
    rival = _rival(config)
    weights = load_clip_weights(resolve_weights(config.encoder, offline=offline), towers="both")
    text = build_clip_text(weights, rival.activation)
    loaded = build_clip_vision(weights, rival.activation, rival.position_resize)
    encoder, stages = _encoder(rival, loaded, config.encoder_stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        head = _new_head(rival, loaded, text, stages)
    _set_words(head, rival, text, words)
    return Rival(encoder, head.eval())


def saved_rival(config: ModelConfig, state: Mapping[str, Tensor], *, offline: bool = False) -> Rival:
    """A rival with the tensors of a saved head; the text tower is only loaded for AdaCLIP, which needs it to score.

    Raises:
        WeightsError: the CLIP's weights are not to be had, or the tensors do not fit the settings.
        ConfigError: settings that the CLIP cannot meet.
    """
    rival = _rival(config)
    if isinstance(rival, AdaClipConfig):
        whole = new_rival(config, {name: name for name in config.class_names}, offline=offline)
        whole.head.load_state_dict(checked_state("saved head", state, whole.head.state_dict()))
        return whole
    weights = load_clip_weights(resolve_weights(config.encoder, offline=offline), towers="both")
    loaded = build_clip_vision(weights, rival.activation, rival.position_resize)
    encoder, _ = _encoder(rival, loaded, config.encoder_stages)
    shared = loaded.vision.text_width
    head: RivalHead
    if isinstance(rival, WinClipConfig):
        head = winclip.WinClip(rival, shared, config.class_names)
    elif isinstance(rival, AprilGanConfig):
        head = april_gan.AprilGan(rival, encoder.spec.widths, shared, config.class_names)
    else:
        if "context" not in state:
            raise WeightsError("saved head: the tensors are not AnomalyCLIP's; context is missing")
        head = anomalyclip.AnomalyClip(rival, state["context"].shape[-1], shared)
    head.load_state_dict(checked_state("saved head", state, head.state_dict()))
    return Rival(encoder, head.eval())


def add_prompts(head: RivalHead, config: ModelConfig, words: Mapping[str, str], *, offline: bool = False) -> None:
    """Give a rival the prompts of further classes; loads the text tower only if there are any.

    Raises:
        WeightsError: there are, and the CLIP's weights are not to be had.
    """
    if isinstance(head, anomalyclip.AnomalyClip):
        return  # its prompts know no classes
    new = {name: said for name, said in words.items() if name not in head.class_names}
    if not new:
        return
    weights = load_clip_weights(resolve_weights(config.encoder, offline=offline))
    _set_words(head, _rival(config), build_clip_text(weights, _rival(config).activation), new)


def load_authors(head: RivalHead, state: Mapping[str, Tensor], origin: str) -> None:
    """Put a checkpoint of the authors' code into a head.

    Raises:
        ConfigError: WinCLIP, which has nothing to load.
        WeightsError: lists the missing, the unknown and the misshapen tensors.
    """
    if isinstance(head, april_gan.AprilGan):
        april_gan.from_authors(head, state, origin)
    elif isinstance(head, anomalyclip.AnomalyClip):
        anomalyclip.from_authors(head, state, origin)
    elif isinstance(head, adaclip.AdaClip):
        adaclip.from_authors(head, state, origin)
    else:
        raise ConfigError("WinCLIP is not trained; there is no checkpoint to load")


def authors_state(head: RivalHead) -> dict[str, object]:
    """A head as the authors' code saves it: what ``torch.save`` writes and their loader takes.

    Raises:
        ConfigError: WinCLIP, which has nothing to save.
    """
    if isinstance(head, april_gan.AprilGan):
        return _nested(april_gan.to_authors(head))
    if isinstance(head, anomalyclip.AnomalyClip):
        return _nested(anomalyclip.to_authors(head))
    if isinstance(head, adaclip.AdaClip):
        return dict(adaclip.to_authors(head))
    raise ConfigError("WinCLIP is not trained; there is no checkpoint to save")


def _rival(config: ModelConfig) -> RivalConfig:
    if config.rival is None:
        raise ConfigError("these are settings of AD-DINOv3; a rival's have a section 'rival'")
    return config.rival


def _encoder(
    rival: RivalConfig, loaded: LoadedVision, chosen: Sequence[int] | None
) -> tuple[ClipImageEncoder, tuple[int, ...]]:
    """The rival's encoder and the stages that its head looks at."""
    vision = loaded.vision
    depth = len(vision.blocks)
    if isinstance(rival, WinClipConfig):
        windows = winclip.ClipWindows(vision, rival)
        settings: dict[str, object] = {"scales": rival.scales, "patch_norm": rival.patch_norm}
        return loaded.encoder(windows, windows.widths, settings), ()
    if isinstance(rival, AnomalyClipConfig):
        stages = tuple(chosen or (depth,))  # the authors' choice since April 2025
        dual = anomalyclip.DualPath(vision, stages, rival)
        settings = {"stages": stages, "dual": dual.first_dual, "cls_norm": rival.cls_norm}
        return loaded.encoder(dual, dual.widths, settings), stages
    stages = tuple(chosen or quarters(depth))
    if isinstance(rival, AdaClipConfig):
        return loaded.encoder(adaclip.ClipStart(vision), (vision.width,), {}), stages
    return loaded.encoder(ClipTaps(vision, stages), (vision.width,) * len(stages), {"stages": stages}), stages


def _new_head(rival: RivalConfig, loaded: LoadedVision, text: ClipTextEncoder, stages: tuple[int, ...]) -> RivalHead:
    vision = loaded.vision
    if isinstance(rival, WinClipConfig):
        return winclip.WinClip(rival, vision.text_width, ())
    if isinstance(rival, AprilGanConfig):
        return april_gan.AprilGan(rival, (vision.width,) * len(stages), vision.text_width, ())
    tower = ClipTextTower(text.module)
    if isinstance(rival, AdaClipConfig):
        return adaclip.AdaClip(rival, vision, tower, stages)
    head = anomalyclip.AnomalyClip(rival, tower.width, vision.text_width, tower)
    positions = tower.position_embedding.weight.shape[0]
    head.set_tokens(anomalyclip.padded_tokens(text.tokenize(anomalyclip.prompt_texts(rival)), positions))
    return head


def _set_words(head: RivalHead, rival: RivalConfig, text: ClipTextEncoder, words: Mapping[str, str]) -> None:
    """Add what a head needs to know of further classes."""
    if isinstance(head, anomalyclip.AnomalyClip) or isinstance(rival, AnomalyClipConfig):
        return
    said = {name: name if rival.class_words == "folder" else spoken for name, spoken in words.items()}
    if isinstance(head, adaclip.AdaClip):
        prompts = adaclip.adaclip_prompts(said)
        new = {name: adaclip.Sentences(*(text.tokenize(side) for side in prompts.sentences(name))) for name in said}
        head.set_sentences(head.sentences | new)
        return
    known = dict(zip(head.class_names, head.prompts.rows.detach().cpu(), strict=True))
    if isinstance(rival, WinClipConfig):
        head.set_prompts(known | winclip.encode_winclip(text, rival, said))
    else:
        head.set_prompts(known | encode_classes(text, _april_gan_prompts(said), tuple(said)))


def _april_gan_prompts(said: Mapping[str, str]) -> PromptSet:
    return PromptSet(DEFAULT_PROMPTS.normal, DEFAULT_PROMPTS.abnormal, DEFAULT_PROMPTS.templates, said)


def _nested(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Names joined by dots as a dictionary in a dictionary: one level, as both checkpoints have it."""
    outer = next(iter(state)).partition(".")[0]
    return {outer: {name.removeprefix(f"{outer}."): tensor for name, tensor in state.items()}}
