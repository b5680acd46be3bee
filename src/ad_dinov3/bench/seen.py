"""The zero-shot rule: what a model or its encoder has seen is not measured on.

What they have seen is written in their folders, so that a refusal needs no model in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ad_dinov3.assets import BACKBONES, EMBEDDED, EMBEDDED_MODEL
from ad_dinov3.data.copies import here
from ad_dinov3.errors import DataError
from ad_dinov3.files import read_seen_images
from ad_dinov3.methods.table import METHODS

_SHIPPED = {EMBEDDED: EMBEDDED_MODEL, **BACKBONES}


@dataclass(frozen=True)
class Seen:
    """What a model has seen, as far as it says.

    Attributes:
        model: what messages call it.
        trained_on: names of its training data.
        encoder_trained_on: names of the data that its encoder was trained on.
        images: sha256 of all these images' files, and of the normal images that it compares with.
    """

    model: str
    trained_on: tuple[str, ...] = ()
    encoder_trained_on: tuple[str, ...] = ()
    images: frozenset[str] = field(default=frozenset(), repr=False)

    def overlap(self, data_name: str, images: Iterable[tuple[Path, str]]) -> str | None:
        """What a data set, and its (file, sha256) pairs, have in common with it, in words; None: nothing."""
        for who, names in ((self.model, self.trained_on), (f"the encoder of {self.model}", self.encoder_trained_on)):
            if data_name.lower() in {name.lower() for name in names}:
                others = ", ".join(name for name in names if name.lower() != data_name.lower())
                return f"{who} was trained on {data_name}{f', and on {others}' if others else ''}"
        known = [path for path, digest in images if digest in self.images] if self.images else []
        if known:
            return (
                f"{len(known)} images of {data_name} are among the training or normal images of {self.model}, such as "
                f"{known[0]}"
            )
        return None


def refuse_seen(overlap: str) -> NoReturn:
    """Refuse data that the model has seen.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"{overlap}; a zero-shot figure needs test data that the model never saw (--seen-too measures them all the "
        "same, and marks every figure)"
    )


def seen_on_disk(method: str | None, model: str, weights: str | None) -> Seen:
    """What the folders of a model and of its encoder say that they have seen; nothing where there is no folder yet.

    Args:
        method: as in ``evaluate --method``; one that borrows an encoder takes the model's, others that
            need no training take nothing from ``embedded``.
        model: ``embedded``, a model's folder or an exported folder; others say nothing before they are downloaded.
        weights: the encoder that is used in place of the model's own.
    """
    row = None if method is None else METHODS[method]
    if row and not row.is_trained and not row.borrows_encoder and model == EMBEDDED:
        return Seen(model)
    folder = _SHIPPED.get(model) or here(model)
    settings = _settings(folder)
    encoder = weights or str(settings.get("encoder", ""))
    place = (_SHIPPED.get(encoder) or here(encoder)) if encoder else None
    known = read_seen_images(place) if place else frozenset()
    if row and row.borrows_encoder:
        settings = {}
    elif not (weights and method):
        known |= read_seen_images(folder)
    return Seen(
        weights if weights and row and row.borrows_encoder else model,
        _names(settings, "trained_on"),
        _names(settings, "encoder_trained_on") or (_names(_settings(place), "trained_on") if place else ()),
        known,
    )


def _settings(folder: Path) -> Mapping[str, object]:
    """config.json of a folder; empty where it cannot be read, which is said when the model is opened."""
    try:
        tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _names(settings: Mapping[str, object], key: str) -> tuple[str, ...]:
    names = settings.get(key)
    return tuple(map(str, names)) if isinstance(names, list) else ()
