"""Methods made ready for measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ad_dinov3.bench.subjects import mahalanobis_subject, open_subject
from ad_dinov3.errors import ConfigError
from ad_dinov3.methods.mahalanobis import mahalanobis_map


def test_the_floor_gives_the_methods_own_map() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    subject = mahalanobis_subject(size_px=64)
    raw = subject.detector.score(subject.detector.prepare(image)[None], ["x"])
    np.testing.assert_array_equal(raw.maps[0], mahalanobis_map(image, 64))
    assert raw.scores[0] <= raw.maps[0].max()


def test_the_untrained_baseline_takes_any_encoder_and_carries_no_training_data(tiny_vit: Path) -> None:
    subject = open_subject("dinov3_plain", "embedded", str(tiny_vit))
    assert (subject.method, subject.trained_on, subject.training_seed) == ("dinov3_plain", (), None)
    assert subject.training_images == frozenset()


def test_unknown_methods_and_useless_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="no method 'patchcore'"):
        open_subject("patchcore", "embedded")
    with pytest.raises(ConfigError, match="takes none"):
        open_subject("mahalanobis", "embedded", "nano")
