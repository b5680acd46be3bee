"""The models that a service answers with, by name; each can be opened anew while it serves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from threading import Lock

from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import ALL_OF_IT, Areas
from ad_dinov3.infer.drift_watch import DriftWatch
from ad_dinov3.infer.scorer import Scorer
from ad_dinov3.serve.batching import Batcher, BatchTimes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class UnknownModelError(ConfigError):
    """A request names a model that the service does not have."""


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model that is ready to score, and what the service says of it.

    Attributes:
        scorer: a detector, an exported session, or either through a view.
        threshold: in [0, 1]; where a request names none.
        source: what the user named: ``embedded``, a folder, an id.
        method: what people call its method.
        fingerprint: equal fingerprints give equal maps.
        normal_classes: classes that it has normal images of.
        promises: what is promised of false alarms, in words, for each class that is calibrated.
        drift: what watches its scores for a change of the line, if anything does.
        areas: where it looks at images.
        calls: how many calls of the scorer at once keep the processor busy.
    """

    scorer: Scorer
    threshold: float
    source: str
    method: str
    fingerprint: str
    normal_classes: tuple[str, ...] = ()
    promises: Mapping[str, str] = field(default_factory=dict)
    drift: DriftWatch | None = None
    areas: Areas = ALL_OF_IT
    calls: int = 1


Opener = Callable[[], OpenedModel]


@dataclass(eq=False)
class _Running:
    model: OpenedModel
    batcher: Batcher
    users: int = 0
    is_retired: bool = False


@dataclass(frozen=True, eq=False)
class Lease:
    """A model that stays open as long as one request needs it."""

    name: str
    model: OpenedModel
    batcher: Batcher


@dataclass(eq=False)
class Models:
    """Models by name; the first one answers where a request names none.

    Args:
        openers: what opens each of them, called here, and again by `reload`.
        batch_size: most images per call of a model.
        on_batch: told of every call of a model.
    """

    openers: Mapping[str, Opener]
    batch_size: int = 8
    on_batch: Callable[[BatchTimes], None] = lambda times: None
    _running: dict[str, _Running] = field(init=False)
    _lock: Lock = field(init=False, default_factory=Lock)
    _reloading: Lock = field(init=False, default_factory=Lock)

    is_open: bool = field(init=False, default=True)
    """Until `close`."""

    def __post_init__(self) -> None:
        self._running = {name: self._open(name) for name in self.openers}

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, the one that answers by default first."""
        return tuple(self.openers)

    def model(self, name: str) -> OpenedModel:
        """The model that answers under a name now.

        Raises:
            UnknownModelError: there is none.
        """
        if name not in self._running:
            raise UnknownModelError(f"there is no model {name!r}; there are {', '.join(self.names)}")
        return self._running[name].model

    @contextmanager
    def lease(self, name: str | None = None) -> Iterator[Lease]:
        """The model of a name, or the first one, kept open inside the block.

        Raises:
            UnknownModelError: there is none.
        """
        name = self.names[0] if name is None else name
        self.model(name)
        with self._lock:
            running = self._running[name]
            running.users += 1
        try:
            yield Lease(name, running.model, running.batcher)
        finally:
            with self._lock:
                running.users -= 1
                is_last = running.is_retired and running.users == 0
            if is_last:
                running.batcher.close()

    def reload(self, name: str) -> OpenedModel:
        """Open a model anew and answer with it from now on; the old one answers meanwhile, and what it has in hand.

        Raises:
            UnknownModelError: there is none of that name.
            AdDinoError: it cannot be opened any more; the old one goes on.
        """
        self.model(name)
        with self._reloading:
            fresh = self._open(name)
            self._replace({name: fresh})
        return fresh.model

    def reload_all(self) -> None:
        """Do so with every model: with all of them, or with none.

        Raises:
            AdDinoError: one cannot be opened any more; the old ones go on.
        """
        with self._reloading:
            fresh: dict[str, _Running] = {}
            try:
                for name in self.names:
                    fresh[name] = self._open(name)
            except BaseException:
                for running in fresh.values():
                    running.batcher.close()
                raise
            self._replace(fresh)

    def close(self) -> None:
        """Answer those that wait, and stop."""
        self.is_open = False
        for running in self._running.values():
            running.batcher.close()

    def _replace(self, fresh: Mapping[str, _Running]) -> None:
        with self._lock:
            old = [self._running[name] for name in fresh]
            self._running |= fresh
            for running in old:
                running.is_retired = True
            idle = [running for running in old if running.users == 0]
        for running in idle:
            running.batcher.close()

    def _open(self, name: str) -> _Running:
        model = self.openers[name]()
        return _Running(model, Batcher(model.scorer, self.batch_size, self.on_batch, model.calls))


def name_models(wanted: Sequence[str]) -> dict[str, str]:
    """What each name stands for, of words such as ``line=FOLDER``, ``FOLDER`` or ``embedded``.

    A model without a name is called what the last part of its folder or id is.

    Raises:
        ConfigError: two have one name, or a name does not fit into an address.
    """
    named: dict[str, str] = {}
    for word in wanted:
        name, equals, source = word.partition("=")
        if not equals:
            name, source = PurePath(word).name, word
        if not _NAME.fullmatch(name) or not source:
            raise ConfigError(f"--model {word}: expected NAME=MODEL, the name of letters, digits, '.', '-' and '_'")
        if name in named:
            raise ConfigError(f"--model {word}: {name!r} is {named[name]} already; give one a name: NAME=MODEL")
        named[name] = source
    return named
