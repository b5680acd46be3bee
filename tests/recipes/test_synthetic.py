"""The rendered pictures: deterministic, exactly labelled, varied, quick, and free of torch."""

import hashlib
import subprocess
import sys
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ad_dinov3.assets import GOOD_SAMPLES
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.data.masks import decode_mask
from ad_dinov3.errors import ConfigError, ShapeError
from recipes.embedded.samples import SHIPPED
from recipes.render_samples import RECIPES, jpeg
from recipes.synthetic import DEFECTS, MATERIALS, paste_defect, render
from recipes.synthetic.materials import SUITED
from recipes.synthetic.noise import cells, noise
from recipes.synthetic.surface import Light, shade

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "src/ad_dinov3/assets/samples"


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    """A coloured picture with detail."""
    return render(7, 192, "wood", "good").image


@pytest.mark.parametrize("material", MATERIALS)
def test_every_material_renders_normal_and_defective_pictures_of_the_asked_size(material: str) -> None:
    good = render(3, 97, material, "good")
    assert good.image.shape == (97, 97, 3)
    assert good.image.dtype == np.uint8
    assert good.mask.shape == (97, 97)
    assert not good.mask.any()
    assert good.image.std() > 2
    for seed in range(3):
        defective = render(seed, 96, material, SUITED[material][seed])
        assert 4 <= defective.mask.sum() < 0.6 * defective.mask.size


@pytest.mark.parametrize("material", ["brushed_metal", "gear", "ultrasound"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_changes_the_picture_inside_its_mask_and_hardly_outside(material: str, defect: str) -> None:
    # One seed gives one scene and one camera, so the normal twin differs by the defect alone.
    twin = render(11, 128, material, "good").image.astype(int)
    spoilt = render(11, 128, material, defect)
    change = np.abs(spoilt.image.astype(int) - twin).max(axis=2)
    assert change[spoilt.mask].mean() > 3
    far = ~ndimage.binary_dilation(spoilt.mask, iterations=16)
    assert far.any()
    # Wider than the soft edges and shadows around a defect nothing may happen.
    assert change[far].mean() < 0.1 * change[spoilt.mask].mean()


def test_render_is_equal_in_another_process_and_differs_between_seeds() -> None:
    code = (
        "import hashlib, sys; from recipes.synthetic import render;"
        "assert 'torch' not in sys.modules;"
        "print(*[hashlib.sha256(r.image.tobytes() + r.mask.tobytes()).hexdigest()"
        " for r in (render(seed, 80) for seed in range(6))])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    here = [render(seed, 80) for seed in range(6)]
    digests = [hashlib.sha256(r.image.tobytes() + r.mask.tobytes()).hexdigest() for r in here]
    assert run.stdout.split() == digests
    assert len(set(digests)) == 6


def test_naming_what_the_seed_would_draw_changes_nothing() -> None:
    for seed in range(5):
        drawn = render(seed, 72)
        named = render(seed, 72, drawn.material, drawn.defect)
        assert np.array_equal(named.image, drawn.image)
        assert np.array_equal(named.mask, drawn.mask)


def test_drawn_pictures_cover_the_materials_and_about_a_quarter_is_normal() -> None:
    drawn = [render(seed, 64) for seed in range(120)]
    assert len({rendered.material for rendered in drawn}) > 0.8 * len(MATERIALS)
    assert 0.12 < np.mean([rendered.defect == "good" for rendered in drawn]) < 0.4
    assert all(rendered.mask.any() == (rendered.defect != "good") for rendered in drawn)


def test_scans_stay_grey_when_a_defect_is_drawn() -> None:
    for seed in range(8):
        image = render(seed, 96, "ultrasound").image
        assert np.array_equal(image[..., 0], image[..., 1])
        assert np.array_equal(image[..., 0], image[..., 2])


def test_render_refuses_unknown_names_and_tiny_sizes() -> None:
    with pytest.raises(ConfigError, match=r"choose one of .*wood"):
        render(0, 64, "cheese")
    with pytest.raises(ConfigError, match="choose one of good, scratch"):
        render(0, 64, "wood", "ennui")
    with pytest.raises(ConfigError, match="at least 64"):
        render(0, 32)


def test_every_material_has_defects_that_exist() -> None:
    assert set(SUITED) == set(MATERIALS)
    assert all(set(names) <= set(DEFECTS) for names in SUITED.values())


def test_paste_is_deterministic_and_leaves_the_original_alone(photo: NDArray[np.uint8]) -> None:
    before = photo.copy()
    for seed in range(6):
        first = paste_defect(photo, np.random.default_rng(seed), photo[::-1])
        second = paste_defect(photo, np.random.default_rng(seed), photo[::-1])
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
    assert np.array_equal(photo, before)


def test_pasted_masks_tell_where_the_picture_changed_from_tiny_to_large(photo: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    shares, changes, caught = [], [], []
    for _ in range(80):
        image, mask = paste_defect(photo, rng)
        change = np.abs(image.astype(int) - photo).max(axis=2)
        shares.append(mask.mean())
        changes.append(change[mask].mean())
        caught.append(change[ndimage.binary_dilation(mask, iterations=6)].sum() / change.sum())
    assert min(shares) < 0.001
    assert max(shares) > 0.08
    assert np.quantile(changes, 0.05) > 4
    assert np.mean(caught) > 0.95


def test_paste_keeps_grey_pictures_grey_mostly() -> None:
    grey = np.repeat(render(1, 96, "steel_strip", "good").image.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    rng = np.random.default_rng(0)
    tinted = [bool((np.ptp(paste_defect(grey, rng)[0], axis=2) > 1).any()) for _ in range(60)]
    assert 0 < np.mean(tinted) < 0.25


def test_paste_labels_nothing_that_stays_black() -> None:
    scan = np.zeros((128, 128, 3), np.uint8)
    scan[40:90, 40:90] = np.random.default_rng(1).integers(60, 160, (50, 50, 1))
    rng = np.random.default_rng(2)
    for _ in range(60):
        image, mask = paste_defect(scan, rng)
        still_black = (scan.max(2) == 0) & (image.max(2) == 0)
        assert not (mask & still_black).any()


@pytest.mark.parametrize(
    "image",
    [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32), np.zeros((64, 16, 3), np.uint8)],
    ids=["grey", "float", "narrow"],
)
def test_paste_refuses_what_is_not_an_rgb_picture(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError, match="decode_image"):
        paste_defect(image, np.random.default_rng(0))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
def test_noise_has_the_spectrum_that_beta_names(beta: float) -> None:
    rng = np.random.default_rng(0)
    # A window, so that the crop's edges add no power of their own.
    window = np.hanning(256)[:, None] * np.hanning(256)
    power = np.abs(np.fft.fft2(noise(rng, (256, 256), 1.0, beta) * window)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    rings = np.linspace(0.03, 0.4, 20)
    mean = [power[(radius >= low) & (radius < high)].mean() for low, high in pairwise(rings)]
    slope = np.polyfit(np.log((rings[1:] + rings[:-1]) / 2), np.log(mean), 1)[0]
    assert slope == pytest.approx(-beta, abs=0.15)


def test_streaks_vary_faster_across_than_along() -> None:
    field = noise(np.random.default_rng(0), (128, 128), (1.0, 40.0))
    assert np.abs(np.diff(field, axis=0)).mean() > 8 * np.abs(np.diff(field, axis=1)).mean()


def test_cell_borders_are_where_the_cell_value_changes() -> None:
    diagram = cells(np.random.default_rng(0), (200, 200), 20)
    border = np.abs(np.diff(diagram.value, axis=1)) > 1e-3
    assert diagram.edge[:, 1:][border].mean() < 0.2 * diagram.edge.mean()


def test_shading_brightens_slopes_that_face_the_light_and_keeps_flat_ground() -> None:
    albedo = np.full((32, 32, 3), 0.5, np.float32)
    rows = np.arange(32, dtype=np.float32)[:, None]
    light = Light(azimuth=float(np.pi / 2), elevation=0.8)  # from below, toward growing rows
    flat = shade(albedo, np.zeros((32, 32), np.float32), light)
    assert flat == pytest.approx(albedo, abs=1e-6)
    falling = shade(albedo, np.broadcast_to(-0.3 * rows, (32, 32)).astype(np.float32), light)
    assert falling[16, 16, 0] > 0.55
    assert shade(albedo, np.broadcast_to(0.3 * rows, (32, 32)).astype(np.float32), light)[16, 16, 0] < 0.45


def test_committed_samples_are_what_their_recorded_seeds_render() -> None:
    for entry in RECIPES:
        rendered = entry.render()
        committed = np.asarray(Image.open(entry.image_path(SAMPLES)).convert("RGB")).astype(int)
        again = np.asarray(Image.open(BytesIO(jpeg(rendered))).convert("RGB")).astype(int)
        # Another processor's sine may round a pixel otherwise; another scene would differ everywhere.
        assert np.abs(again - committed).mean() < 0.5, entry
        if entry.defect == "good":
            assert not entry.mask_path(SAMPLES).exists()
            assert not rendered.mask.any()
        else:
            mask = decode_mask(entry.mask_path(SAMPLES))
            assert (mask != rendered.mask).mean() < 0.0005, entry


def test_committed_samples_read_as_a_data_set_of_several_kinds() -> None:
    samples = read_folder(SAMPLES)
    photographs = [sample for sample in samples if sample.class_name == "cookie"]
    assert len(samples) == len(RECIPES) + len(photographs)
    good = {path.name for path in (GOOD_SAMPLES / "cookie").glob("*.jpg")}
    assert {sample.image_path.name for sample in photographs} | good == SHIPPED
    assert (SAMPLES / "cookie" / "CREDITS.md").is_file()
    assert sum(not sample.is_anomalous for sample in samples) in (3, 4)
    assert len({sample.class_name for sample in samples}) >= 8
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 850_000
    assert all(Image.open(path).mode == "1" for path in files if path.suffix == ".png")
