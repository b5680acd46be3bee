"""The workbench's state: an output folder, and what people say of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock

import numpy as np

from ad_dinov3.config import States
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import Areas, read_areas, write_areas
from ad_dinov3.predict.results import Row
from ad_dinov3.serve.judge import BusyError
from ad_dinov3.serve.workbench.answers import (
    CellAnswer,
    ImageAnswer,
    ImagesAnswer,
    Label,
    PatchAnswer,
    StateAnswer,
    StatesAnswer,
    SuggestionAnswer,
    TaughtAnswer,
    WorkAnswer,
)
from ad_dinov3.serve.workbench.choices import Choices, Taught, Wanted
from ad_dinov3.serve.workbench.drops import has_dropped, keep, score_dropped
from ad_dinov3.serve.workbench.exports import labelled, write_reviewed
from ad_dinov3.serve.workbench.folder import Results
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.patches import Patches
from ad_dinov3.serve.workbench.store import Store, Verdict
from ad_dinov3.serve.workbench.suggest import suggest_threshold
from ad_dinov3.serve.workbench.teaching import Lesson, remove_taught, teach
from ad_dinov3.serve.workbench.trial import Tried, try_on
from ad_dinov3.serve.workbench.within import Scores, as_made, at_once, by_maps
from ad_dinov3.serve.workbench.work import Hand, Work


class Bench:
    """An output folder with its reviews, and with good images among its own that others are compared with.

    Args:
        folder: as `predict` writes it; its workbench.sqlite is made if it is missing.
        title: what the page is called.
        model: what scores images again; None: nothing does.

    Attributes:
        before: the results of the folder.
        results: what is shown: those, or what good images have made of them.

    Raises:
        ConfigError: there are no results in it.
        DataError: results or reviews are of another version.
    """

    def __init__(self, folder: Path, title: str, model: BenchModel | None = None) -> None:
        self.folder = folder
        self.before = self.results = Results(folder)
        self.store = Store(folder)
        self.choices = Choices(self.store, folder)
        self.title = title
        self.model = model
        self.scored = time.time_ns() // 1_000_000  # another one after each start, too
        self._lock = Lock()
        self._shown, self._made = "", self.store.setting("results", None)
        self._scores = self._scores_before = as_made(self.before)
        self._judged: Areas | None = None  # for which areas these are
        self._patches = None if model is None else Patches(model)
        self._work = Work(self._act)
        self._keeping, self._trying = Lock(), Lock()
        taught = self._follow()
        remove_taught(folder, but="" if taught is None else taught.folder)
        if model is not None and self._lacks_scores():
            self._work.begin()  # where a server that was killed has not come to

    def close(self) -> None:
        """Stop scoring, and let go of the reviews' file."""
        self._work.stop(wait=True)
        self.store.close()

    @property
    def threshold(self) -> float:
        """Where people have put it, or else where the run decided."""
        value = self.store.setting("threshold", None)
        return self.results.threshold if not isinstance(value, int | float) else float(value)

    @property
    def areas(self) -> Areas:
        """Where images are looked at: what the folder says, or else the run that made the results."""
        return read_areas(self.folder) or self.before.areas

    def set_areas(self, areas: Areas) -> None:
        """Look at images elsewhere: in areas.json for every later run, and in a copy among the settings."""
        write_areas(self.folder, areas, keep_empty=True)
        self.store.set("areas", asdict(areas))
        self._follow()
        if self._judged != areas:
            self._work.begin()

    def use_as_good(self, images: Sequence[str], is_good: bool) -> None:
        """Compare all images with these from now on, too, or no longer with these.

        Raises:
            UnknownImageError: there is no such image.
            ConfigError: there is no model to do so, or it cannot compare images.
        """
        if self.model is None:
            raise ConfigError("the workbench was started without a model; it cannot score images again")
        if is_good and self.model.abilities.no_tokens:
            raise ConfigError(self.model.abilities.no_tokens)
        for name in images:
            self.results.row(name)
        self.store.set_good(images, is_good)
        self._begin_anew()

    def own_states(self) -> States | None:
        """The states that the model's prompts name by itself; None: they name none, or there is no model.

        Raises:
            AdDinoError: it cannot be opened.
        """
        if self.model is None or not self.model.abilities.has_states:
            return None
        return self.model.plain().states

    def use_states(self, states: States | None) -> None:
        """Score all images with a model whose prompts name these from now on, or its own.

        Raises:
            ConfigError: there is no model whose prompts name states.
        """
        if states is not None:
            self._wordable()
        self.choices.set_states(states)
        self._begin_anew()

    def try_states(self, image: str, states: States) -> Tried:
        """What a model whose prompts name these would make of one image.

        Raises:
            UnknownImageError: there is no such image.
            BusyError: another one is being tried.
            AdDinoError: it cannot be done; the message says why.
        """
        model = self._wordable()
        if not self._trying.acquire(blocking=False):
            raise BusyError("other words are being tried; try again")
        try:
            return try_on(model, Lesson(self.before, Wanted(self.store.good(), states), self.areas), image)
        finally:
            self._trying.release()

    def _wordable(self) -> BenchModel:
        if self.model is None or not self.model.abilities.has_states:
            raise ConfigError("there is no model here whose prompts name states of normal and abnormal parts")
        return self.model

    def _begin_anew(self) -> None:
        """Score by what is wanted now; where that is nothing, the results before are there."""
        if self.choices.wanted.is_nothing:
            self._show(None)
        self._work.begin()

    def add(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Keep images with the folder, and score them in the background; what they are called.

        Raises:
            ImageError: one is no image; then none is kept.
            ConfigError: there is no model, or the images were compared with each other, which new ones would change.
        """
        if self.model is None:
            raise ConfigError("the workbench was started without a model; it cannot score new images")
        if how := self.before.run.maker.compare:
            raise ConfigError(
                f"the images were scored with --compare {how}; run predict again with the new ones among them"
            )
        with self._keeping:
            names = keep(self.folder, files)
        self._work.begin()
        return names

    def patch(self, image: str, x: float, y: float) -> PatchAnswer:
        """What the patch at a point, in shares of width and height, is like.

        Raises:
            UnknownImageError: there is no such image.
            AdDinoError: its patches cannot be compared.
        """
        if self._patches is None:
            raise ConfigError("the workbench was started without a model; it cannot compare patches")
        row = self.before.row(image)
        good = [self.before.rows[name] for name in self.store.good() if name in self.before.rows]
        same = [one for one in good if one.class_name == row.class_name]
        found = self._patches.similar(row, x, y, same)
        near, cosine = found.nearest, found.cosine
        return PatchAnswer(
            place=found.cell.place,
            grid=found.cell.grid,
            cosines=np.round(found.map, 4).ravel().tolist(),
            nearest=None if near is None or cosine is None else CellAnswer(**vars(near), cosine=cosine),
        )

    def work(self) -> WorkAnswer:
        """What is being scored in the background."""
        progress = self._work.progress
        if progress is None:
            return WorkAnswer(words="", done=0, total=0, trouble=self._work.trouble)
        return WorkAnswer(**vars(progress), trouble="")

    def _lacks_scores(self) -> bool:
        """Whether an image has none yet, or other good images are chosen than those that it is compared with."""
        taught = self.choices.taught
        is_known = self.choices.wanted.is_like(Wanted() if taught is None else taught.wanted)
        return not is_known or has_dropped(self.folder, self.results)

    def _act(self, hand: Hand) -> None:
        """What is done in the background, as far as it is still to do."""
        self._judge(hand)
        if self.model is not None and not hand.is_stopped():
            self._score(self.model, hand)
            self._judge(hand)

    def _score(self, model: BenchModel, hand: Hand) -> None:
        """Add what was dropped to the results, and compare all with the good images that are chosen now."""
        if score_dropped(self.before, model, self.areas, hand):
            self.store.set("results", time.time_ns())  # all servers of the folder read them anew
            self._follow()
        wanted, taught = self.choices.wanted, self.choices.taught
        if wanted.is_nothing or hand.is_stopped() or not self._lacks_scores():
            return
        start = self.folder / taught.folder if taught is not None and taught.wanted == wanted else None
        found = teach(self.folder, model, Lesson(self.before, wanted, self.areas, start), hand)
        if found is not None and found.wanted == self.choices.wanted:
            self._show(found)

    def _show(self, taught: Taught | None) -> None:
        self.choices.show(taught)
        self._follow()
        remove_taught(self.folder, but="" if taught is None else taught.folder)

    def _turn(self) -> Taught | None:
        """Turn to what any server of this folder has come to; where maps have to be read for it, in the background."""
        taught = self._follow()
        if self._judged != self.areas and self._work.progress is None and not self._work.trouble:
            self._work.begin()
        return taught

    def _follow(self) -> Taught | None:
        taught, made = self.choices.taught, self.store.setting("results", None)
        name = "" if taught is None else taught.folder
        with self._lock:
            if made != self._made:
                self.before.read()
            if (name, made) != (self._shown, self._made):
                self.results = Results(self.folder / name) if name else self.before
                self._shown, self._made, self._judged = name, made, None
                self._take(as_made(self.before), as_made(self.results), None)
            areas = self.areas
            if self._judged != areas:
                before, shown = at_once(self.before, areas), at_once(self.results, areas)
                if before is not None and shown is not None:
                    self._take(before, shown, areas)
        return taught

    def _judge(self, hand: Hand) -> None:
        """Find the scores within the areas."""
        areas, results = self.areas, self.results
        if self._judged == areas:
            return
        before = by_maps(self.before, areas, hand)
        shown = before if results is self.before else by_maps(results, areas, hand)
        with self._lock:
            if before is not None and shown is not None and results is self.results:
                self._take(before, shown, areas)

    def _take(self, before: Scores, shown: Scores, areas: Areas | None) -> None:
        self._scores_before, self._scores, self._judged = before, shown, areas
        self.scored += 1

    def score(self, row: Row) -> float | None:
        """The score that decides on an image, in [0, 1]; None where it failed."""
        return self._scores.get(row.image)

    def images(self) -> ImagesAnswer:
        """All images, the highest score first, failed ones last."""
        self._turn()
        rows = sorted(self.results.rows.values(), key=lambda row: -self._scores.get(row.image, -math.inf))
        return ImagesAnswer(
            scored=self.scored,
            threshold=self.results.threshold,
            threshold_before=self.before.threshold if self._shown else None,
            promises=dict(self.results.promises),
            command=self.results.command,
            images=tuple(self._image(row) for row in rows),
        )

    def _image(self, row: Row) -> ImageAnswer:
        label = self.results.folder_label(row)
        return ImageAnswer(
            name=row.image,
            class_name=row.class_name,
            score=self.score(row),
            before=self._scores_before.get(row.image) if self._shown else None,
            width=row.width,
            height=row.height,
            min_area_px=self.results.smallest_region(row),
            p_value=row.p_value,
            label=None if label is None else "ng" if label else "ok",
            error=row.error,
        )

    def state(self) -> StateAnswer:
        """What people have decided."""
        revision, verdicts, taught = self.store.revision, self.store.verdicts(), self._turn()
        states = self.choices.wanted.states
        return StateAnswer(
            revision=revision,
            work=self.work(),
            good=self.store.good(),
            taught=None if taught is None else _answer_of(taught),
            states=None if states is None else StatesAnswer(**states.model_dump()),
            scored=self.scored,
            verdicts=verdicts,
            threshold=self.threshold,
            areas=self.areas,
            suggestion=self._suggestion(verdicts),
        )

    def labels(self, verdicts: dict[str, Verdict]) -> dict[str, Label]:
        """Image -> whether it is good: what people say, or else what its folder's name does; skipped ones have none."""
        found: dict[str, Label] = {}
        for name, row in self.results.rows.items():
            said, written = verdicts.get(name), self.results.folder_label(row)
            if said in ("ok", "ng"):
                found[name] = said
            elif said is None and written is not None:
                found[name] = "ng" if written else "ok"
        return found

    def export(self) -> tuple[Path, int]:
        """Write what is labelled for other tools, as `write_reviewed` says; the folder, and how many images."""
        verdicts = self.store.verdicts()
        labels = self.labels(verdicts)
        rows = [(self.results.rows[name], label) for name, label in labels.items()]
        threshold, areas = self.threshold, self.areas
        images = (
            labelled(self.results, row, label, _by(row, verdicts), (score, threshold, areas))
            for row, label in rows
            if (score := self.score(row)) is not None
        )
        return write_reviewed(self.folder, images, threshold), len(rows)

    def _suggestion(self, verdicts: dict[str, Verdict]) -> SuggestionAnswer | None:
        scores: dict[Label, list[float]] = {"ok": [], "ng": []}
        known = set(self.store.good())  # their scores say nothing of others
        for name, label in self.labels(verdicts).items():
            score = self.score(self.results.rows[name])
            if score is not None and name not in known:
                scores[label].append(score)
        found = suggest_threshold(scores["ok"], scores["ng"])
        return None if found is None else SuggestionAnswer(**vars(found))


def _answer_of(taught: Taught) -> TaughtAnswer:
    wanted = taught.wanted
    return TaughtAnswer(good=len(wanted.good), words=wanted.states is not None, same_model=taught.same_model)


def _by(row: Row, verdicts: dict[str, Verdict]) -> str:
    return "review" if row.image in verdicts else "folder"
