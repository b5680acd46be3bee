"""Gaussian, reference memory, baked prompts, strict checkpoints and k-means against plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from ad_dinov3.encoders.filling import checked_state
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.methods.clip_common import BakedPrompts, gaussian
from ad_dinov3.methods.kmeans import kmeans
from ad_dinov3.methods.references import References


@pytest.mark.parametrize("shape", [(1, 40, 33), (3, 7, 5), (2, 1, 60)])
@pytest.mark.parametrize("sigma", [0.7, 4.0])
def test_gaussian_equals_scipy_also_where_the_kernel_exceeds_the_map(shape: tuple[int, ...], sigma: float) -> None:
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(one, sigma) for one in maps.numpy()])
    np.testing.assert_allclose(gaussian(maps, sigma).numpy(), expected, atol=2e-6)


def test_gaussian_of_zero_sigma_is_the_map_itself() -> None:
    maps = torch.rand(2, 5, 5)
    assert gaussian(maps, 0.0) is maps


def test_distances_to_references_equal_a_plain_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    known = {name: torch.randn(4 + i, 6, generator=draw) for i, name in enumerate("ab")}
    tokens = torch.randn(2, 3, 6, generator=draw)
    references = References()
    for name, memory in known.items():
        references.remember(name, [memory])
    found = references.distances([tokens], ["b", "a"])[0]
    for row, name in enumerate(["b", "a"]):
        for place in range(3):
            cosines = [float(F.cosine_similarity(tokens[row, place], one, dim=0)) for one in known[name]]
            assert float(found[row, place]) == pytest.approx(1 - max(cosines), abs=1e-6)


def test_class_without_references_or_prompts_is_refused_by_name() -> None:
    references = References()
    references.remember("a", [torch.ones(1, 2)])
    with pytest.raises(ConfigError, match=r"no reference images of b; there are a"):
        references.distances([torch.ones(1, 1, 2)], ["b"])
    with pytest.raises(ConfigError, match=r"no prompts for screw; baked are bottle, nut"):
        BakedPrompts(["bottle", "nut"], 3).columns(["screw"])


def test_baked_prompts_come_as_unit_columns_in_the_order_asked() -> None:
    prompts = BakedPrompts([], 3)
    prompts.bake({"a": torch.tensor([[2.0, 0, 0], [0, 3, 0]]), "b": torch.tensor([[0, 0, 5.0], [1, 0, 0]])})
    columns = prompts.columns(["b", "a", "b"])
    assert columns.shape == (3, 3, 2)
    assert torch.equal(columns[0], torch.tensor([[0, 1.0], [0, 0], [1, 0]]))
    assert torch.equal(columns[1], torch.tensor([[1.0, 0], [0, 1], [0, 0]]))


def test_checkpoint_with_wrong_tensors_is_refused_with_all_their_names() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    found = {"b": torch.zeros(4), "c": torch.zeros(1), "d": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        checked_state("file.pth", found, wanted)
    for told in ("file.pth", "1 missing: a", "1 unknown: d", "b (4,) instead of (3,)"):
        assert told in str(caught.value)


def plain_kmeans(points: np.ndarray, k: int, seed: int) -> list[int]:
    """k-means++ and Lloyd's rounds, one point and one centre at a time."""
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < k:
        near = np.array([min(((p - points[c]) ** 2).sum() for c in chosen) for p in points])
        chosen.append(int(rng.choice(len(points), p=near / near.sum())))
    centres = [points[c].copy() for c in chosen]
    labels: list[int] = []
    for _ in range(300):
        new = [int(np.argmin([((p - c) ** 2).sum() for c in centres])) for p in points]
        if new == labels:
            break
        labels = new
        for label in range(k):
            members = [p for p, own in zip(points, labels, strict=True) if own == label]
            if members:
                centres[label] = np.mean(members, axis=0)
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_equals_a_plain_loop(seed: int) -> None:
    points = np.random.default_rng(100 + seed).normal(size=(40, 6))
    assert kmeans(points.astype(np.float32), 6, seed).tolist() == plain_kmeans(points.astype(np.float32), 6, seed)


def test_kmeans_uses_every_label_where_points_allow() -> None:
    points = np.repeat(np.arange(5.0)[:, None], 4, axis=0)
    for seed in range(10):
        labels = kmeans(points, 5, seed)
        assert len(set(labels.tolist())) == 5
        assert all(len(set(labels[4 * i : 4 * i + 4].tolist())) == 1 for i in range(5))


def test_kmeans_of_equal_points_is_one_cluster_and_not_an_error() -> None:
    assert set(kmeans(np.ones((10, 3)), 4, 0).tolist()) == {0}
