"""Every choice behind a model, as frozen values that refuse what they do not know."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError

from ad_dinov3.config.methods import AdDinoV3Config, MethodConfig
from ad_dinov3.config.settings import MAX_SIDE_PX, Settings
from ad_dinov3.config.upgrade import FORMAT_VERSION, upgraded
from ad_dinov3.errors import ConfigError
from ad_dinov3.files import parse_json

S = TypeVar("S", bound=Settings)
_WHOLE = {"states"}  # settings that are given as a whole, and are left out where they are None


class InputConfig(Settings):
    """How an image becomes the encoder's input."""

    height: int = Field(512, ge=16, le=MAX_SIDE_PX, description="height of the input in px")
    width: int = Field(512, ge=16, le=MAX_SIDE_PX, description="width of the input in px")
    interpolation: Literal["bilinear", "bicubic", "bilinear_fast"] = Field(
        "bilinear",
        description="antialiased resize filter: bilinear and bicubic are Pillow's, to the last bit what the authors' "
        "code computes; bilinear_fast is torch's, faster on images of several megapixels, and needs torch",
    )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.height, self.width


class TrainConfig(Settings):
    """The optimiser and its schedule."""

    optimizer: Literal["adam", "adamw"] = Field("adam", description="torch optimiser")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, decoupled for adamw")
    warmup_fraction: float = Field(0.0, ge=0, lt=1, description="share of all steps with linear warm-up from 0")
    last_rate: float = Field(
        1.0, ge=0, le=1, description="learning rate at the end, as a share of the peak's, reached along a cosine"
    )
    epochs: int = Field(10, ge=1, description="passes over the training data; the last epoch is the result")
    batch_size: int = Field(64, ge=1, description="images per step, over all processes")
    seed: int = Field(0, ge=0, description="seed of initialisation, order and augmentation")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 is used on a GPU only: on a CPU without AMX it takes twice as long as fp32"
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of the optimiser's two running means")
    mosaic_share: float = Field(
        0.0, ge=0, le=1, description="share of images replaced by a 2x2 mosaic of the step's own; needs --no-cache"
    )
    augment: bool = Field(False, description="flips, quarter turns, brightness; needs --no-cache")
    mask_rule: Literal["nearest", "bilinear_half", "bilinear_any"] = Field(
        "nearest",
        description="how masks come to the input's size: nearest pixel, or bilinear and cut at half coverage (released "
        "code) or at any (released code on VisA)",
    )


class ModelConfig(Settings):
    """Everything that makes a model, saved beside its weights as config.json."""

    format_version: Literal[2] = Field(FORMAT_VERSION, description="version of this file's layout")
    preset: str = Field("default", description="the preset it started from")
    encoder: str = Field("dinov3-vitl16", description="weights name or path of the image encoder")
    encoder_stages: tuple[int, ...] | None = Field(
        None, description="blocks after which tokens are taken; None: quarters"
    )
    input: InputConfig = InputConfig()
    method: MethodConfig = AdDinoV3Config()
    train: TrainConfig = TrainConfig()
    threshold: float = Field(
        0.5, ge=0, le=1, description="map value and score from which something counts as anomalous"
    )
    smoothing_sigma_px: float = Field(0.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    class_names: tuple[str, ...] = Field((), description="classes whose prompts are baked into the weights")
    trained_on: tuple[str, ...] = Field((), description="names of the training data sets")

    def with_settings(self, changes: Mapping[str, object]) -> Self:
        """A copy with dotted keys changed, such as ``{"method.tokens": "raw"}``.

        Raises:
            ConfigError: a key is unknown or a value is out of range.
        """
        tree = self.model_dump()
        for key, value in changes.items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node.get(parent) or {}
            if leaf not in node and not (node and leaf in _WHOLE):
                near = ", ".join(node) or ", ".join(tree)
                raise ConfigError(f"no setting {key!r}; there are {near}")
            node[leaf] = value
        return validated(type(self), tree, "settings")


def validated(kind: type[S], tree: object, origin: str) -> S:
    """Check a tree of plain values against a settings class.

    Raises:
        ConfigError: names each wrong key, what was expected, and the origin.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        wrong = [": ".join(filter(None, (".".join(_keys(one["loc"], tree)), one["msg"]))) for one in error.errors()]
        raise ConfigError(f"{origin} does not fit {kind.__name__}: {'; '.join(wrong)}") from None


def model_config(tree: object, origin: str) -> ModelConfig:
    """The settings of a saved model, whatever version of the layout they were written in.

    Raises:
        ConfigError: names each wrong key, what was expected, and the origin.
    """
    if not isinstance(tree, Mapping):
        return validated(ModelConfig, tree, origin)
    version = tree.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ConfigError(
            f"{origin}: layout {version} is of a newer ad-dinov3 than this one (layout {FORMAT_VERSION}); update it"
        )
    return validated(ModelConfig, upgraded(tree), origin)


def read_settings(path: Path) -> dict[str, object]:
    """Dotted keys and values of a TOML or JSON settings file; a saved model's config.json is one.

    Raises:
        ConfigError: the file is missing or not TOML or JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("expected an object of settings")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid {path.suffix.lstrip('.') or 'TOML'} ({error})") from None
    return _flatten(upgraded(tree), "")


def _keys(loc: tuple[int | str, ...], tree: object) -> Iterator[str]:
    """Where an error lies, without the names of union members that pydantic puts in between."""
    for part in loc:
        if isinstance(tree, Mapping) and part == tree.get("kind") and part not in tree:
            continue
        yield str(part)
        tree = tree.get(part) if isinstance(tree, Mapping) else None


def _flatten(tree: Mapping[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and key not in _WHOLE:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
