"""Images that are saved again, cropped or the next frame are found; other images of the product are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ad_dinov3.data.near_copies import NearCopies, near_copy_words


def part(seed: int, likeness: float) -> np.ndarray:
    """An image (200, 240, 3); at likeness 1 all parts look the same but for noise, at 0 they have nothing in common."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    coarse = likeness * shared.uniform(40, 215, (5, 6)) + (1 - likeness) * own.uniform(40, 215, (5, 6))
    smooth = Image.fromarray(coarse.astype(np.uint8)).resize((240, 200), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.float64)[:, :, None] + own.normal(0, 6, (200, 240, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def saved_again(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).crop((1, 1, 239, 199)).resize((160, 140)).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def given(folder: Path, count: int, likeness: float) -> list[Path]:
    paths = [folder / f"{seed}.png" for seed in range(count)]
    for seed, path in enumerate(paths):
        Image.fromarray(part(seed, likeness)).save(path)
    return paths


def test_a_copy_that_was_resized_and_saved_again_is_found_and_another_part_is_not(tmp_path: Path) -> None:
    paths = given(tmp_path, 6, 0.5)
    known = NearCopies(paths)
    assert known.original(saved_again(part(3, 0.5))) == paths[3]
    assert [known.original(part(seed, 0.5)) for seed in range(10, 30)] == [None] * 20


def test_where_all_parts_look_alike_only_the_same_image_is_a_copy(tmp_path: Path) -> None:
    paths = given(tmp_path, 6, 1.0)
    known = NearCopies(paths)
    assert known.original(part(2, 1.0)) == paths[2]
    assert [known.original(part(seed, 1.0)) for seed in range(10, 30)] == [None] * 20


def test_one_normal_image_is_enough_to_find_its_copy(tmp_path: Path) -> None:
    paths = given(tmp_path, 1, 0.5)
    known = NearCopies(paths)
    assert known.original(part(0, 0.5)) == paths[0]
    assert known.original(part(1, 0.5)) is None


def test_the_words_name_the_first_and_count_all() -> None:
    one = near_copy_words([("a.png", Path("good/1.png"))])
    assert one.startswith("1 image is nearly a normal one (a.png is like good/1.png)")
    assert near_copy_words([("a.png", Path("good/1.png"))] * 3).startswith("3 images are nearly normal ones (a.png")
