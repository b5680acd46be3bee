"""What people have chosen for the model, and the results that it has come to, as the reviews' file keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ad_dinov3.config import States
from ad_dinov3.serve.workbench.store import Store


@dataclass(frozen=True)
class Wanted:
    """What people have chosen for the model.

    Attributes:
        good: names of the good images that others are compared with.
        states: states that its prompts are to name; None: its own.
    """

    good: tuple[str, ...] = ()
    states: States | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the model is as it was."""
        return not self.good and self.states is None

    def is_like(self, other: Wanted) -> bool:
        """Whether the scores are the same."""
        return set(self.good) == set(other.good) and self.states == other.states


@dataclass(frozen=True)
class Taught:
    """Results that good images or other words have changed.

    Attributes:
        folder: their name below the results before.
        wanted: what has changed them.
        same_model: the results before are by the same model.
    """

    folder: str
    wanted: Wanted
    same_model: bool


class Choices:
    """The choices of an output folder; all servers of it see the same.

    Args:
        store: where they are kept.
        folder: of the results.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    @property
    def wanted(self) -> Wanted:
        """What is chosen now."""
        return Wanted(self._store.good(), _states(self._store.setting("states", None)))

    def set_states(self, states: States | None) -> None:
        """Choose the states that prompts name; None: the model's own."""
        self._store.set("states", None if states is None else states.model_dump())

    @property
    def taught(self) -> Taught | None:
        """The results to show in the place of those before; None: those before, or their folder is gone."""
        found = self._store.setting("taught", None)
        if not isinstance(found, dict) or not (self._folder / str(found["folder"]) / "results.jsonl").is_file():
            return None
        wanted = Wanted(tuple(found["good"]), _states(found.get("states")))  # earlier versions knew no states
        return Taught(str(found["folder"]), wanted, bool(found["same_model"]))

    def show(self, taught: Taught | None) -> None:
        """Show other results from now on, at their own threshold."""
        tree = None if taught is None else _tree(taught)
        with self._store.changing():
            self._store.set("taught", tree)
            self._store.set("threshold", None)


def _states(found: object) -> States | None:
    return None if found is None else States.model_validate(found)


def _tree(taught: Taught) -> dict[str, object]:
    states = taught.wanted.states
    return {
        "folder": taught.folder,
        "good": taught.wanted.good,
        "states": None if states is None else states.model_dump(),
        "same_model": taught.same_model,
    }
