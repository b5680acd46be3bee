"""Settings of the methods: each has its own and nobody else's; the defaults of a published one are its authors' code's.

A field whose wrong value would quietly change the published maps says so: these differences between the systems are
the reason why none of them can be run with another's tower.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ad_dinov3.config.settings import Settings

Activation = Literal["gelu", "quick_gelu"]
PositionResize = Literal["bilinear", "bicubic", "bicubic_antialias"]
ClassWords = Literal["folder", "words"]
LossResolution = Literal["grid", "mid", "full"]
_CLASS_WORDS = "folder: metal_nut as it is, as published; words: metal nut, or what the data set's catalog says"
_MOST_STATES, _LONGEST_STATE = 100, 200
_LOSS_RESOLUTION = "where maps meet masks: patch grid, four times the grid, or the input's size"


State = Annotated[str, Field(min_length=1, max_length=_LONGEST_STATE)]


class States(Settings):
    """How prompts describe a normal and an abnormal part: states such as ``{} with a scratch``.

    Each has one ``{}``, for what the images show.
    """

    normal: tuple[State, ...] = Field(min_length=1, max_length=_MOST_STATES)
    abnormal: tuple[State, ...] = Field(min_length=1, max_length=_MOST_STATES)

    @field_validator("normal", "abnormal")
    @classmethod
    def _have_one_place(cls, states: tuple[str, ...]) -> tuple[str, ...]:
        for state in states:
            if not has_one_place(state):
                raise ValueError(f"expected exactly one {{}} in each state, got {state!r}")
        return states


def has_one_place(sentence: str) -> bool:
    """Whether there is one ``{}`` in a sentence, and no other brace."""
    return (sentence.count("{}"), sentence.count("{"), sentence.count("}")) == (1, 1, 1)


# Left out where it is None, so that the fingerprints of models that are as published stay what they were.
OwnStates = Annotated[
    States | None,
    Field(
        exclude_if=lambda states: states is None,
        description="states in place of the ensemble's, in the method's own templates; None: the ensemble's",
    ),
]


class PromptConfig(Settings):
    """Where the normal and the abnormal embedding come from."""

    source: Literal["clip", "learned"] = Field(
        "clip", description="clip: a prompt ensemble through CLIP's text encoder; learned: two free vectors, no text"
    )
    text_encoder: str = Field("openai/clip-vit-large-patch14-336", description="weights name or path")
    activation: Activation = Field(
        "quick_gelu", description="quick_gelu is what OpenAI trained; the released code runs gelu by accident"
    )
    raw_class_names: bool = Field(
        False, description="folder names as they are ('metal_nut'), as the released code writes them"
    )
    file: str | None = Field(None, description="TOML file with states, templates and class words; None: the built-in")


class LossConfig(Settings):
    """Equations 4-6, and the image term of the released code."""

    cross_modal: float = Field(0.5, ge=0, description="lambda_CM of eq. 6; 0 switches CMCL off")
    aacm: float = Field(0.25, ge=0, description="lambda_AACM of eq. 6; 0 switches AACM off")
    image: float = Field(0.25, ge=0, description="weight of the image-level cross entropy (released code, not paper)")
    over_stages: Literal["mean_map", "per_stage"] = Field(
        "mean_map", description="loss of the stage-averaged map, or the mean of the stages' losses"
    )
    resolution: LossResolution = Field("full", description=_LOSS_RESOLUTION)


class AdDinoV3Config(Settings):
    """AD-DINOv3 (Yuan et al., 2025); equation numbers are the paper's."""

    kind: Literal["ad_dinov3"] = "ad_dinov3"
    prompts: PromptConfig = PromptConfig()
    states: OwnStates = None
    loss: LossConfig = LossConfig()
    width: int = Field(
        768, ge=1, le=16384, description="common space of patches, CLS tokens and text, after the adapters"
    )
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
        le=4096,
        description="channels that an image's patch tokens are projected to and whitened in; their Mahalanobis "
        "distance joins the adapter's input; 0: off (not in the paper)",
    )
    surround: int = Field(
        0,
        ge=0,
        le=4096,
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


class Dinov3PlainConfig(Settings):
    """DINOv3 without training (AD-DINOv3, Table 2, first row): there is nothing to choose."""

    kind: Literal["dinov3_plain"] = "dinov3_plain"


class MahalanobisConfig(Settings):
    """The global RX detector (Reed and Yu, 1990) on filter responses."""

    kind: Literal["mahalanobis"] = "mahalanobis"
    sigma_px: float = Field(3.0, ge=0, le=512, description="Gaussian on the distances, in px of the input")


class WinClipConfig(Settings):
    """WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023), as Accurate-WinCLIP and anomalib rebuilt them."""

    kind: Literal["winclip"] = "winclip"
    activation: Activation = Field("gelu", description="what LAION's ViT-B/16-plus-240 was trained with")
    position_resize: PositionResize = Field("bicubic", description="unused at the native 240 px")
    scales: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (2, 3), min_length=1, max_length=20, description="window sides in patches, at stride 1"
    )
    templates: Literal["released", "paper"] = Field(
        "released",
        description="paper: 22 templates; released: the list of both public rebuilds, where 'a cropped photo of a' is "
        "missing and 'a jpeg corrupted photo of the' stands twice in place of '... of a'",
    )
    states: OwnStates = None
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS)
    normalise_sentences: bool = Field(False, description="L2-normalise each sentence's embedding before their mean")
    temperature: float = Field(0.07, gt=0, description="divides the cosine before the softmax")
    align_corners: bool = Field(False, description="whether the resize of scores to the input aligns corners")
    sigma_px: float = Field(0.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    patch_norm: bool = Field(False, description="final LayerNorm on the patches of the reference memory (anomalib)")


class AprilGanConfig(Settings):
    """APRIL-GAN (Chen et al., VAND 2023)."""

    kind: Literal["april_gan"] = "april_gan"
    activation: Activation = Field("gelu", description="an accident on OpenAI's weights that the checkpoints need")
    position_resize: PositionResize = Field("bicubic_antialias", description="24x24 positions to 37x37")
    states: OwnStates = None
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS)
    gain: float = Field(100.0, gt=0, description="factor on the cosine before the softmax")
    upsample: Literal["logits", "probabilities"] = Field("logits", description="what is interpolated")
    align_corners: bool = Field(True, description="whether the bilinear resize aligns corners")
    sigma_px: float = Field(0.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    loss_resolution: LossResolution = Field("full", description=_LOSS_RESOLUTION)


class AnomalyClipConfig(Settings):
    """AnomalyCLIP (Zhou et al., ICLR 2024)."""

    kind: Literal["anomalyclip"] = "anomalyclip"
    activation: Activation = Field("quick_gelu", description="what OpenAI's weights were trained with")
    position_resize: PositionResize = Field("bilinear", description="24x24 positions to 37x37")
    dpam_blocks: int = Field(19, ge=1, le=1000, description="last blocks with a v-v path; all, where there are fewer")
    prompt_length: int = Field(12, ge=1, le=1000, description="learned tokens before the word")
    deep_length: int = Field(
        4, ge=1, le=1000, description="learned tokens that replace positions 1.. inside the text tower"
    )
    deep_depth: int = Field(
        9, ge=1, le=1000, description="text blocks with learned tokens; the first has the prompt itself"
    )
    half_prompts: bool = Field(True, description="round deep prompts to float16 on their way in, as released")
    cls_norm: bool = Field(False, description="final LayerNorm on the CLS token; the authors leave it out")
    temperature: float = Field(0.07, gt=0, description="divides the cosine before the softmax")
    upsample: Literal["probabilities", "logits"] = Field("probabilities", description="what is interpolated")
    align_corners: bool = Field(False, description="whether the bilinear resize aligns corners")
    sigma_px: float = Field(4.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    map_weight: float = Field(4.0, gt=0, description="the factor lam of the map losses")
    loss_resolution: LossResolution = Field("full", description=_LOSS_RESOLUTION)


class AdaClipConfig(Settings):
    """AdaCLIP (Cao et al., ECCV 2024)."""

    kind: Literal["adaclip"] = "adaclip"
    activation: Activation = Field("gelu", description="an accident on OpenAI's weights that the checkpoints need")
    position_resize: PositionResize = Field("bicubic", description="24x24 positions to 37x37, without antialiasing")
    states: OwnStates = None
    class_words: ClassWords = Field("folder", description=_CLASS_WORDS + "; hyphens become spaces in both")
    prompt_length: int = Field(5, ge=1, le=1000, description="learned tokens per prompted block")
    prompt_depth: int = Field(4, ge=1, le=1000, description="prompted blocks of both towers")
    half_prompts: bool = Field(True, description="round prompts to float16 on their way in, as released")
    gain: float = Field(100.0, gt=0, description="factor on the cosine before the softmax")
    merge: Literal["logits", "probabilities"] = Field(
        "logits", description="what is averaged over the stages at test; training uses each stage's probabilities"
    )
    align_corners: bool = Field(True, description="of the bilinear resize of logits")
    sigma_px: float = Field(4.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    clusters: int = Field(20, ge=1, le=1000, description="k of the k-means over the most abnormal patches")
    cluster_patches: int = Field(100, ge=1, le=1000, description="how many of the most abnormal patches are clustered")
    cluster_weight: float = Field(0.2, ge=0, le=1, description="share of the clusters in the image embedding")
    cluster_seed: int = Field(111, ge=0, description="of the k-means, for every image anew; the released code has none")
    loss_resolution: LossResolution = Field("full", description=_LOSS_RESOLUTION)


class AnomalyDinoConfig(Settings):
    """AnomalyDINO (Damm et al., WACV 2025), few-shot."""

    kind: Literal["anomalydino"] = "anomalydino"
    rotations: int = Field(
        8, ge=1, le=360, description="copies of each normal image, evenly turned over the circle; 1: the image alone"
    )
    sigma_px: float = Field(4.0, ge=0, le=512, description="Gaussian on the map, in px of the input")
    top_fraction: float = Field(0.01, gt=0, le=1, description="share of the patches that the image score averages")


class SubspaceAdConfig(Settings):
    """SubspaceAD (CVPR 2026), few-shot."""

    kind: Literal["subspacead"] = "subspacead"
    energy: float = Field(0.99, gt=0, le=1, description="share of the normal tokens' variance that the subspace holds")
    copies: int = Field(30, ge=0, le=360, description="copies of each normal image, turned by random angles")
    seed: int = Field(0, ge=0, description="of the angles")
    top_fraction: float = Field(0.01, gt=0, le=1, description="share of the map that the image score averages")


class MuScConfig(Settings):
    """MuSc (Li et al., ICLR 2024)."""

    kind: Literal["musc"] = "musc"
    neighbourhoods: tuple[Annotated[int, Field(ge=1, le=99)], ...] = Field(
        (1, 3, 5), min_length=1, max_length=20, description="odd sides, in patches, of the windows that are averaged"
    )
    windows: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (1, 2, 3), min_length=1, max_length=20, description="images whose scores are averaged into one, itself first"
    )

    @field_validator("neighbourhoods")
    @classmethod
    def _are_odd(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(side % 2 == 0 for side in sides):
            raise ValueError("expected odd sides, such as 1,3,5")
        return sides


class UniADetConfig(Settings):
    """UniADet (2026)."""

    kind: Literal["uniadet"] = "uniadet"
    temperature: float = Field(0.07, gt=0, description="divides the cosine before the softmax")
    loss_resolution: LossResolution = Field("full", description=_LOSS_RESOLUTION)


MethodConfig = Annotated[
    AdDinoV3Config
    | Dinov3PlainConfig
    | WinClipConfig
    | AprilGanConfig
    | AnomalyClipConfig
    | AdaClipConfig
    | AnomalyDinoConfig
    | SubspaceAdConfig
    | MuScConfig
    | UniADetConfig
    | MahalanobisConfig,
    Field(discriminator="kind"),
]
"""The settings of one method; ``kind`` says of which."""
