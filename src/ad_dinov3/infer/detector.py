"""The detector: one object that turns images into predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.config import ModelConfig
from ad_dinov3.data.pixels import ImageSource, as_rgb
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.files import file_hash
from ad_dinov3.infer.decide import DecisionRule, smooth
from ad_dinov3.infer.prediction import Prediction, predict_images
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.methods.ad_dinov3 import DEFAULT_CLASS
from ad_dinov3.model import Model, load_model, normal_classes, save_model, with_normals, with_prompts


class Detector:
    """A model behind an interface of images.

    Args:
        model: as `ad_dinov3.model` makes or loads it.
        device: a torch device.
        offline: never download, not even a text encoder for a class without baked prompts.
    """

    def __init__(self, model: Model, *, device: str = "cpu", offline: bool = False) -> None:
        self.model = model.to(device)
        self.offline = offline

    @classmethod
    def from_pretrained(cls, where: str | Path = EMBEDDED, *, device: str = "cpu", offline: bool = False) -> Detector:
        """A saved model: ``embedded``, a folder, or a repository id of the Hugging Face hub.

        Raises:
            WeightsError: a file is missing or does not fit; the message names it and the ways to get it.
        """
        return cls(load_model(where, device=device, offline=offline), device=device, offline=offline)

    def remember(self, images: Sequence[ImageSource], class_name: str = DEFAULT_CLASS) -> None:
        """Compare images of a class with these normal ones from now on, as WinCLIP+ and few-shot APRIL-GAN do.

        They take the place of earlier ones of that class, and are kept by `save_pretrained`.

        Args:
            images: of any kind that `data.pixels.as_rgb` takes; a few are enough.
            class_name: what they show, as `predict` will be told.

        Raises:
            ConfigError: the model's method has no memory, or there are no images.
            ImageError: a file cannot be decoded.
        """
        inputs = [torch.from_numpy(self.prepare(as_rgb(image))) for image in images]
        batch = torch.stack(inputs) if inputs else torch.empty(0, 3, *self.config.input.size, dtype=torch.uint8)
        files = [Path(image) for image in images if isinstance(image, str | Path)]
        hashes = [file_hash(file) for file in files]
        self.model = with_normals(self.model, class_name, batch, hashes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, head.safetensors, normal images' tokens, model card and notice; never the backbone."""
        save_model(self.model, Path(folder))

    def push_to_hub(self, repo_id: str, folder: str | Path, *, private: bool = False) -> str:
        """Save to a folder and upload it to the Hugging Face hub; the commit's address."""
        from huggingface_hub import HfApi  # slow to import

        self.save_pretrained(folder)
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))

    @property
    def config(self) -> ModelConfig:
        """Every choice behind the model."""
        return self.model.config

    @property
    def method(self) -> str:
        """What ``--method`` calls the model's method."""
        return self.config.method_name

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """Classes that it has normal images of."""
        return normal_classes(self.model)

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal maps."""
        return self.model.fingerprint

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The model's input (3, h, w) uint8 of an image (H, W, 3) uint8 RGB."""
        return resize_image(image, self.config.input.size, self.config.input.interpolation)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names).

        Raises:
            WeightsError: a class is new and the text encoder's weights are not to be had.
        """
        self.model = with_prompts(self.model, class_names, offline=self.offline)
        scores = self.model.score(torch.from_numpy(batch), class_names)
        maps = scores.patch_map.float().cpu().numpy()
        sigma = self.config.smoothing_sigma_px / batch.shape[2]
        return RawScores(smooth(maps, sigma), scores.image_score.float().cpu().numpy())

    def predict(self, image: ImageSource, class_name: str = DEFAULT_CLASS) -> Prediction:
        """The prediction for one image.

        Args:
            image: of any kind that `data.pixels.as_rgb` takes: a file, bytes, a PIL image, an array, a torch tensor.
            class_name: what it shows, such as ``metal_nut``; matters only for models with text prompts.

        Raises:
            ImageError: the file cannot be decoded.
            ShapeError: the array or tensor has another shape or type.
            ScoreError: the model answers with NaN, infinity or a value outside [0, 1].
        """
        return self.predict_batch([image], class_name)[0]

    def predict_batch(self, images: Sequence[ImageSource], class_name: str = DEFAULT_CLASS) -> list[Prediction]:
        """Predictions for images of any sizes, scored in one batch; arguments and errors as in `predict`."""
        return predict_images(self, images, DecisionRule(self.config.threshold), class_name)

    def predict_iter(
        self, images: Iterable[ImageSource], class_name: str = DEFAULT_CLASS, batch_size: int = 8
    ) -> Iterator[Prediction]:
        """Predictions one by one, in order, for any number of images; memory holds one batch."""
        stream = iter(images)
        while batch := list(islice(stream, batch_size)):
            yield from self.predict_batch(batch, class_name)
