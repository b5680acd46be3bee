"""What is refused before a model is loaded, and what passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ad_dinov3.bench.checks import check_images, check_method, check_model, near_copies
from ad_dinov3.bench.scoring import as_test_set
from ad_dinov3.data.catalog import open_data
from ad_dinov3.errors import ConfigError, ImageError, WeightsError
from ad_dinov3.methods.table import METHODS


def test_every_method_passes_and_others_are_refused_with_the_list() -> None:
    for method in (None, *METHODS):
        check_method(method, None)
    with pytest.raises(ConfigError, match=r"no method 'patchcore'; there are ad_dinov3.*mahalanobis"):
        check_method("patchcore", None)


@pytest.mark.parametrize("method", [None, "mahalanobis"])
def test_weights_are_refused_where_nothing_takes_them(method: str | None) -> None:
    check_method("dinov3_plain", "nano")
    with pytest.raises(ConfigError, match="takes none"):
        check_method(method, "nano")


@pytest.mark.parametrize("model", ["./gone", "/gone", "a/b/c", "gone.pth", "runs/gone.ckpt"])
def test_paths_that_lead_nowhere_are_refused(model: str) -> None:
    with pytest.raises(WeightsError, match=f"^{model}: no such model"):
        check_model(None, model)


def test_what_is_there_or_may_be_on_the_hub_passes(tmp_path: Path) -> None:
    for model in ("embedded", str(tmp_path), "model", "someone/model-0.1"):
        check_model(None, model)


def test_the_first_image_without_a_readable_header_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    check_images([tmp_path / "a.png"])
    with pytest.raises(ImageError, match=r"b\.png"):
        check_images([tmp_path / "a.png", tmp_path / "b.png"])


def test_test_images_that_are_nearly_normal_ones_of_their_class_are_named(data_root: Path, tmp_path: Path) -> None:
    data = as_test_set(open_data(str(data_root)), None)
    nuts = [sample.image_path for sample in data.samples if sample.class_name == "metal_nut"]
    again = tmp_path / "again.bmp"
    Image.open(nuts[0]).save(again)
    assert near_copies([data], {"metal_nut": [again]}) == [(str(nuts[0]), again)]
    assert near_copies([data], {"tissue": [again]}) == []
