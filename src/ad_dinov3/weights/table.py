"""The public models as rows: every name that a person may know a model by, and what its tensors must look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["vit", "convnext", "efficientnet_lite"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SATELLITE_MEAN = (0.430, 0.411, 0.296)
SATELLITE_STD = (0.213, 0.156, 0.143)

DINOV3_LICENCE = "DINOv3 License"
DINOV3_LICENCE_URL = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"
META_FORM_URL = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"
OWN_LICENCE = "Apache-2.0"

NANO = "nano"  # our own small ConvNeXt
LITE = "lite0"  # EfficientNet-Lite0, pretrained on ImageNet


@dataclass(frozen=True)
class PublicBackbone:
    """One public DINOv3 backbone.

    Attributes:
        name: our name for it, such as ``dinov3-vitl16``.
        hf_id: its gated repository on Hugging Face.
        timm_id: timm's mirror on Hugging Face.
        meta_file: the file that Meta's download links give; the part after ``-`` begins its sha256.
        kind: ``vit`` or ``convnext``.
        widths: channels of the tokens (ViT, one number) or of each stage (ConvNeXt).
        depths: number of blocks (ViT, one number) or of each stage's layers (ConvNeXt).
        heads: attention heads; 0 for a ConvNeXt.
        hidden: width inside the MLP; 0 for a ConvNeXt, where it is four times the stage's.
        mean, std: the image statistics that the model was trained with.
    """

    name: str
    hf_id: str
    timm_id: str
    meta_file: str
    kind: Kind
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: int = 0
    hidden: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def registers(self) -> int:
        """Register tokens between the CLS token and the patches: 4 in every public ViT."""
        return 4 if self.kind == "vit" else 0

    @property
    def gated(self) -> bool:
        """Whether the MLPs are SwiGLU, as in the plus sizes and the 7B; S and S+ differ in nothing else."""
        return "plus" in self.name or "7b" in self.name

    @property
    def meta_hash(self) -> str:
        """The first eight hex digits of the sha256 of Meta's file, as its name carries them."""
        return self.meta_file.removesuffix(".pth").rpartition("-")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that this model may be asked for by."""
        short = self.name.removeprefix("dinov3-")
        meta_stem = self.meta_file.removesuffix(".pth")
        return (self.name, short, self.hf_id, self.hf_id.partition("/")[2], self.timm_id, self.meta_file, meta_stem)


def _vit(name: str, hash8: str, timm: str, shape: tuple[int, int, int, int], data: str = "lvd1689m") -> PublicBackbone:
    width, depth, heads, hidden = shape
    satellite = data == "sat493m"
    return PublicBackbone(
        name=f"dinov3-{name}-sat" if satellite else f"dinov3-{name}",
        hf_id=f"facebook/dinov3-{name}-pretrain-{data}",
        timm_id=f"timm/vit_{timm}_patch16_dinov3.{data}",
        meta_file=f"dinov3_{name}_pretrain_{data}-{hash8}.pth",
        kind="vit",
        widths=(width,),
        depths=(depth,),
        heads=heads,
        hidden=hidden,
        mean=SATELLITE_MEAN if satellite else IMAGENET_MEAN,
        std=SATELLITE_STD if satellite else IMAGENET_STD,
    )


def _convnext(size: str, hash8: str, width: int, third: int) -> PublicBackbone:
    return PublicBackbone(
        name=f"dinov3-convnext-{size}",
        hf_id=f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m",
        timm_id=f"timm/convnext_{size}.dinov3_lvd1689m",
        meta_file=f"dinov3_convnext_{size}_pretrain_lvd1689m-{hash8}.pth",
        kind="convnext",
        widths=(width, 2 * width, 4 * width, 8 * width),
        depths=(3, 3, third, 3),
    )


# name, Meta's hash, timm's size, (width, depth, heads, width inside the MLP)
PUBLIC_BACKBONES = (
    _vit("vits16", "08c60483", "small", (384, 12, 6, 1536)),
    _vit("vits16plus", "4057cbaa", "small_plus", (384, 12, 6, 1536)),
    _vit("vitb16", "73cec8be", "base", (768, 12, 12, 3072)),
    _vit("vitl16", "8aa4cbdd", "large", (1024, 24, 16, 4096)),
    _vit("vith16plus", "7c1da9a5", "huge_plus", (1280, 32, 20, 5120)),
    _vit("vit7b16", "a955f4ea", "7b", (4096, 40, 32, 8192)),
    _convnext("tiny", "21b726bb", 96, 9),
    _convnext("small", "296db49d", 96, 27),
    _convnext("base", "801f2ba9", 128, 27),
    _convnext("large", "61fa432d", 192, 27),
    _vit("vitl16", "eadcf0ff", "large", (1024, 24, 16, 4096), "sat493m"),
    _vit("vit7b16", "a6675841", "7b", (4096, 40, 32, 8192), "sat493m"),
)


def find_backbone(name: str) -> PublicBackbone | None:
    """The public backbone of a name (ours, Hugging Face's, timm's, Meta's file), or None."""
    return next((row for row in PUBLIC_BACKBONES if name in row.names), None)


@dataclass(frozen=True)
class PublicClip:
    """One public CLIP.

    Attributes:
        name: our name for it.
        hf_id: its repository on Hugging Face.
        openai_file: OpenAI's own file, a TorchScript archive.
        openai_sha256: what that file's sha256 is, from the address it is published at.
    """

    name: str
    hf_id: str
    openai_file: str
    openai_sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that this model may be asked for by."""
        return (self.name, self.hf_id, self.hf_id.partition("/")[2], self.openai_file)


PUBLIC_CLIPS = (
    PublicClip(
        "clip-vit-l14-336",
        "openai/clip-vit-large-patch14-336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    PublicClip(
        "clip-vit-l14",
        "openai/clip-vit-large-patch14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
)


def find_clip(name: str) -> PublicClip | None:
    """The public CLIP of a name, or None."""
    return next((row for row in PUBLIC_CLIPS if name in row.names), None)
