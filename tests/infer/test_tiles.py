from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_detector import GRID, SIDE, ToyDetector

from ad_dinov3.assets import SAMPLES
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError, ShapeError
from ad_dinov3.infer.decide import find_regions, upsample
from ad_dinov3.infer.opening import load
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.infer.tiles import Fitted, Tiled, tile_starts

INPUT = (SIDE, SIDE)


class Brightness(ToyDetector):
    """Maps are the cells' mean brightness in [0, 1]; the score is the brightest cell."""

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        self.batches.append(len(batch))
        step = SIDE // GRID
        maps = batch.astype(np.float32).mean(1).reshape(len(batch), GRID, step, GRID, step).mean((2, 4)) / 255
        return RawScores(maps, maps.max((1, 2)))


class Steps(ToyDetector):
    """Each tile's map is one constant, alternating between 0 and 1: seams as hard as they can be."""

    def score(self, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        values = np.array([float((sum(self.batches) + i) % 2) for i in range(len(batch))], np.float32)
        self.batches.append(len(batch))
        return RawScores(np.ones((len(batch), GRID, GRID), np.float32) * values[:, None, None], values)


def map_of(scorer: Tiled | Fitted, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    raw = scorer.score(scorer.prepare(image)[None], ["object"])
    return raw.maps[0], float(raw.scores[0])


def test_small_defect_in_a_large_image_is_found_with_tiles_and_lost_without() -> None:
    image = np.full((2000, 8000, 3), 60, np.uint8)
    image[1203:1233, 5710:5740] = 255
    toy = ToyDetector()
    squashed = toy.score(toy.prepare(image)[None], ["object"])
    tiled_map, score = map_of(Tiled(toy, INPUT, 512), image)
    assert squashed.scores[0] < 0.02
    assert score > 0.3
    (region,) = find_regions(upsample(tiled_map, (2000, 8000)), 0.15)
    assert region.centroid == pytest.approx((5725, 1218), abs=16)
    assert region.area_px < 100 * 100


def test_the_embedded_model_finds_a_pit_in_a_large_sheet_with_tiles_and_calls_it_normal_without() -> None:
    piece = decode_image(SAMPLES / "weave" / "test" / "good" / "000.jpg")
    row = np.concatenate([piece, piece[:, ::-1]], axis=1)
    sheet = np.tile(np.concatenate([row, row[::-1]]), (3, 10, 1))[:2000, :8000]
    y, x = np.ogrid[:2000, :8000]
    pit = (y - 1218) ** 2 + (x - 5725) ** 2 < 16**2
    sheet[pit] //= 4
    detector = load(offline=True)
    squashed = detector.score(detector.prepare(sheet)[None], ["object"])
    tiled_map, score = map_of(Tiled(detector, detector.config.input.size, 512), sheet)
    assert squashed.scores[0] < detector.config.threshold <= score
    strongest = find_regions(upsample(tiled_map, (2000, 8000)), detector.config.threshold)[0]
    assert strongest.centroid == pytest.approx((5725, 1218), abs=16)


def test_a_smooth_image_gets_a_smooth_map_whatever_the_tiling() -> None:
    ramp = np.linspace(20, 230, 1024)
    image = np.repeat(np.broadcast_to(ramp[None, :, None], (700, 1024, 1)), 3, axis=2).astype(np.uint8)
    found, _ = map_of(Tiled(Brightness(), INPUT, 256, overlap=0.3), image)
    assert found.shape == (44, 64)  # cells of 16 px
    expected = np.interp((np.arange(64) + 0.5) * 16, np.arange(1024) + 0.5, ramp / 255)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.02)


def test_tiles_that_disagree_are_blended_over_their_overlap() -> None:
    scorer = Tiled(Steps(), INPUT, 64, overlap=0.5)
    found, score = map_of(scorer, np.zeros((64, 640, 3), np.uint8))
    assert score == 1
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.abs(np.diff(found[0])).max() < 0.2  # 8 cells of 4 px to go from 0 to 1


@pytest.mark.parametrize("size", [(30, 500), (64, 64), (65, 64), (333, 777), (5, 7)])
def test_constant_image_gets_a_constant_map_of_the_images_shape(size: tuple[int, int]) -> None:
    found, _ = map_of(Tiled(Brightness(), INPUT, 64), np.full((*size, 3), 51, np.uint8))
    assert found.shape == (max(1, round(size[0] / 4)), max(1, round(size[1] / 4)))
    np.testing.assert_allclose(found, 0.2, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_tiles_cover_every_pixel_and_overlap_at_least_as_wanted(overlap: float) -> None:
    for length in (1, 63, 64, 65, 127, 128, 129, 1000):
        starts = tile_starts(length, 64, overlap)
        assert starts[0] == 0
        assert length <= 64 or starts[-1] == length - 64
        steps = np.diff(starts)
        assert (steps <= np.ceil(64 * (1 - overlap)) + 1).all()
        assert (steps > 0).all()


def test_the_inner_scorer_sees_at_most_the_batch_size_at_once() -> None:
    toy = ToyDetector()
    Tiled(toy, INPUT, 64, batch_size=3).score(np.zeros((2, 3, 100, 300), np.uint8), ["a", "b"])
    assert max(toy.batches) == 3


def test_preparing_for_tiles_copies_nothing() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    assert np.shares_memory(Tiled(ToyDetector(), INPUT, 64).prepare(image), image)


def test_kept_aspect_puts_a_blemish_where_it_is() -> None:
    image = np.full((200, 800, 3), 60, np.uint8)
    image[100:150, 600:650] = 255
    fitted = Fitted(ToyDetector(), INPUT, "bilinear")
    prepared = fitted.prepare(image)
    assert prepared.shape == (3, 16, 64)
    found, _ = map_of(fitted, image)
    assert found.shape == (4, 16)
    (region,) = find_regions(upsample(found, (200, 800)), 0.3)
    assert region.centroid == pytest.approx((625, 125), abs=15)
    assert region.elongation < 1.2  # a square stays one


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0.25), (64, 0.95), (64, -0.1)])
def test_impossible_tiles_are_refused(tile: int, overlap: float) -> None:
    with pytest.raises(ConfigError, match="tiles"):
        Tiled(ToyDetector(), INPUT, tile, overlap)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected"):
        Tiled(ToyDetector(), INPUT, 64).prepare(np.zeros((4, 4), np.uint8))
