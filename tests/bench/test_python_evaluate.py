"""From Python as from the command line: train, load, measure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ad_dinov3
from ad_dinov3.assets import SAMPLES
from ad_dinov3.errors import DataError


def test_a_model_trained_in_four_lines_is_measured_and_refused_its_own_images(tmp_path: Path) -> None:
    data = ad_dinov3.open_data(str(SAMPLES / "steel_strip"))
    config = ad_dinov3.PRESETS["embedded"].with_settings({"train.epochs": 1, "trained_on": (data.name,)})
    ad_dinov3.train(ad_dinov3.new_model(config, data.words), data.listing.complete(), tmp_path / "model")
    detector = ad_dinov3.load(tmp_path / "model")
    result = ad_dinov3.evaluate(detector, str(SAMPLES / "ceramic_tile"), store=tmp_path / "store")
    assert 0 <= (result.values["pixel_auroc"] or -1) <= 1
    assert re.match(r"<Evaluation of ad_dinov3 on ceramic_tile, 1 images: ", repr(result))
    assert "<th>Pixel AUROC</th>" in result._repr_html_()
    assert {"pixel_auroc", "pixel_f1_max"} <= {str(row["metric"]) for row in json.loads(json.dumps(result.to_dicts()))}
    with pytest.raises(DataError, match="steel_strip"):
        ad_dinov3.evaluate(detector, data)
    marked = ad_dinov3.evaluate(detector, data, seen_too=True)
    assert "not zero-shot" in marked._repr_html_()
