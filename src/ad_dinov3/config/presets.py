"""Complete settings by name.

``paper`` is what the paper says, our choice stated where it is silent; ``released`` what the authors' public code does;
``default`` what our ablation in results/ found best; ``embedded`` is for the backbone that comes with the package. The
baselines' are named after their methods. Those named after a training set too differ in what the authors chose for it.
"""

from __future__ import annotations

from ad_dinov3.config.model import ModelConfig

# Where the paper is silent: token standardisation, gains and lambdas follow the released code, since no number in the
# paper can come from other values; the text is normalised because eq. 2 says so; no image term, because eq. 6 has none.
_PAPER = {
    "method.adapter": "bottleneck",
    "method.loss.image": 0.0,
    "method.image_score": "top_patches",
}
_RELEASED = {
    "method.prompts.activation": "gelu",
    "method.prompts.raw_class_names": True,
    "method.text_norm": False,
    "method.text_layout": "interleaved",
    "method.upsample": "logits",
    "method.image_score": "cls",
    "train.optimizer": "adamw",
    "train.learning_rate": 1e-5,
    "train.weight_decay": 1e-2,
    "train.warmup_fraction": 0.03,
    "train.epochs": 100,
    "train.mask_rule": "bilinear_half",
}
# What results/ablation finds best on the embedded backbone; on DINOv3's own it is a proposal until it is measured.
_DEFAULT: dict[str, object] = {
    "method.adapter": "bottleneck",
    "method.rarity": 24,
    "method.fusion": "logits",
    "method.gain": 10.0,
    "method.learned_gain": True,
}
# For the small backbone that comes with the package: no text encoder, a smaller common space and input.
_EMBEDDED = _DEFAULT | {
    "encoder": "lite0",
    "input.height": 256,
    "input.width": 256,
    "method.prompts.source": "learned",
    "method.width": 48,
    "method.surround": 7,
    "method.pooling": (1, 1, 1, 2, 4, 4),
    "method.image_score": "top_patches",
    "method.top_fraction": 0.005,
    "method.loss.resolution": "mid",
    "train.learning_rate": 1e-3,
    "train.batch_size": 16,
}
_CLIP_L = "openai/clip-vit-large-patch14-336"
_CLIP_B_PLUS = "timm/vit_base_patch16_plus_clip_240.laion400m_e31"  # OpenCLIP's ViT-B-16-plus-240
_INPUT_518 = {"encoder": _CLIP_L, "input.height": 518, "input.width": 518, "input.interpolation": "bicubic"}
_ADAM = {"train.optimizer": "adam", "train.learning_rate": 1e-3, "train.betas": (0.5, 0.999), "train.seed": 111}
_APRIL_GAN = {**_INPUT_518, **_ADAM, "method": {"kind": "april_gan"}, "train.batch_size": 8}
_ADACLIP = {
    **_INPUT_518,
    "method": {"kind": "adaclip"},
    "train.optimizer": "adamw",
    "train.learning_rate": 1e-2,
    "train.betas": (0.5, 0.999),
    "train.weight_decay": 1e-2,
    "train.seed": 111,
    "train.epochs": 5,
    "train.batch_size": 1,
}

# What the authors train with. Mosaics of test images of one class are theirs, of the images of one step are ours.
_BASELINES: dict[str, dict[str, object]] = {
    "dinov3_plain": {"method": {"kind": "dinov3_plain"}},
    "winclip": {
        "encoder": _CLIP_B_PLUS,
        "input.height": 240,
        "input.width": 240,
        "input.interpolation": "bicubic",
        "method": {"kind": "winclip"},
    },
    "april_gan": {**_APRIL_GAN, "train.epochs": 15},  # as trained on VisA
    "april_gan_mvtec": {**_APRIL_GAN, "train.epochs": 3, "train.mosaic_share": 0.2},
    "anomalyclip": {
        **_INPUT_518,
        **_ADAM,
        "method": {"kind": "anomalyclip"},
        "train.epochs": 15,
        "train.batch_size": 8,
    },
    "adaclip": _ADACLIP,
    "adaclip_mvtec": {**_ADACLIP, "train.mosaic_share": 0.2},
    "anomalydino": {
        "encoder": "dinov3-vits16",  # the authors' DINOv2 is of this size
        "input.height": 448,
        "input.width": 448,
        "input.interpolation": "bicubic",
        "method": {"kind": "anomalydino"},
    },
    "subspacead": {
        "input.height": 672,
        "input.width": 672,
        "input.interpolation": "bicubic",
        "method": {"kind": "subspacead"},
    },
    "musc": {"input.interpolation": "bicubic", "method": {"kind": "musc"}},
    "uniadet": {
        "input.interpolation": "bicubic",
        "method": {"kind": "uniadet"},
        "train.optimizer": "adamw",
        "train.learning_rate": 1e-3,
        "train.weight_decay": 1e-2,
        "train.last_rate": 0.1,
        "train.epochs": 15,
        "train.batch_size": 8,
    },
    "mahalanobis": {
        "encoder": "pixels",
        "input.height": 256,
        "input.width": 256,
        "method": {"kind": "mahalanobis"},
    },
}
PRESETS = {
    name: ModelConfig().with_settings({"preset": name, **changes})
    for name, changes in {
        "paper": _PAPER,
        "released": _RELEASED,
        "default": _DEFAULT,
        "embedded": _EMBEDDED,
        **_BASELINES,
    }.items()
}
