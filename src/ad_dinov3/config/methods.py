"""Settings of the four systems that the paper compares with; the defaults are what their authors' code does.

A field whose wrong value would quietly change the published maps says so: these differences between the systems are
the reason why none of them can be run with another's tower. Towers, prompts and words are the rival's own: the
sections ``prompts``, ``method`` and ``loss`` of a model's settings are AD-DINOv3's and have no say here, but for
``loss.resolution``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ad_dinov3.config.settings import Settings

Activation = Literal["gelu", "quick_gelu"]
PositionResize = Literal["bilinear", "bicubic", "bicubic_antialias"]
ClassWords = Literal["folder", "words"]
_CLASS_WORDS = "folder: metal_nut as it is, as published; words: metal nut, or what the data set's catalog says"


class WinClipConfig(Settings):
    """WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023), as Accurate-WinCLIP and anomalib rebuilt them."""

    kind: Literal["winclip"] = "winclip"
    activation: Activation = Field("gelu", description="what LAION's ViT-B/16-plus-240 was trained with")
    position_resize: PositionResize = Field("bicubic", description="unused at the native 240 px")
    scales: tuple[int, ...] = Field((2, 3), min_length=1, description="window sides in patches, at stride 1")
    templates: Literal["released", "paper"] = Field(
        "released",
        description="paper: 22 templates; released: the list of both public rebuilds, where 'a cropped photo of a' is "
        "missing and 'a jpeg corrupted photo of the' stands twice in place of '... of a'",
    )
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS)
    normalise_sentences: bool = Field(False, description="L2-normalise each sentence's embedding before their mean")
    temperature: float = Field(0.07, gt=0, description="divides the cosine before the softmax")
    align_corners: bool = Field(False, description="of the bilinear resize of scores to the input's size")
    sigma_px: float = Field(0.0, ge=0, description="Gaussian on the map, in px of the input")
    patch_norm: bool = Field(False, description="final LayerNorm on the patches of the reference memory (anomalib)")


class AprilGanConfig(Settings):
    """APRIL-GAN (Chen et al., VAND 2023)."""

    kind: Literal["april_gan"] = "april_gan"
    activation: Activation = Field("gelu", description="an accident on OpenAI's weights that the checkpoints need")
    position_resize: PositionResize = Field("bicubic_antialias", description="24x24 positions to 37x37")
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS)
    gain: float = Field(100.0, gt=0, description="factor on the cosine before the softmax")
    upsample: Literal["logits", "probabilities"] = Field("logits", description="what is interpolated")
    align_corners: bool = Field(True, description="of the bilinear resize")
    sigma_px: float = Field(0.0, ge=0, description="Gaussian on the map, in px of the input")


class AnomalyClipConfig(Settings):
    """AnomalyCLIP (Zhou et al., ICLR 2024)."""

    kind: Literal["anomalyclip"] = "anomalyclip"
    activation: Activation = Field("quick_gelu", description="what OpenAI's weights were trained with")
    position_resize: PositionResize = Field("bilinear", description="24x24 positions to 37x37")
    dpam_blocks: int = Field(19, ge=1, description="last blocks with a v-v path; all, where there are fewer")
    prompt_length: int = Field(12, ge=1, description="learned tokens before the word")
    deep_length: int = Field(4, ge=1, description="learned tokens that replace positions 1.. inside the text tower")
    deep_depth: int = Field(9, ge=1, description="text blocks with learned tokens; the first has the prompt itself")
    half_prompts: bool = Field(True, description="round deep prompts to float16 on their way in, as released")
    cls_norm: bool = Field(False, description="final LayerNorm on the CLS token; the authors leave it out")
    temperature: float = Field(0.07, gt=0, description="divides the cosine before the softmax")
    upsample: Literal["probabilities", "logits"] = Field("probabilities", description="what is interpolated")
    align_corners: bool = Field(False, description="of the bilinear resize")
    sigma_px: float = Field(4.0, ge=0, description="Gaussian on the map, in px of the input")
    map_weight: float = Field(4.0, gt=0, description="the factor lam of the map losses")


class AdaClipConfig(Settings):
    """AdaCLIP (Cao et al., ECCV 2024)."""

    kind: Literal["adaclip"] = "adaclip"
    activation: Activation = Field("gelu", description="an accident on OpenAI's weights that the checkpoints need")
    position_resize: PositionResize = Field("bicubic", description="24x24 positions to 37x37, without antialiasing")
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS + "; hyphens become spaces in both")
    prompt_length: int = Field(5, ge=1, description="learned tokens per prompted block")
    prompt_depth: int = Field(4, ge=1, description="prompted blocks of both towers")
    half_prompts: bool = Field(True, description="round prompts to float16 on their way in, as released")
    gain: float = Field(100.0, gt=0, description="factor on the cosine before the softmax")
    merge: Literal["logits", "probabilities"] = Field(
        "logits", description="what is averaged over the stages at test; training uses each stage's probabilities"
    )
    align_corners: bool = Field(True, description="of the bilinear resize of logits")
    sigma_px: float = Field(4.0, ge=0, description="Gaussian on the map, in px of the input")
    clusters: int = Field(20, ge=1, description="k of the k-means over the most abnormal patches")
    cluster_patches: int = Field(100, ge=1, description="how many of the most abnormal patches are clustered")
    cluster_weight: float = Field(0.2, ge=0, le=1, description="share of the clusters in the image embedding")
    cluster_seed: int = Field(111, ge=0, description="of the k-means, for every image anew; the released code has none")


RivalConfig = Annotated[WinClipConfig | AprilGanConfig | AnomalyClipConfig | AdaClipConfig, Field(discriminator="kind")]

_CLIP_L = "openai/clip-vit-large-patch14-336"
_CLIP_B_PLUS = "timm/vit_base_patch16_plus_clip_240.laion400m_e31"  # OpenCLIP's ViT-B-16-plus-240
_INPUT_518 = {"encoder": _CLIP_L, "input.height": 518, "input.width": 518, "input.interpolation": "bicubic"}
_ADAM = {"train.optimizer": "adam", "train.learning_rate": 1e-3, "train.betas": (0.5, 0.999), "train.seed": 111}
_APRIL_GAN = {**_INPUT_518, **_ADAM, "rival": {"kind": "april_gan"}, "train.batch_size": 8}
_ADACLIP = {
    **_INPUT_518,
    "rival": {"kind": "adaclip"},
    "train.optimizer": "adamw",
    "train.learning_rate": 1e-2,
    "train.betas": (0.5, 0.999),
    "train.weight_decay": 1e-2,
    "train.seed": 111,
    "train.epochs": 5,
    "train.batch_size": 1,
}

# What the authors train with, as changes to the common settings. Those named after a training set differ in what the
# authors chose for it; mosaics of test images of one class are theirs, of the images of one step are ours.
RIVAL_PRESETS: dict[str, dict[str, object]] = {
    "winclip": {
        "encoder": _CLIP_B_PLUS,
        "input.height": 240,
        "input.width": 240,
        "input.interpolation": "bicubic",
        "rival": {"kind": "winclip"},
    },
    "april_gan": {**_APRIL_GAN, "train.epochs": 15},  # as trained on VisA
    "april_gan_mvtec": {**_APRIL_GAN, "train.epochs": 3, "train.mosaic_share": 0.2},
    "anomalyclip": {
        **_INPUT_518,
        **_ADAM,
        "rival": {"kind": "anomalyclip"},
        "train.epochs": 15,
        "train.batch_size": 8,
    },
    "adaclip": _ADACLIP,
    "adaclip_mvtec": {**_ADACLIP, "train.mosaic_share": 0.2},
}
