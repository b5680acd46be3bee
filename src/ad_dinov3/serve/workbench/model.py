"""The model behind a workbench: opened when it is first needed, asked by one thread at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.config import States
from ad_dinov3.data.pixels import ImageSource
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.compared import Answer
from ad_dinov3.infer.opening import UNKNOWN, Abilities
from ad_dinov3.infer.scorer import RawScores, Scorer
from ad_dinov3.infer.views import WHOLE, View
from ad_dinov3.references.tokens import Floats


class Teachable(Protocol):
    """What the workbench needs of a detector or an exported session."""

    areas: Areas

    @property
    def method(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    @property
    def normal_classes(self) -> tuple[str, ...]: ...

    @property
    def promises(self) -> dict[str, str]: ...

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

    def answer(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> Answer: ...

    def remember(self, images: Sequence[ImageSource], class_name: str, view: View = ...) -> str | None: ...

    def seen_through(self, view: View) -> Scorer: ...

    def save_pretrained(self, folder: str | Path) -> None: ...

    @property
    def states(self) -> States | None: ...

    def with_states(self, normal: Sequence[str], abnormal: Sequence[str]) -> Teachable: ...


class BenchModel:
    """A model by its name, and what becomes of it with good images.

    Args:
        name: what the user called it.
        opener: opens it.
        view: how it looks at images.
        abilities: what it can do beside scoring.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Teachable],
        view: View = WHOLE,
        abilities: Abilities = UNKNOWN,
    ) -> None:
        self.name = name
        self.view = view
        self.abilities = abilities
        self._opener = opener
        self._opening = Lock()
        self._opened: Teachable | None = None
        self._wording = Lock()
        self._worded: tuple[States, Teachable] | None = None
        self._asking = RLock()

    def plain(self) -> Teachable:
        """The model as it was opened.

        Raises:
            AdDinoError: it cannot be opened.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self._opener()
            return self._opened

    def taught(self, good: Mapping[str, Sequence[Path]], states: States | None = None) -> Teachable:
        """The same model, comparing with good images, by class, and with prompts that name ``states``.

        `plain` stays as it is.

        Raises:
            ConfigError: it cannot compare images, or takes no such states.
            WeightsError: the text encoder that states need is not found.
            ImageError: a file cannot be decoded.
        """
        plain = self.plain() if states is None else self._saying(states)
        model = copy.copy(plain)  # what changes in a model is replaced, never altered
        for class_name, paths in good.items():
            model.remember(paths, class_name, self.view)
        return model

    def _saying(self, states: States) -> Teachable:
        """The model with other states; the last one is kept, as one image is tried before all are scored."""
        with self._wording:
            if self._worded is None or self._worded[0] != states:
                self._worded = states, self.plain().with_states(states.normal, states.abnormal)
            return self._worded[1]

    def tokens(self, image: NDArray[np.uint8], class_name: str) -> Floats:
        """Comparison tokens (h, w, D) of an image (H, W, 3) uint8 RGB.

        Raises:
            ConfigError: the model does not tell them.
        """
        model = self.plain()
        prepared = model.prepare(image)[None]
        with self._asking:
            tokens: Floats = model.answer(prepared, [class_name]).tokens[0]
        return tokens

    def scorer_of(self, model: Teachable) -> Scorer:
        """What scores images with `plain` or one that is `taught`, while nobody else asks it."""
        return _InTurn(model.seen_through(self.view), self._asking)

    def fingerprint_of(self, model: Teachable) -> str:
        """Equal fingerprints give equal maps."""
        return f"{model.fingerprint} {self.view.words}".rstrip()


class _InTurn:
    def __init__(self, scorer: Scorer, asking: RLock) -> None:
        self._scorer = scorer
        self._asking = asking

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._scorer.prepare(image)

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        with self._asking:
            return self._scorer.score(batch, class_names)
