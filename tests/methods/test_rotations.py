"""Turned copies of images against exact quarter turns and a plain loop over pixels."""

from __future__ import annotations

import math

import plain_clip as plain
import pytest
import torch

from ad_dinov3.methods.rotations import rotated


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("beyond", ["reflection", "zeros"])
def test_quarter_turns_are_exact_and_come_image_by_image(mode: str, beyond: str) -> None:
    images = plain.images(2, 9, 9)
    found = rotated(images, [0, 90, 180, 270], mode, beyond)  # type: ignore[arg-type]
    expected = [image.rot90(turn, (1, 2)) for image in images for turn in range(4)]
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.stack(expected))


def mirrored(place: float, last: int) -> float:
    """A coordinate folded back into [0, last] at the outermost pixels' centres (c b | a b c | b a)."""
    place = abs(place) % (2 * last)
    return min(place, 2 * last - place)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 11)])
def test_any_turn_equals_a_loop_over_pixels(height: int, width: int) -> None:
    image = plain.images(1, height, width)
    angle = math.radians(30)
    found = rotated(image, [30])[0].float()
    middle = ((height - 1) / 2, (width - 1) / 2)
    for y in range(height):
        for x in range(width):
            right, down = x - middle[1], y - middle[0]
            # counter-clockwise on the screen, where y grows downwards: look where the pixel came from
            source_x = mirrored(math.cos(angle) * right - math.sin(angle) * down + middle[1], width - 1)
            source_y = mirrored(math.sin(angle) * right + math.cos(angle) * down + middle[0], height - 1)
            left, top = min(int(source_x), width - 2), min(int(source_y), height - 2)
            across, along = source_x - left, source_y - top
            corners = image[0, :, top : top + 2, left : left + 2].float()
            upper = corners[:, 0, 0] * (1 - across) + corners[:, 0, 1] * across
            lower = corners[:, 1, 0] * (1 - across) + corners[:, 1, 1] * across
            expected = upper * (1 - along) + lower * along
            torch.testing.assert_close(found[:, y, x], expected, atol=0.51, rtol=0)  # rounded to whole grey values


def test_what_comes_in_from_outside_can_be_black() -> None:
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert rotated(white, [45]).min() == 255
    turned = rotated(white, [45], "nearest", "zeros")[0, 0]
    assert turned[0, 0] == 0
    assert turned[8, 8] == 255
