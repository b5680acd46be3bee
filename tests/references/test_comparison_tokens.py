"""Comparison tokens, held against plain loops and torch's pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ad_dinov3.errors import ShapeError
from ad_dinov3.references.tokens import coarsening, coarser, comparison_tokens, seeded_projection, unit, window_mean


def stages(seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(2, 6, 7, width)).astype(np.float32) for width in (3, 5)]


def test_tokens_equal_a_plain_loop_over_cells_and_windows() -> None:
    found = comparison_tokens(stages())
    for image, row, column in [(0, 0, 0), (1, 3, 3), (0, 5, 6), (1, 2, 0)]:
        joined = np.zeros(8)
        for side in (1, 3, 5):
            reach, window = side // 2, []
            for r in range(row - reach, row + reach + 1):
                for c in range(column - reach, column + reach + 1):
                    if 0 <= r < 6 and 0 <= c < 7:
                        parts = [stage[image, r, c] for stage in stages()]
                        window.append(np.concatenate([part / np.linalg.norm(part) for part in parts]))
            joined += np.mean(window, axis=0)
        np.testing.assert_allclose(found[image, row, column], joined / np.linalg.norm(joined), atol=1e-6)


@pytest.mark.parametrize("side", [1, 3, 5, 9])
def test_a_window_mean_equals_torchs_average_pooling_without_padding(side: int) -> None:
    tokens = stages()[0]
    pooled = F.avg_pool2d(torch.from_numpy(tokens).permute(0, 3, 1, 2), side, 1, side // 2, count_include_pad=False)
    np.testing.assert_allclose(window_mean(tokens, side), pooled.permute(0, 2, 3, 1), atol=1e-6)


def test_a_projection_before_the_windows_equals_one_after_them() -> None:
    projection = seeded_projection(8, 4)
    assert projection is not None
    after = unit(
        sum(window_mean(np.concatenate([unit(s) for s in stages()], -1), side) for side in (1, 3)) @ projection
    )
    np.testing.assert_allclose(comparison_tokens(stages(), (1, 3), projection), after, atol=1e-5)


def test_a_projection_is_orthonormal_the_same_for_a_seed_and_absent_where_tokens_are_short() -> None:
    one, again, other = (seeded_projection(200, 64, seed) for seed in (0, 0, 1))
    assert one is not None
    assert again is not None
    assert other is not None
    np.testing.assert_allclose(one.T @ one, np.eye(64), atol=1e-5)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert seeded_projection(64, 64) is None


def test_tokens_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="on one grid"):
        comparison_tokens([np.zeros((6, 7, 3)), np.zeros((6, 6, 3))])
    with pytest.raises(ShapeError, match="projection of 8 channels"):
        comparison_tokens(stages(), projection=np.zeros((9, 2), np.float32))
    with pytest.raises(ShapeError, match="odd"):
        window_mean(stages()[0], 2)


def test_a_blank_cell_stays_zero() -> None:
    assert not comparison_tokens([np.zeros((3, 3, 4))]).any()


def test_a_fine_grid_is_averaged_down_with_smaller_cells_at_its_ends() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 81, 85, 2)).astype(np.float32)
    assert coarsening((81, 85)) == 3
    found = coarser(tokens, 3)
    assert found.shape == (1, 27, 29, 2)
    np.testing.assert_allclose(found[0, 1, 2], tokens[0, 3:6, 6:9].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found[0, 26, 28], tokens[0, 78:81, 84:85].mean((0, 1)), atol=1e-6)
    pooled = F.avg_pool2d(torch.from_numpy(tokens).permute(0, 3, 1, 2), 3, 3, ceil_mode=True)
    np.testing.assert_allclose(found, pooled.permute(0, 2, 3, 1), atol=1e-6)
    assert comparison_tokens([tokens]).shape == (1, 27, 29, 2)
