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
        anomalous = self.true_positives + self.false_negatives
        normal = self.false_positives + self.true_negatives
        return (
            f"{self.true_positives} of {anomalous} anomalous images were called anomalous (TP {self.true_positives}, "
            f"FN {self.false_negatives}), and so were {self.false_positives} of {normal} normal ones "
            f"(FP {self.false_positives}, TN {self.true_negatives})"
        )


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
