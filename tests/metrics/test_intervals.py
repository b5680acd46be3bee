"""Bootstrap intervals against resampling the maps themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.metrics.intervals import (
    Replicates,
    bootstrap_images,
    bootstrap_pixels,
    image_histograms,
    interval,
    mean_replicates,
)
from ad_dinov3.metrics.ranking import auroc, average_precision, f1_max
from ad_dinov3.metrics.regions import aupro, count_regions


def drawn(count: int = 24, size: int = 32) -> tuple[list[NDArray[np.floating]], list[NDArray[np.bool_]]]:
    rng = np.random.default_rng(1)
    masks = [np.kron(rng.random((4, 4)) < 0.15, np.ones((size // 4, size // 4))) > 0 for _ in range(count - 4)]
    masks += [np.zeros((size, size), bool)] * 4
    shift = rng.normal(size=count)
    maps = [rng.normal(size=(size, size)) + (1 + shift[i]) * mask for i, mask in enumerate(masks)]
    return maps, masks


def test_binned_metrics_of_the_whole_set_are_close_to_exact() -> None:
    maps, masks = drawn()
    counts = count_regions(maps, masks)
    ours = bootstrap_pixels(image_histograms(maps, masks, counts), resamples=2)
    best = f1_max(counts.ranking)
    assert best is not None
    assert ours.auroc.whole == pytest.approx(auroc(counts.ranking), abs=1e-4)
    assert ours.average_precision.whole == pytest.approx(average_precision(counts.ranking), abs=3e-3)
    assert ours.f1_max.whole == pytest.approx(best.value, abs=2e-3)
    assert ours.aupro.whole == pytest.approx(aupro(counts), abs=1e-3)


def test_replicates_spread_like_those_of_resampled_maps() -> None:
    maps, masks = drawn()
    counts = count_regions(maps, masks)
    ours = bootstrap_pixels(image_histograms(maps, masks, counts), resamples=400, seed=3)
    rng = np.random.default_rng(9)
    anomalous, normal = [i for i, m in enumerate(masks) if m.any()], [i for i, m in enumerate(masks) if not m.any()]
    plain = []
    for _ in range(200):
        picked = [*rng.choice(anomalous, len(anomalous)), *rng.choice(normal, len(normal))]
        sampled = count_regions([maps[i] for i in picked], [masks[i] for i in picked])
        plain.append((auroc(sampled.ranking), average_precision(sampled.ranking), aupro(sampled)))
    for mine, theirs in zip((ours.auroc, ours.average_precision, ours.aupro), np.array(plain).T, strict=True):
        assert np.mean(mine.values) == pytest.approx(theirs.mean(), abs=0.2 * theirs.std())
        assert np.std(mine.values) == pytest.approx(theirs.std(), rel=0.25)


def test_image_bootstrap_is_exact_for_the_whole_set() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.4
    scores = np.round(rng.normal(size=80) + labels, 1)
    ours = bootstrap_images(scores, labels, resamples=200)
    assert ours.auroc.whole == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert ours.average_precision.whole == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
    assert np.isnan(ours.aupro.whole)


def test_interval_holds_the_value_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for size in (50, 800):
        labels = np.arange(size) % 2
        scores = rng.normal(size=size) + labels
        replicates = bootstrap_images(scores, labels, resamples=500).auroc
        ends = interval(replicates, replicates.whole)
        assert ends is not None
        assert 0 <= ends.low < replicates.whole < ends.high <= 1
        widths.append(ends.high - ends.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)  # one over the root of the size


def test_equal_seeds_give_equal_replicates_and_other_seeds_others() -> None:
    labels, scores = np.arange(20) % 2, np.random.default_rng(0).random(20)
    first, again, other = (bootstrap_images(scores, labels, resamples=50, seed=s).auroc.values for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_class_only_has_no_interval() -> None:
    replicates = bootstrap_images(np.random.default_rng(0).random(9), np.ones(9), resamples=10)
    assert interval(replicates.auroc, 0.5) is None


def test_interval_is_shifted_to_the_exact_value() -> None:
    replicates = Replicates(np.linspace(0.4, 0.6, 201), 0.5)
    ends = interval(replicates, 0.52, level=0.9)
    assert ends is not None
    assert (ends.low, ends.high) == (pytest.approx(0.43), pytest.approx(0.61))


def test_macro_mean_varies_less_than_its_classes() -> None:
    rng = np.random.default_rng(0)
    classes = [Replicates(rng.normal(0.8, 0.05, 2000), 0.8) for _ in range(4)]
    assert np.std(mean_replicates(classes).values) == pytest.approx(0.025, rel=0.1)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="resample"):
        bootstrap_images(np.zeros(3), np.zeros(3), resamples=0)
    with pytest.raises(ConfigError, match="level"):
        interval(Replicates(np.zeros(3), 0.0), 0.0, level=1.0)
    with pytest.raises(ConfigError, match="class"):
        mean_replicates([])
    with pytest.raises(ShapeError, match="equally many"):
        mean_replicates([Replicates(np.zeros(3), 0.0), Replicates(np.zeros(4), 0.0)])
    with pytest.raises(ShapeError, match=r"\(N,\)"):
        bootstrap_images(np.zeros((3, 2)), np.zeros((3, 2)))
