"""Prompts that name other states: what is baked, what is kept, what stays as it was, and what is refused."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_clip as plain
import pytest
import torch

from ad_dinov3.config import PRESETS
from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS, encode_classes
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.methods.april_gan import AprilGan
from ad_dinov3.model import new_model

sys.path.append(str(Path(__file__).parents[1] / "encoders"))
from clip_models import tiny_clip

WORDED = ("ad_dinov3", "winclip", "april_gan", "adaclip")
NORMAL, ABNORMAL = ("clean {}", "{} as it should be"), ("{} with a scratch", "bent {}", "{} with rust")
IMAGE = plain.images(1, 24, 24)[0].permute(1, 2, 0).numpy()


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """A random text encoder of Hugging Face's layout, which can go away."""
    tiny_clip(tmp_path / "text")
    return tmp_path / "text"


def detector_of(method: str, clip: str, tiny_vit: Path, text_folder: Path) -> Detector:
    small: dict[str, object] = {"encoder": clip, "input.height": 24, "input.width": 24}
    if method == "ad_dinov3":
        small |= {"encoder": str(tiny_vit), "method.prompts.text_encoder": str(text_folder), "method.width": 8}
    preset = "default" if method == "ad_dinov3" else method
    return Detector(new_model(PRESETS[preset].with_settings(small), {"tile": "tile"}, offline=True), offline=True)


@pytest.fixture(params=WORDED)
def detector(request: pytest.FixtureRequest, clip: str, tiny_vit: Path, text_folder: Path) -> Detector:
    return detector_of(request.param, clip, tiny_vit, text_folder)


def seen(detector: Detector, class_name: str = "tile") -> np.ndarray:  # type: ignore[type-arg]
    """Map and score of the image."""
    raw = detector.score(detector.prepare(IMAGE)[None], [class_name])
    return np.append(raw.maps.ravel(), raw.scores)


def test_its_own_states_change_nothing_and_others_do(detector: Detector) -> None:
    before = seen(detector)
    assert detector.states is not None
    same = detector.with_states(detector.states.normal, detector.states.abnormal)
    np.testing.assert_array_equal(seen(same), before)
    other = detector.with_states(NORMAL, ABNORMAL)
    assert not np.allclose(seen(other), before, atol=1e-6)
    assert other.fingerprint != detector.fingerprint
    np.testing.assert_array_equal(seen(detector), before)  # others use it meanwhile


def test_saved_with_the_states_it_bakes_further_classes_with_them(detector: Detector, tmp_path: Path) -> None:
    other = detector.with_states(NORMAL, ABNORMAL)
    other.save_pretrained(tmp_path / "model")
    again = load(tmp_path / "model", offline=True)
    assert isinstance(again, Detector)
    assert again.states is not None
    assert (again.states.normal, again.states.abnormal) == (NORMAL, ABNORMAL)
    assert again.fingerprint == other.fingerprint
    for class_name in ("tile", "object", "nut"):  # the last one is new to both
        np.testing.assert_array_equal(seen(again, class_name), seen(other, class_name))
        assert not np.allclose(seen(other, class_name), seen(detector, class_name), atol=1e-6)


def test_baked_are_the_methods_templates_around_the_states(clip: str, tiny_vit: Path, text_folder: Path) -> None:
    head = detector_of("april_gan", clip, tiny_vit, text_folder).with_states(NORMAL, ABNORMAL).model.head
    assert isinstance(head, AprilGan)
    expected = encode_classes(
        load_clip_text(clip, activation="gelu"), replace(DEFAULT_PROMPTS, normal=NORMAL, abnormal=ABNORMAL), ["tile"]
    )
    torch.testing.assert_close(head.prompts.rows[head.class_names.index("tile")], expected["tile"])


@pytest.mark.parametrize("method", ["winclip", "april_gan"])
def test_with_both_sides_exchanged_normal_is_anomalous(
    method: str, clip: str, tiny_vit: Path, text_folder: Path
) -> None:
    detector = detector_of(method, clip, tiny_vit, text_folder)
    one, other = detector.with_states(NORMAL, ABNORMAL), detector.with_states(ABNORMAL, NORMAL)
    inputs = detector.prepare(IMAGE)[None]
    assert one.score(inputs, ["tile"]).scores + other.score(inputs, ["tile"]).scores == pytest.approx(1, abs=1e-5)


def test_few_shot_memory_goes_along(clip: str, tiny_vit: Path, text_folder: Path) -> None:
    detector = detector_of("winclip", clip, tiny_vit, text_folder)
    detector.remember([IMAGE], "tile")
    other = detector.with_states(NORMAL, ABNORMAL)
    assert other.normal_classes == ("tile",)
    assert not np.allclose(seen(other), seen(detector), atol=1e-6)


@pytest.mark.parametrize(
    ("normal", "abnormal", "words"),
    [
        (NORMAL, ("scratched",), r"abnormal: .*exactly one \{\} in each state, got 'scratched'"),
        (("{} {}",), ABNORMAL, r"normal: .*exactly one \{\} in each state"),
        ((), ABNORMAL, "states does not fit States: normal"),
        (NORMAL, ("{}" + "x" * 200,), "at most 200"),
        (NORMAL, ("bad {}",) * 101, "at most 100"),
    ],
)
def test_what_is_no_state_is_refused_in_one_line(
    normal: tuple[str, ...], abnormal: tuple[str, ...], words: str, clip: str, tiny_vit: Path, text_folder: Path
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        detector_of("winclip", clip, tiny_vit, text_folder).with_states(normal, abnormal)
    assert "\n" not in str(refused.value)


def test_models_whose_prompts_are_no_sentences_say_so() -> None:
    embedded = Detector.from_pretrained(offline=True)
    assert embedded.states is None
    with pytest.raises(ConfigError, match="name no states; those of ad_dinov3, winclip, april_gan and adaclip do"):
        embedded.with_states(NORMAL, ABNORMAL)


def test_a_calibrated_model_keeps_its_states(clip: str, tiny_vit: Path, text_folder: Path) -> None:
    detector = detector_of("ad_dinov3", clip, tiny_vit, text_folder)
    detector.remember(list(plain.images(3, 24, 24).permute(0, 2, 3, 1).numpy()), "tile")
    with pytest.raises(ConfigError, match="calibrated by good images under its present states"):
        detector.with_states(NORMAL, ABNORMAL)


def test_without_the_text_encoder_the_refusal_says_how_to_get_it(clip: str, tiny_vit: Path, text_folder: Path) -> None:
    detector = detector_of("ad_dinov3", clip, tiny_vit, text_folder)
    before = seen(detector)
    shutil.rmtree(text_folder)
    with pytest.raises(WeightsError, match=str(text_folder)):
        detector.with_states(NORMAL, ABNORMAL)
    np.testing.assert_array_equal(seen(detector), before)
