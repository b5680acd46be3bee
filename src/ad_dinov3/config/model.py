"""Every choice behind a model, as frozen values that refuse what they do not know."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError

from ad_dinov3.config.methods import RivalConfig
from ad_dinov3.config.settings import Settings
from ad_dinov3.errors import ConfigError

S = TypeVar("S", bound=Settings)


METHOD_TITLES = {
    "ad_dinov3": "AD-DINOv3",
    "dinov3_plain": "DINOv3 tokens, untrained",
    "winclip": "WinCLIP",
    "april_gan": "APRIL-GAN",
    "anomalyclip": "AnomalyCLIP",
    "adaclip": "AdaCLIP",
}
"""What ``--method`` calls a method -> what people call it."""


class InputConfig(Settings):
    """How an image becomes the encoder's input."""

    height: int = Field(512, ge=16, description="height of the input in px")
    width: int = Field(512, ge=16, description="width of the input in px")
    interpolation: Literal["bilinear", "bicubic", "bilinear_fast"] = Field(
        "bilinear",
        description="antialiased resize filter: bilinear and bicubic are Pillow's, to the last bit what the authors' "
        "code computes; bilinear_fast is torch's, faster on images of several megapixels, and needs torch",
    )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.height, self.width


class PromptConfig(Settings):
    """Where the normal and the abnormal embedding come from."""

    source: Literal["clip", "learned"] = Field(
        "clip", description="clip: a prompt ensemble through CLIP's text encoder; learned: two free vectors, no text"
    )
    text_encoder: str = Field("openai/clip-vit-large-patch14-336", description="weights name or path")
    activation: Literal["gelu", "quick_gelu"] = Field(
        "quick_gelu", description="quick_gelu is what OpenAI trained; the released code runs gelu by accident"
    )
    raw_class_names: bool = Field(
        False, description="folder names as they are ('metal_nut'), as the released code writes them"
    )
    file: str | None = Field(None, description="TOML file with states, templates and class words; None: the built-in")


class MethodConfig(Settings):
    """The switches of AD-DINOv3's head; equation numbers are the paper's."""

    width: int = Field(768, ge=1, description="common space of patches, CLS tokens and text, after the adapters")
    adapter: Literal["linear", "bottleneck"] = Field(
        "linear", description="eq. 1: linear = LeakyReLU(W1 x); bottleneck = LeakyReLU(W2 LeakyReLU(W1 x))"
    )
    residual: float = Field(0.0, ge=0, description="weight of a skip around each adapter (not in the paper)")
    stages: Literal["all", "last"] = Field("all", description="Table 3: all encoder stages, or the last alone")
    tokens: Literal["raw", "standardise", "whiten"] = Field(
        "standardise",
        description="patch tokens per image: as they are, per channel to mean 0 and deviation 1, "
        "or whitened by their covariance (not in the paper)",
    )
    rarity: int = Field(
        0,
        ge=0,
        description="channels that an image's patch tokens are projected to and whitened in; their Mahalanobis "
        "distance joins the adapter's input; 0: off (not in the paper)",
    )
    surround: int = Field(
        0,
        ge=0,
        description="side in cells of the window whose mean is taken from each token; the difference joins the "
        "adapter's input; 0: off, else odd (not in the paper)",
    )
    pooling: tuple[int, ...] = Field(
        (),
        description="for each stage, cells per side whose tokens are averaged into one before its adapter: what a "
        "coarse stage gained by being enlarged to the common grid; empty: none (not in the paper)",
    )
    text_norm: bool = Field(True, description="eq. 2 divides by the text's norm; the released code does not")
    text_layout: Literal["columns", "interleaved"] = Field(
        "columns", description="interleaved repeats the reshape by which the released code mixes its two text vectors"
    )
    gain: float = Field(100.0, gt=0, description="factor on the cosine of eq. 2 before the softmax")
    learned_gain: bool = Field(False, description="train a gain and a bias for each stage, from `gain` and 0 on")
    fusion: Literal["probabilities", "logits"] = Field(
        "probabilities", description="mean over the stages: of probabilities (paper), or of logits (not in the paper)"
    )
    aacm_gain: float = Field(10.0, gt=0, description="factor on the cosine of eq. 3 before sigma")
    aacm_sigma: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="sigma of eq. 4: sigmoid per patch, or softmax over patches scaled to a maximum of 1"
    )
    upsample: Literal["probabilities", "logits"] = Field(
        "probabilities",
        description="what is interpolated: abnormal probabilities (paper), or logits to the input's "
        "size before the softmax, corners aligned (released code)",
    )
    image_score: Literal["cls", "top_patches", "both"] = Field(
        "both", description="image score: CLS head, mean of the highest patches, or the mean of the two"
    )
    score_offset: float = Field(
        0.0, description="taken from the logit of the image score, so that one threshold serves score and map"
    )
    top_fraction: float = Field(0.01, gt=0, le=1, description="share of the map averaged by top_patches")


class LossConfig(Settings):
    """Equations 4-6, and the image term of the released code."""

    cross_modal: float = Field(0.5, ge=0, description="lambda_CM of eq. 6; 0 switches CMCL off")
    aacm: float = Field(0.25, ge=0, description="lambda_AACM of eq. 6; 0 switches AACM off")
    image: float = Field(0.25, ge=0, description="weight of the image-level cross entropy (released code, not paper)")
    over_stages: Literal["mean_map", "per_stage"] = Field(
        "mean_map", description="loss of the stage-averaged map, or the mean of the stages' losses"
    )
    resolution: Literal["grid", "mid", "full"] = Field(
        "full", description="where maps meet masks: patch grid, four times the grid, or the input's size"
    )


class TrainConfig(Settings):
    """The optimiser and its schedule."""

    optimizer: Literal["adam", "adamw"] = Field("adam", description="torch optimiser")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled for adamw")
    warmup_fraction: float = Field(0.0, ge=0, lt=1, description="share of all steps with linear warm-up from 0")
    epochs: int = Field(10, ge=1, description="passes over the training data; the last epoch is the result")
    batch_size: int = Field(64, ge=1, description="images per step, over all processes")
    seed: int = Field(0, ge=0, description="seed of initialisation, order and augmentation")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 is used on a GPU only: on a CPU without AMX it takes twice as long as fp32"
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="of the optimiser's two running means")
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

    format_version: Literal[1] = Field(1, description="version of this file's layout")
    preset: str = Field("default", description="the preset it started from")
    encoder: str = Field("dinov3-vitl16", description="weights name or path of the image encoder")
    encoder_stages: tuple[int, ...] | None = Field(
        None, description="blocks after which tokens are taken; None: quarters"
    )
    input: InputConfig = InputConfig()
    prompts: PromptConfig = PromptConfig()
    method: MethodConfig = MethodConfig()
    rival: RivalConfig | None = Field(None, description="one of the systems compared with; None: AD-DINOv3")
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    threshold: float = Field(
        0.5, ge=0, le=1, description="map value and score from which something counts as anomalous"
    )
    smoothing_sigma_px: float = Field(0.0, ge=0, description="Gaussian on the map, in px of the input")
    class_names: tuple[str, ...] = Field((), description="classes whose prompts are baked into the weights")
    trained_on: tuple[str, ...] = Field((), description="names of the training data sets")

    @property
    def method_name(self) -> str:
        """What ``--method`` calls it; a key of `METHOD_TITLES`."""
        if self.rival is not None:
            return self.rival.kind
        return "dinov3_plain" if self.preset == "dinov3_plain" else "ad_dinov3"

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
            if leaf not in node:
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
        lines = [f"  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{origin} does not fit {kind.__name__}:\n" + "\n".join(lines)) from None


def read_settings(path: Path) -> dict[str, object]:
    """Dotted keys and values of a TOML or JSON settings file.

    Raises:
        ConfigError: the file is missing or not TOML or JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid {path.suffix.lstrip('.') or 'TOML'} ({error})") from None
    return _flatten(tree, "")


def _flatten(tree: Mapping[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
