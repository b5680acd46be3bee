"""What the workbench does in the background, in a thread of its own, one thing after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from ad_dinov3.errors import AdDinoError
from ad_dinov3.predict.types import Outcome


@dataclass(frozen=True)
class Progress:
    """How far the work is: what is done in words, and how many images of how many are."""

    words: str
    done: int = 0
    total: int = 0


@dataclass(eq=False)
class Hand:
    """What a piece of work tells, and how it is told to stop."""

    progress: Progress = field(default_factory=lambda: Progress("Opening the model"))
    stopped: Event = field(default_factory=Event)

    def tell(self, progress: Progress) -> None:
        """Say how far it is."""
        self.progress = progress

    def counter(self, words: str, total: int) -> Callable[[Outcome], None]:
        """What counts the images that are done."""
        self.tell(Progress(words, 0, total))

        def count(outcome: Outcome) -> None:
            self.tell(Progress(words, self.progress.done + 1, total))

        return count

    def is_stopped(self) -> bool:
        """Whether the work is to end."""
        return self.stopped.is_set()


class Work:
    """Does one thing in the background; beginning anew stops what was being done.

    Args:
        act: the work; it ends soon once it is told to stop.

    Attributes:
        trouble: why the last one came to no end; empty: it did, or was stopped.
    """

    def __init__(self, act: Callable[[Hand], None]) -> None:
        self.trouble = ""
        self._act = act
        self._lock = Lock()
        self._hand: Hand | None = None
        self._thread: Thread | None = None

    @property
    def progress(self) -> Progress | None:
        """Of what is being done; None: nothing is."""
        hand = self._hand
        return None if hand is None else hand.progress

    def begin(self) -> None:
        """Begin, or begin anew."""
        with self._lock:
            self._stop()
            self._hand = Hand()
            self._thread = Thread(target=self._run, args=(self._hand, self._thread), daemon=True)
            self._thread.start()

    def stop(self, wait: bool = False) -> None:
        """Drop what is being done; ``wait`` until nothing is."""
        with self._lock:
            self._stop()
            thread = self._thread
        if wait and thread is not None:
            thread.join()

    def _stop(self) -> None:
        if self._hand is not None:
            self._hand.stopped.set()
        self._hand, self.trouble = None, ""

    def _run(self, hand: Hand, before: Thread | None) -> None:
        if before is not None:
            before.join()
        trouble = ""
        try:
            if not hand.is_stopped():
                self._act(hand)
        except AdDinoError as error:
            trouble = str(error)
        except (ImportError, OSError) as error:
            trouble = f"the images cannot be scored: {error}"
        with self._lock:
            if self._hand is hand:
                self._hand, self.trouble = None, trouble
