"""What a method is in code: a head that scores features, and the functions that only its own file knows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from ad_dinov3.config import ModelConfig, Settings
from ad_dinov3.encoders.prompts import PromptSet
from ad_dinov3.methods.references import Memory, References
from ad_dinov3.types import Features, ImageEncoder, Scores


class Head(nn.Module):
    """A method on features; its state dict is what is saved of it, trained or baked in."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes whose prompts it holds; empty where the class has no say."""
        return ()

    @abstractmethod
    def score(self, features: Features, class_names: Sequence[str]) -> Scores:
        """Scores of B images whose classes are named (B names)."""


class TrainableHead(Head):
    """A head on frozen features; the parameters that require gradients are the ones to train."""

    @abstractmethod
    def losses(
        self, features: Features, class_names: Sequence[str], masks: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """The weighted terms of the training loss, means over the B images, and their sum as ``total``.

        Args:
            features: of B images.
            class_names: B names.
            masks: (B, H, W) float in [0, 1] at the input's size.
            labels: (B,) bool, which images are listed as anomalous, also where the mask is too small to survive.
        """


H = TypeVar("H", bound=Head)
C = TypeVar("C", bound=Settings)


@dataclass(frozen=True)
class Built(Generic[H]):
    """A method's frozen encoder and its head."""

    encoder: ImageEncoder
    head: H


@dataclass(frozen=True)
class Parts(Generic[C, H]):
    """A method's own functions; C are its settings, H is its head.

    Attributes:
        new: (settings, the model's settings, class name -> words, offline) -> with first values and baked prompts.
        shell: (settings, the model's settings, saved tensors, offline) -> with a head that the tensors can be put into.
        add_prompts: (head, the model's settings, class name -> words, offline) bakes prompts of further classes into a
            head; None: prompts know no classes, or there are none.
        read_authors: (head, tensors, file) puts a checkpoint of the authors' code into a head.
        write_authors: a head as the authors' code saves it: what ``torch.save`` writes and their loader takes.
        memory: (head, features of one normal image, batch by batch) -> what it leaves: levels (N, C) of the method.
        remember: (head, class name, memories of its normal images) lets a head compare with normal images.
        references: what a head remembers.
        shown: (head, normal images (B, 3, H, W) uint8) -> what the encoder is shown of them, such as turned copies;
            None: the images as they are.
        ensemble: (settings) -> what prompts are made of; None: not of sentences, such as learned ones.
        settle: (head, settings) lets a head bake prompts by other settings from now on.
        compare: (head, features of one image of a class after the other) -> scores of all of them, by each other.
    """

    new: Callable[[C, ModelConfig, Mapping[str, str], bool], Built[H]]
    shell: Callable[[C, ModelConfig, Mapping[str, Tensor], bool], Built[H]]
    add_prompts: Callable[[H, ModelConfig, Mapping[str, str], bool], None] | None = None
    read_authors: Callable[[H, Mapping[str, Tensor], str], None] | None = None
    write_authors: Callable[[H], dict[str, object]] | None = None
    memory: Callable[[H, Iterable[Features]], Memory] | None = None
    remember: Callable[[H, str, Sequence[Memory]], None] | None = None
    references: Callable[[H], References] | None = None
    shown: Callable[[H, Tensor], Tensor] | None = None
    ensemble: Callable[[C], PromptSet | None] | None = None
    settle: Callable[[H, C], None] | None = None
    compare: Callable[[H, Iterable[Features]], Scores] | None = None
