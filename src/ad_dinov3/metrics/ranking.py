"""How well scores rank positives above negatives: AUROC, average precision, F1-max. Exact, ties included.

All three change only where the threshold passes the score of a positive. So the unique positive scores are the
thresholds, and what is left is to count the negatives above and at each of them: the negatives are sorted in
chunks, and each chunk answers all thresholds by binary search. Scores and labels stay in the arrays they came in
(lists of maps of any sizes); the extra memory is one chunk and a few numbers per unique positive score.

Scores are taken as they are: no sigmoid, no rescaling. A decision is ``score >= threshold``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ad_dinov3.errors import DataError, ShapeError

Array = NDArray[np.generic]
Arrays = Sequence[Array] | Array
_CHUNKS = 32  # sorting holds a chunk four times: with a few % positives, all extra memory is under 1/4 of the scores
_CHUNK_MIN, _CHUNK_MAX = 1 << 17, 1 << 26
_SEARCH = 1 << 16  # thresholds that are looked up at once
_RADIX_MIN = 1 << 16  # fewer values than a digit has buckets are sorted by comparison
_TRIAL = 1 << 17  # values that tell which sort is faster
_Sort = Callable[[NDArray[np.floating]], None]
_NAN = "expected scores that are numbers, found NaN; check the model's output before scoring it"


@dataclass(frozen=True)
class RankingCounts:
    """What the ranking metrics need to know of scores and labels.

    Attributes:
        thresholds: (U,) the unique scores of positives, descending (or lower edges of bins that hold positives).
        positives: (U,) int, positives whose score is the threshold.
        negatives_above: (U,) int, negatives whose score is greater.
        negatives_tied: (U,) int, negatives whose score is the same.
        negative_total: all negatives, those below every threshold too.
    """

    thresholds: NDArray[np.floating]
    positives: NDArray[np.integer]
    negatives_above: NDArray[np.integer]
    negatives_tied: NDArray[np.integer]
    negative_total: int

    @property
    def positive_total(self) -> int:
        return int(self.positives.sum(dtype=np.int64))

    @property
    def is_defined(self) -> bool:
        """True if there are both positives and negatives; without, no ranking metric means anything."""
        return self.negative_total > 0 and self.positives.size > 0

    @property
    def true_positives(self) -> NDArray[np.int64]:
        """(U,) positives at or above each threshold."""
        return np.cumsum(self.positives, dtype=np.int64)

    @property
    def false_positives(self) -> NDArray[np.integer]:
        """(U,) negatives at or above each threshold."""
        return self.negatives_above + self.negatives_tied


@dataclass(frozen=True)
class F1Max:
    """The best F1 over all thresholds, and where it is reached.

    Attributes:
        value: F1 in [0, 1].
        threshold: the highest score that reaches it when ``score >= threshold`` is called anomalous.
        precision: at that threshold.
        recall: at that threshold.
    """

    value: float
    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class RankingMetrics:
    """The three ranking metrics in [0, 1]; None where undefined (only positives, or only negatives)."""

    auroc: float | None
    average_precision: float | None
    f1_max: F1Max | None


def ranking_metrics(scores: Arrays, labels: Arrays) -> RankingMetrics:
    """AUROC, average precision and F1-max of scores pooled over arrays.

    Args:
        scores: arrays of any shapes, real numbers, higher is more anomalous (a list of (H, W) maps, or one array (N,)).
        labels: arrays of the same shapes; nonzero is positive.

    Raises:
        ShapeError: an array of labels does not have its scores' shape.
        DataError: a score is NaN.
    """
    counts = count_ranking(scores, labels)
    return RankingMetrics(auroc(counts), average_precision(counts), f1_max(counts))


def auroc(counts: RankingCounts) -> float | None:
    """Probability that a positive scores higher than a negative, ties counting half (Mann-Whitney U / PN)."""
    if not counts.is_defined:
        return None
    lost = 0.5 * counts.negatives_tied
    lost += counts.negatives_above
    return 1.0 - float(lost @ counts.positives) / (counts.positive_total * counts.negative_total)


def average_precision(counts: RankingCounts) -> float | None:
    """Sum over thresholds of (recall gained) x precision, without interpolation, as scikit-learn defines it."""
    if not counts.is_defined:
        return None
    hits = counts.true_positives
    precision = (hits + counts.false_positives).astype(np.float64)
    np.divide(hits, precision, out=precision)
    return float(precision @ counts.positives) / counts.positive_total


def f1_max(counts: RankingCounts) -> F1Max | None:
    """The maximum over thresholds of F1 = 2 TP / (predicted + actual positives)."""
    if not counts.is_defined:
        return None
    hits = counts.true_positives
    called = hits + counts.false_positives
    f1 = 2.0 * hits / (called + counts.positive_total)
    best = int(np.argmax(f1))  # the first of equals: the highest threshold
    return F1Max(
        value=float(f1[best]),
        threshold=float(counts.thresholds[best]),
        precision=float(hits[best] / called[best]),
        recall=float(hits[best] / counts.positive_total),
    )


def count_ranking(scores: Arrays, labels: Arrays) -> RankingCounts:
    """Count, for each unique positive score, the positives at it and the negatives above and at it.

    The sequences are read twice and may load their items lazily.

    Args:
        scores: arrays of any shapes; one array (N,) is taken as a list of one.
        labels: arrays of the same shapes; nonzero is positive.

    Raises:
        ShapeError: an array of labels does not have its scores' shape.
        DataError: a score is NaN.
    """
    score_list, label_list = as_lists(scores, labels)
    positive_scores, negative_total = positives_of(score_list, label_list)
    thresholds, positives = unique_counts(positive_scores, negative_total)
    del positive_scores
    above, tied = count_negatives(score_list, label_list, thresholds, negative_total)
    return RankingCounts(thresholds[::-1], positives[::-1], above[::-1], tied[::-1], negative_total)


def as_lists(scores: Arrays, labels: Arrays) -> tuple[Sequence[Array], Sequence[Array]]:
    """One bare array as a list of one, anything else as it is; ShapeError if the lists' lengths differ."""
    score_list = [scores] if isinstance(scores, np.ndarray) else scores
    label_list = [labels] if isinstance(labels, np.ndarray) else labels
    if len(score_list) != len(label_list):
        raise ShapeError(f"expected as many label arrays as score arrays, got {len(label_list)} and {len(score_list)}")
    return score_list, label_list


def as_label(score: Array, label: Array) -> NDArray[np.bool_]:
    """Labels as a bool array of the scores' shape; nonzero is positive.

    Raises:
        ShapeError: the shapes differ.
    """
    if score.shape != label.shape:
        raise ShapeError(f"expected labels of the scores' shape {score.shape}, got {label.shape}")
    return label.astype(np.bool_, copy=False)


def positives_of(scores: Sequence[Array], labels: Sequence[Array]) -> tuple[NDArray[np.floating], int]:
    """All positives' scores in one array of the type that counting needs, and the number of negatives.

    Raises:
        ShapeError: the shapes differ.
        DataError: a positive's score is NaN.
    """
    picked: list[NDArray[np.floating]] = [np.empty(0, np.float32)]
    total = 0
    for score, label in zip(scores, labels, strict=True):
        # An empty slice still carries the type: float32 unless some array needs float64.
        picked.append(score[as_label(score, label)].astype(_float_dtype(score.dtype), copy=False))
        total += score.size
    merged = np.concatenate(picked)
    if np.isnan(merged).any():
        raise DataError(_NAN)
    return merged, total - merged.size


def unique_counts(
    positive_scores: NDArray[np.floating], negative_total: int
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """The ascending unique scores (U,) of positives, and how many positives have each."""
    thresholds, positives = np.unique(positive_scores, return_counts=True)
    return thresholds, positives.astype(_count_type(negative_total), copy=False)


def count_negatives(
    scores: Sequence[Array], labels: Sequence[Array], thresholds: NDArray[np.floating], negative_total: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """How many negatives lie above and at each of the ascending thresholds, both (U,).

    Raises:
        DataError: a score is NaN.
    """
    below = np.zeros(thresholds.size, _count_type(negative_total))
    tied = np.zeros_like(below)
    for chunk in _sorted_negatives(scores, labels, negative_total, thresholds.dtype):
        if np.isnan(chunk[[0, -1]]).any():  # a NaN sorts to one of the ends
            raise DataError(_NAN)
        for start in range(0, thresholds.size, _SEARCH):
            part = slice(start, start + _SEARCH)
            keys = thresholds[part]
            left = np.searchsorted(chunk, keys)
            below[part] += left
            # The second search is needed only where the first one stopped at an equal value.
            equal = np.flatnonzero(chunk.take(left, mode="clip") == keys)
            tied[start + equal] += np.searchsorted(chunk, keys[equal], side="right") - left[equal]
    np.subtract(negative_total, below, out=below)
    below -= tied
    return below, tied


def _sorted_negatives(
    scores: Sequence[Array], labels: Sequence[Array], negative_total: int, dtype: np.dtype[np.floating]
) -> Iterator[NDArray[np.floating]]:
    """The negatives' scores in ascending chunks; each is valid until the next is asked for."""
    size = int(np.clip(negative_total // _CHUNKS + 1, _CHUNK_MIN, _CHUNK_MAX))
    buffer = np.empty(min(size, max(negative_total, 1)), dtype)
    filled = 0
    for score, label in zip(scores, labels, strict=True):
        negatives = score[~as_label(score, label)]
        taken = 0
        while taken < negatives.size:
            part = negatives[taken : taken + buffer.size - filled]
            buffer[filled : filled + part.size] = part
            filled += part.size
            taken += part.size
            if filled == buffer.size:
                _sort(buffer)
                yield buffer
                filled = 0
    if filled:
        _sort(buffer[:filled])
        yield buffer[:filled]


def _sort(values: NDArray[np.floating]) -> None:
    """Sort values (N,) in place, ascending; a NaN comes first or last."""
    if values.dtype != np.float32 or values.size < _RADIX_MIN:
        values.sort()
    else:
        _faster_sort()(values)


@cache
def _faster_sort() -> _Sort:
    """The sort that this processor does sooner, by a trial of ten milliseconds or so.

    numpy's own is ten times as fast as ours where it uses AVX-512 well or AVX2, a third as fast on Zen 4, whose
    AVX-512 stores what it compresses slowly, and as fast where there is neither: no list of processors says that.
    """
    values = np.random.default_rng(0).random(_TRIAL, np.float32)

    def seconds(sort: _Sort) -> float:
        taken = []
        for _ in range(2):
            copy, start = values.copy(), time.thread_time()
            sort(copy)
            taken.append(time.thread_time() - start)
        return min(taken)

    return min((_numpy_sort, _radix_sort), key=seconds)


def _numpy_sort(values: NDArray[np.floating]) -> None:
    values.sort()


def _radix_sort(values: NDArray[np.floating]) -> None:
    """Two passes of 16 bits: turning a row into columns is a counting sort that scipy has compiled."""
    ends = np.array([0, values.size], np.int32)
    for shift in (0, 16):
        digits = values.view(np.int32) >> 31
        digits |= np.int32(-(1 << 31))
        digits ^= values.view(np.int32)  # unsigned, these are in the order of the floats
        digits >>= shift
        digits &= 0xFFFF
        values[:] = sparse.csr_array((values, digits, ends), shape=(1, 1 << 16)).tocsc().data


def _count_type(negative_total: int) -> type[np.int32] | type[np.int64]:
    """The integers that counts up to all negatives are kept in: half the memory as long as they fit."""
    return np.int32 if negative_total < 1 << 31 else np.int64


def _float_dtype(dtype: np.dtype[np.generic]) -> type[np.float32] | type[np.float64]:
    """float32 if it holds the type exactly (float16, 8 and 16 bit integers), else float64."""
    return np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64
