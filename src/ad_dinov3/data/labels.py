"""What a folder's name says of the images in it: the one rule for data sets, runs over folders and reports.

Normal: good, ok, normal. Anomalous: bad, ng, ko, abnormal, and every name that begins with defect or anomal; beside a
folder of normal images every other name is a kind of defect. The case of letters does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NORMAL_WORDS = frozenset({"good", "ok", "normal"})
_ANOMALOUS_WORDS = frozenset({"bad", "ng", "ko", "abnormal"})
_ANOMALOUS_BEGINNINGS = ("defect", "anomal")
GROUND_TRUTH = "ground_truth"


def label_of(name: str) -> bool | None:
    """Whether a folder of this name holds anomalous images; None: the name alone does not say."""
    word = name.casefold()
    if word in NORMAL_WORDS:
        return False
    return True if word in _ANOMALOUS_WORDS or word.startswith(_ANOMALOUS_BEGINNINGS) else None


def folder_labels(folders: Iterable[Path]) -> dict[Path, bool]:
    """Folder -> whether its images are anomalous, for those folders whose names, or whose siblings' names, say so."""
    known = list(dict.fromkeys(folders))
    beside_normal = {folder.parent for folder in known if label_of(folder.name) is False}
    labels: dict[Path, bool] = {}
    for folder in known:
        label = label_of(folder.name)
        if label is None and folder.parent in beside_normal and folder.name != GROUND_TRUTH:
            label = True
        if label is not None:
            labels[folder] = label
    return labels


@dataclass(frozen=True)
class Confusion:
    """How decisions agree with labels: counts of images."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int

    def __str__(self) -> str:
        found = f"(TP {self.true_positives}, FN {self.false_negatives})"
        flagged = f"(FP {self.false_positives}, TN {self.true_negatives})"
        of_anomalous = f"{self.true_positives} of {self.true_positives + self.false_negatives}"
        of_normal = f"{self.false_positives} of {self.false_positives + self.true_negatives}"
        if of_anomalous == "0 of 0":
            return f"{of_normal} normal images were called anomalous {flagged}"
        words = f"{of_anomalous} anomalous images were called anomalous {found}"
        return words if of_normal == "0 of 0" else f"{words}, and so were {of_normal} normal ones {flagged}"


def confusion(decisions: Iterable[tuple[Path, bool]]) -> Confusion | None:
    """Decisions held against what the folders' names say; None if they say nothing of any image.

    Args:
        decisions: (folder of an image, whether the image is called anomalous).
    """
    counts = Counter(decisions)
    labels = folder_labels(folder for folder, _ in counts)
    cells: Counter[tuple[bool, bool]] = Counter()
    for (folder, called), number in counts.items():
        if folder in labels:
            cells[labels[folder], called] += number
    if not cells:
        return None
    return Confusion(cells[True, True], cells[True, False], cells[False, True], cells[False, False])
