"""The workbench's state: an output folder, and what people say of it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from ad_dinov3.infer.areas import Areas, read_areas, score_within, write_areas
from ad_dinov3.predict.results import Row
from ad_dinov3.serve.workbench.answers import (
    ImageAnswer,
    ImagesAnswer,
    Label,
    StateAnswer,
    SuggestionAnswer,
)
from ad_dinov3.serve.workbench.exports import labelled, write_reviewed
from ad_dinov3.serve.workbench.folder import Results
from ad_dinov3.serve.workbench.store import Store, Verdict
from ad_dinov3.serve.workbench.suggest import suggest_threshold


class Bench:
    """An output folder with its reviews.

    Args:
        folder: as `predict` writes it; its workbench.sqlite is made if it is missing.
        title: what the page is called.

    Raises:
        ConfigError: there are no results in it.
        DataError: results or reviews are of another version.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.results = Results(folder)
        self.store = Store(folder)
        self.title = title
        self.scored = 1
        self._within: dict[str, float] = {}
        self._judge()

    def close(self) -> None:
        """Let go of the reviews' file."""
        self.store.close()

    @property
    def threshold(self) -> float:
        """Where people have put it, or else where the run decided."""
        value = self.store.setting("threshold", None)
        return self.results.threshold if not isinstance(value, int | float) else float(value)

    @property
    def areas(self) -> Areas:
        """Where images are looked at: what the folder says, or else the run that made the results."""
        return read_areas(self.results.folder) or self.results.areas

    def set_areas(self, areas: Areas) -> None:
        """Look at images elsewhere: in areas.json for every later run, and in a copy among the settings."""
        write_areas(self.results.folder, areas, keep_empty=True)
        self._judge()
        self.scored += 1
        self.store.set("areas", asdict(areas))

    def _judge(self) -> None:
        """The score of each image within the areas."""
        areas, found = self.areas, {}
        for name, row in self.results.rows.items():
            if row.score is not None:
                score = row.score if row.model_score is None else row.model_score
                found[name] = score if areas.is_empty else self._score_within(name, score, areas)
        self._within = found

    def _score_within(self, name: str, score: float, areas: Areas) -> float:
        anomaly_map = self.results.map(name)
        height, width = anomaly_map.shape
        return score_within(score, anomaly_map, areas.mask((height, width)))

    def score(self, row: Row) -> float | None:
        """The score that decides on an image, in [0, 1]; None where it failed."""
        return self._within.get(row.image)

    def images(self) -> ImagesAnswer:
        """All images, the highest score first, failed ones last."""
        rows = sorted(self.results.rows.values(), key=lambda row: -self._within.get(row.image, -math.inf))
        return ImagesAnswer(
            scored=self.scored,
            threshold=self.results.threshold,
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
            width=row.width,
            height=row.height,
            min_area_px=self.results.smallest_region(row),
            p_value=row.p_value,
            label=None if label is None else "ng" if label else "ok",
            error=row.error,
        )

    def state(self) -> StateAnswer:
        """What people have decided."""
        revision, verdicts = self.store.revision, self.store.verdicts()
        return StateAnswer(
            revision=revision,
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
        return write_reviewed(self.results.folder, images, threshold), len(rows)

    def _suggestion(self, verdicts: dict[str, Verdict]) -> SuggestionAnswer | None:
        scores: dict[Label, list[float]] = {"ok": [], "ng": []}
        for name, label in self.labels(verdicts).items():
            score = self.score(self.results.rows[name])
            if score is not None:
                scores[label].append(score)
        found = suggest_threshold(scores["ok"], scores["ng"])
        return None if found is None else SuggestionAnswer(**vars(found))


def _by(row: Row, verdicts: dict[str, Verdict]) -> str:
    return "review" if row.image in verdicts else "folder"
