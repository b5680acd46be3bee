"""The detector: one object that turns images into predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ad_dinov3.assets import EMBEDDED
from ad_dinov3.config import ModelConfig, States, validated
from ad_dinov3.config.model import InputConfig
from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.data.transforms import resize_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import ALL_OF_IT, read_areas, write_areas
from ad_dinov3.infer.compared import (
    Answer,
    FolderRule,
    calibrated,
    calibration,
    card_of,
    load_references,
    remembered,
    save_references,
    scorer_of,
    threshold_of,
    with_class,
)
from ad_dinov3.infer.decide import DecisionRule, smooth
from ad_dinov3.infer.good_images import check_unseen, distinct, file_hashes
from ad_dinov3.infer.prediction import Prediction
from ad_dinov3.infer.predictions import Predictions, predict_images, predict_stream
from ad_dinov3.infer.scorer import RawScores, Scorer, described
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.methods.table import METHODS, parts_of
from ad_dinov3.model import (
    Model,
    load_model,
    memory_of,
    normal_classes,
    save_model,
    states_of,
    with_memories,
    with_prompts,
    with_states,
)
from ad_dinov3.references.calibration import References
from ad_dinov3.references.conformal import strictest_promise
from ad_dinov3.references.tokens import comparison_tokens, seeded_projection
from ad_dinov3.types import DEFAULT_CLASS, Features
from ad_dinov3.weights.saved import saved_folder


class Detector:
    """A model behind an interface of images.

    Args:
        model: as `ad_dinov3.model` makes or loads it.
        device: a torch device.
        offline: never download, not even a text encoder for a class without baked prompts.
    """

    def __init__(self, model: Model, *, device: str = "cpu", offline: bool = False) -> None:
        self.model = model.to(device)
        self.device = device
        self._prompted = self.model  # with the prompts of all classes that were asked for
        self.offline = offline
        self.references = References()
        self.areas = ALL_OF_IT

    @classmethod
    def from_pretrained(cls, where: str | Path = EMBEDDED, *, device: str = "cpu", offline: bool = False) -> Detector:
        """A saved model: ``embedded``, a folder, or a repository id of the Hugging Face hub.

        Raises:
            WeightsError: a file is missing or does not fit; the message names it and the ways to get it.
        """
        detector = cls(load_model(where, device=device, offline=offline), device=device, offline=offline)
        folder = saved_folder(where, offline=True)
        detector.references = load_references(folder)
        detector.areas = read_areas(folder) or ALL_OF_IT
        return detector

    def remember(
        self, images: Sequence[ImageSource], class_name: str = DEFAULT_CLASS, view: View = WHOLE
    ) -> str | None:
        """Compare images of a class with these normal ones from now on, which take the place of earlier ones.

        Methods with a memory of their own do it as their papers say, WinCLIP and APRIL-GAN without a promise. Every
        other method joins its own map with the distance from what it remembers. But for these two, a model is
        calibrated by the normal images themselves: 0.5 becomes the threshold. `save_pretrained` keeps all of it.

        Args:
            images: of any kind that `data.pixels.as_rgb` takes; one is enough, ten are better.
            class_name: what they show, as `predict` will be told.
            view: how images will be looked at.

        Returns:
            What is promised of false alarms, in words; None if nothing is.

        Raises:
            ConfigError: there are no images, or the method has no tokens by which images can be compared.
            ImageError: a file cannot be decoded.
        """
        if METHODS[self.method].remembers:
            self._remember_in_head(images, class_name)
            return self.references.promises.get(class_name)
        self._hold(with_prompts(self.model, [class_name], offline=self.offline))
        found = remembered(self, distinct(images), class_name, view)
        self.references = with_class(self.references, found)
        self._note(images)
        return found.promises.get(class_name)

    @property
    def states(self) -> States | None:
        """The states that the model's prompts name, each with one ``{}``; None where prompts are no sentences."""
        return states_of(self.model)

    def with_states(self, normal: Sequence[str], abnormal: Sequence[str]) -> Detector:
        """A detector whose prompts name other states, in the method's own templates; this one stays as it is.

        `save_pretrained` of the new one keeps the states.

        Args:
            normal: such as ``flawless {}``; ``{}`` stands for what an image shows.
            abnormal: such as ``{} with a scratch``.

        Raises:
            ConfigError: the model's prompts are no sentences, a state has not exactly one ``{}``, or the model is
                calibrated with its present states.
            WeightsError: the text encoder's weights are not found; the message says how to get them.
        """
        if not self.references.is_empty:
            raise ConfigError(
                "the model was calibrated by good images under its present states; choose the states of the model "
                "without good images, and let the new one remember them"
            )
        states = validated(States, {"normal": tuple(normal), "abnormal": tuple(abnormal)}, "states")
        made = copy(self)
        made._hold(with_states(self.model, states, offline=self.offline))
        return made

    def calibrate(
        self, images: Sequence[ImageSource], false_alarms: float, class_name: str = DEFAULT_CLASS, view: View = WHOLE
    ) -> str:
        """Put the threshold, which becomes 0.5, where good images say that a share of good ones will be flagged.

        Args:
            images: good ones that the model has not seen.
            false_alarms: the share, such as 0.05.
            class_name: what they show.
            view: how images will be looked at.

        Returns:
            What is promised, in words.

        Raises:
            ConfigError: so few images cannot promise the share, or the model has seen one of them.
        """
        check_unseen(images, self.model.seen_images)
        self._hold(with_prompts(self.model, [class_name], offline=self.offline))
        self.references = calibrated(self, self.references, distinct(images), class_name, false_alarms, view)
        self._note(images)
        return self.references.promises[class_name]

    def _remember_in_head(self, images: Sequence[ImageSource], class_name: str) -> None:
        plain = self.model
        inputs = [self.prepare(image) for image in distinct(images)]
        memories = [memory_of(plain, torch.from_numpy(one)) for one in inputs]
        found = {name: one for name, one in self.references.calibrations.items() if name != class_name}
        if METHODS[self.method].calibrates and len(inputs) > 1:
            left_out = []
            for index, one in enumerate(inputs):
                self._hold(with_memories(plain, class_name, memories[:index] + memories[index + 1 :]))
                left_out.append(self.zero_shot(one[None], [class_name]))
            found[class_name] = calibration(left_out, strictest_promise(len(inputs)))
        self._hold(with_memories(plain, class_name, memories))
        self.references = References(calibrations=found)
        self._note(images)

    def _note(self, images: Sequence[ImageSource]) -> None:
        """Let nobody measure the model on these images."""
        self._hold(replace(self.model, training_images=self.model.training_images | file_hashes(images)))

    def _hold(self, model: Model) -> None:
        self.model = self._prompted = model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model's folder, with what it knows of normal images; never the backbone."""
        save_model(self.model, Path(folder), card_of(self.references))
        save_references(self.references, Path(folder))
        write_areas(Path(folder), self.areas)

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
        return self.config.method.kind

    @property
    def calls_at_once(self) -> int:
        """1: torch keeps the processor busy with one call of `score`."""
        return 1

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """Classes that it has normal images of."""
        return normal_classes(self.model) or tuple(self.references.known)

    @property
    def promises(self) -> dict[str, str]:
        """What is promised of false alarms, in words, for each class that is calibrated."""
        return self.references.promises

    @property
    def own_threshold(self) -> float:
        """Where the decision on zero-shot scores lies."""
        return self.config.threshold

    @property
    def threshold(self) -> float:
        """Where the decision lies: 0.5 once the model knows good images."""
        return threshold_of(self, self.references)

    @property
    def input(self) -> InputConfig:
        """What the model takes."""
        return self.config.input

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal maps."""
        return "-".join(filter(None, (self.model.fingerprint, self.references.fingerprint)))

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The model's input (3, h, w) uint8 of an image (H, W, 3) uint8 RGB."""
        return resize_image(image, self.config.input.size, self.config.input.interpolation)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Raw scores of B inputs (B, 3, h, w) uint8 whose classes are named (B names).

        Raises:
            WeightsError: a class is new and the text encoder's weights are not found.
            ConfigError: the model compares with normal images and has none of a class.
        """
        return scorer_of(self, self.references).score(batch, class_names)

    def seen_through(self, view: View) -> Scorer:
        """What scores images with all that is known of good ones, looking in a certain way.

        Raises:
            ConfigError: the model has looked at its good images in another way, or the view cannot be.
        """
        return self if view == WHOLE else scorer_of(self, self.references, view)

    def zero_shot(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        """Scores of inputs on their own, whatever is known of good ones; arguments and errors as in `score`."""
        return self._scores(self._features(batch, class_names), batch, class_names)

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer:
        """The same, with the comparison tokens.

        Raises:
            ConfigError: the method's features are not comparable.
        """
        if not METHODS[self.method].tells_tokens:
            raise ConfigError(f"{METHODS[self.method].title} has no tokens by which images can be compared")
        features = self._features(batch, class_names)
        stages = [stage.float().cpu().numpy() for stage in features.patch_tokens]
        projection = seeded_projection(sum(stage.shape[-1] for stage in stages))
        return Answer(self._scores(features, batch, class_names), comparison_tokens(stages, projection=projection))

    @property
    def folder_rule(self) -> FolderRule | None:
        """How the method itself compares the images of a folder; None: they are compared by their tokens."""
        compare = parts_of(self.method).compare
        if compare is None:
            return None
        encode, head, sigma = self.model.encoder.encode, self.model.head, self.config.smoothing_sigma_px

        def rule(inputs: Sequence[NDArray[np.uint8]]) -> RawScores:
            scores = compare(head, (encode(torch.from_numpy(one[None])) for one in inputs))
            maps = smooth(scores.patch_map.float().cpu().numpy(), sigma / inputs[0].shape[1])
            return RawScores(maps, scores.image_score.float().cpu().numpy())

        return rule

    def _features(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Features:
        self._prompted = with_prompts(self._prompted, class_names, offline=self.offline)
        return self.model.encoder.encode(torch.from_numpy(batch))

    def _scores(self, features: Features, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        scores = self._prompted.head.score(features, class_names)
        maps = scores.patch_map.float().cpu().numpy()
        sigma = self.config.smoothing_sigma_px / batch.shape[2]
        return RawScores(smooth(maps, sigma), scores.image_score.float().cpu().numpy())

    def predict(self, image: ImageSource, class_name: str = DEFAULT_CLASS) -> Prediction:
        """The prediction for one image.

        Args:
            image: anything that `data.pixels.as_rgb` takes: a file, bytes, a PIL image, an array, a torch tensor.
            class_name: what it shows, such as ``metal_nut``; matters only for models with text prompts.

        Raises:
            ImageError: the file cannot be decoded.
            ShapeError: the array or tensor has another shape or type.
            ScoreError: the model answers with NaN, infinity or a value outside [0, 1].
        """
        return self.predict_batch([image], class_name)[0]

    def predict_batch(self, images: Sequence[ImageSource], class_name: str = DEFAULT_CLASS) -> Predictions:
        """Predictions for images of any sizes, scored in one batch; arguments and errors as in `predict`."""
        return predict_images(self, images, DecisionRule(self.threshold, areas=self.areas), class_name)

    def predict_many(
        self,
        images: Iterable[ImageSource],
        class_name: str = DEFAULT_CLASS,
        batch_size: int = 8,
        progress: bool = False,
    ) -> Iterator[Prediction]:
        """Predictions one by one, in order, for any number of images; memory holds one batch.

        Args:
            images: as in `predict`.
            class_name: what they show.
            batch_size: how many are scored at once.
            progress: show a bar, in a terminal or a notebook.
        """
        return predict_stream(self, images, class_name, batch_size, progress)

    def __repr__(self) -> str:
        return described(self, self.config.encoder, self.config.input.size)
