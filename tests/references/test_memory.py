"""The memory of normal images, held against plain loops, an SVD and leave-one-out by doing it."""

from __future__ import annotations

import numpy as np
import pytest

from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.references.memory import Memory, Moments, Remembered, nearest
from ad_dinov3.references.tokens import unit


def normals(count: int, cells: int = 40, width: int = 12) -> np.ndarray:
    draw = np.random.default_rng(count)
    base = draw.normal(size=(cells, width))
    return np.stack([unit(base + 0.2 * draw.normal(size=(cells, width))) for _ in range(count)])


def test_nearest_equals_a_loop_over_tokens() -> None:
    tokens, bank = normals(1)[0], normals(3).reshape(-1, 12)
    looped = [min(1 - float(token @ other) for other in bank) for token in tokens]
    np.testing.assert_allclose(nearest(tokens, bank.T), looped, atol=1e-6)


def test_a_subspace_equals_that_of_a_singular_value_decomposition() -> None:
    tokens = (normals(5).reshape(-1, 12) * np.linspace(1, 0.02, 12)).astype(np.float32)
    subspace = Moments.of(tokens).subspace(0.95)
    centred = tokens - tokens.mean(0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), 0.95)) + 1
    assert subspace.basis.shape == (12, kept)
    rest = centred - centred @ rows[:kept].T @ rows[:kept]
    np.testing.assert_allclose(subspace.residual(tokens), (rest**2).sum(1), atol=1e-5)


def test_left_out_distances_are_those_of_a_memory_that_never_saw_the_image() -> None:
    images = normals(5)
    known = Remembered(list(images))
    for index in range(5):
        without = known.memory(without=index)
        others = np.delete(images, index, axis=0)
        near = nearest(images[index], others.reshape(-1, 12).T) / without.nearest_scale
        subspace = Moments.of(others.reshape(-1, 12)).subspace(0.99)
        rest = subspace.residual(images[index]) / without.residual_scale
        np.testing.assert_allclose(known.left_out[index], (near + rest) / 2, rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(without.distances(images[index]), known.left_out[index], rtol=1e-4)


def test_normal_tokens_are_about_one_away_and_strange_ones_farther() -> None:
    known = Remembered(list(normals(8)))
    assert float(np.median(known.left_out)) == pytest.approx(1, abs=0.2)
    strange = unit(np.random.default_rng(0).normal(size=(40, 12)))
    assert np.median(known.memory().distances(strange)) > 3


def test_the_order_of_the_normal_images_changes_nothing() -> None:
    images, tokens = normals(6), normals(1)[0]
    there, back = (Remembered(list(each)).memory().distances(tokens) for each in (images, images[::-1]))
    np.testing.assert_allclose(there, back, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_normal_images_give_finite_distances(count: int) -> None:
    known = Remembered(list(normals(count)))
    assert len(known.left_out) == max(count, 2)
    assert np.isfinite(known.memory().distances(normals(7)[0])).all()


def test_blank_images_give_finite_distances() -> None:
    known = Remembered([np.zeros((20, 4), np.float32)] * 3)
    assert np.isfinite(known.memory().distances(np.zeros((20, 4), np.float32))).all()


def test_many_tokens_keep_a_share_of_each_image_and_leave_each_out_once() -> None:
    known = Remembered(list(normals(9)), most_tokens=90)
    assert known.memory().bank.shape == (12, 90)
    assert known.memory(without=3).bank.shape == (12, 80)
    assert all(part.shape == (40,) and part.min() > 0 for part in known.left_out)


def test_images_may_have_different_numbers_of_tokens() -> None:
    images = [normals(2)[0], normals(2)[1][:25]]
    assert [len(part) for part in Remembered(images).left_out] == [40, 25]


def test_a_memory_comes_back_from_its_arrays() -> None:
    memory, tokens = Remembered(list(normals(4))).memory(), normals(7)[0]
    again = Memory.from_tensors(memory.tensors())
    np.testing.assert_array_equal(again.distances(tokens), memory.distances(tokens))
    with pytest.raises(ShapeError, match="expected bank"):
        Memory.from_tensors({"bank": memory.bank})
    with pytest.raises(ShapeError, match="12 channels"):
        Memory.from_tensors(memory.tensors() | {"mean": np.zeros(3)})


def test_what_cannot_be_remembered_or_compared_is_refused() -> None:
    with pytest.raises(ConfigError, match="no normal images"):
        Remembered([])
    with pytest.raises(ShapeError, match=r"tokens \(T, 12\)"):
        Remembered(list(normals(2))).memory().distances(np.zeros((4, 3), np.float32))
