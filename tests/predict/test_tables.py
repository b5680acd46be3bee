from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_dinov3.infer.decide import find_regions
from ad_dinov3.predict.report import make_thumbnail
from ad_dinov3.predict.results import Row
from ad_dinov3.predict.tables import write_parquet


def test_a_thumbnail_stays_small_and_its_map_keeps_the_scale() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3000, 2000, 3), np.uint8)
    patch_map = np.full((40, 30), 0.2, np.float32)  # never stretched to the map's own range
    patch_map[3, 4] = 0.4
    thumbnail = make_thumbnail("a.png", image, patch_map)
    photo = Image.open(io.BytesIO(base64.b64decode(thumbnail.photo)))
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail.patch_map))))
    assert photo.size == (213, 320)
    assert len(thumbnail.photo) < 80_000
    assert (levels.shape, levels.dtype, levels.min(), levels.max()) == ((40, 30), np.uint8, 51, 102)


def test_a_grey_photo_is_kept_in_one_channel_and_shows_what_three_would_show() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 60, 1), np.uint8)
    thumbnail = make_thumbnail("a.png", np.repeat(grey, 3, axis=2), np.zeros((4, 4), np.float32))
    photo = Image.open(io.BytesIO(base64.b64decode(thumbnail.photo)))
    in_colour = io.BytesIO()
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(in_colour, "JPEG", quality=78)
    assert photo.mode == "L"
    np.testing.assert_array_equal(np.asarray(photo.convert("RGB")), np.asarray(Image.open(in_colour)))


def test_parquet_holds_the_rows_and_their_regions(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    values = np.zeros((20, 30), np.float32)
    values[3:8, 4:20] = 0.7
    row = Row(
        image="a.png",
        path="/in/a.png",
        decision="anomalous",
        score=0.7,
        threshold=0.5,
        class_name="nut",
        width=30,
        height=20,
        anomalous_area_px=80,
        regions=tuple(find_regions(values, 0.5)),
    )
    failed = Row(image="b.png", path="/in/b.png", decision="failed", error="empty")
    write_parquet(tmp_path / "results.parquet", iter([row, failed]))
    first, second = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert first["regions"][0]["box"] == [4, 3, 20, 8]
    assert (second["score"], second["error"]) == (None, "empty")
