"""The anomaly map drawn on the image, on a fixed scale: 0 is always clear, 1 is always the same yellow.

A map is never stretched to its own minimum and maximum: a good image stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TypeVarTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ad_dinov3.errors import ShapeError

_STRONGEST = 0.75  # opacity of the map's value 1; the image shows through everywhere
_OPACITY = bytes(round(_STRONGEST * level) for level in range(256))
_MIN_SIDE_PX = 360  # smaller images are enlarged, else neither caption nor outline can be read
_MAX_SIDE_PX, _MAX_PX = 60_000, 40_000_000  # a JPEG side is 65,500 px at most, the strip of the caption included
_BAND_PX = 1 << 16  # what is looked up and what by stay in the cache
_KEPT_TEXTS, _KEPT_TEXT_PX = 128, 32  # a run writes the same words again and again; large ones take memory
_FOOTER = (22, 24, 29)
_INK = (236, 238, 242)
_FAINT_INK = (150, 155, 165)
_ALARM = (255, 138, 92)

Facts = TypeVarTuple("Facts")
Colour = tuple[int, int, int]
Polygon = Sequence[tuple[int, int]]
Hues = tuple[float, float]
WARM: Hues = (295, 460)
"""From violet over red to pale yellow, in degrees of hue."""
COOL: Hues = (290, 185)
"""From violet over blue to pale cyan, which stays visible on orange and brown products."""


@cache
def colour_table(hues: Hues = WARM) -> NDArray[np.uint8]:
    """256 colours (256, 3) uint8 sRGB from a near-black to a pale one, in equal steps of lightness.

    Computed in OKLab (B. Ottosson 2020): lightness is linear, so that the scale is one for colour-blind eyes, too; the
    hue turns from the first to the last of ``hues``, and chroma is cut back to what sRGB can show, so that equal
    differences of the map look equally large.
    """
    step = np.linspace(0, 1, 256)
    lightness = 0.14 + 0.82 * step
    hue = np.radians(hues[0] + (hues[1] - hues[0]) * step)
    chroma = 0.04 + 0.16 * np.sin(np.pi * step)
    for _ in range(300):  # shrink what lies outside of sRGB, 0.5 % at a time
        linear = _oklab_to_linear(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        chroma = np.where(outside, chroma * 0.995, chroma)
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return table


def _oklab_to_linear(
    lightness: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=1,
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear: NDArray[np.float64] = cones**3 @ to_rgb.T
    return linear


def blend(image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], hues: Hues = WARM) -> Image.Image:
    """The image under the coloured map, whose opacity is proportional to its value.

    Args:
        image: (H, W, 3) RGB, or (H, W) grey, which takes half the time.
        anomaly_map: (H, W) in [0, 1].
        hues: of the colours, in degrees.

    Raises:
        ShapeError: the two differ in size.
    """
    if image.shape not in (anomaly_map.shape, (*anomaly_map.shape, 3)):
        raise ShapeError(f"expected an image and a map of one size, got {image.shape} and {anomaly_map.shape}")
    scaled = anomaly_map * np.float32(255)
    scaled += np.float32(0.5)
    levels = scaled.astype(np.uint8)
    return _blended_grey(image, levels, hues) if image.ndim == 2 else _blended(image, levels, hues)


def _blended(image: NDArray[np.uint8], levels: NDArray[np.uint8], hues: Hues) -> Image.Image:
    coloured = Image.fromarray(levels)
    opacity = Image.frombytes("L", coloured.size, levels.tobytes().translate(_OPACITY))
    coloured.putpalette(colour_table(hues).tobytes())
    picture = Image.fromarray(image)
    picture.paste(coloured.convert("RGB"), mask=opacity)
    return picture


def _blended_grey(grey: NDArray[np.uint8], levels: NDArray[np.uint8], hues: Hues) -> Image.Image:
    """A grey value under a level has one of 65,536 colours, which are looked up."""
    colours = _grey_colours(hues)
    picture = np.empty(grey.shape, colours.dtype)
    step = max(1, _BAND_PX // grey.shape[1])  # numpy turns what it looks up by into 64 bits
    for top in range(0, len(grey), step):
        rows = slice(top, top + step)
        colours.take(levels[rows].astype(np.uint16) << 8 | grey[rows], out=picture[rows], mode="clip")
    return Image.frombytes("RGB", (grey.shape[1], grey.shape[0]), picture, "raw", "RGBX")


@cache
def _grey_colours(hues: Hues) -> NDArray[np.uint32]:
    """The colours (65536,) of all grey values under all levels, level first; four bytes RGBX each."""
    level, grey = np.indices((256, 256), np.uint8)
    return np.frombuffer(_blended(np.stack([grey] * 3, axis=2), level, hues).tobytes("raw", "RGBX"), np.uint32)


def draw_overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    polygons: Sequence[Polygon] = (),
    *,
    score: float,
    threshold: float,
) -> Image.Image:
    """The image under its map, regions outlined, above a strip with the score and the colour bar of [0, 1].

    The picture has the image's own size with the strip below it, so that pixel (x, y) stays where it was; only an
    image whose longer side is below 360 px is enlarged, and one of more than 50 million px, or longer than a JPEG can
    be, is shown by every second, third ... of its pixels. The image is (H, W, 3) RGB or (H, W) grey.
    """
    step = _step(anomaly_map.shape)
    if step > 1:
        image = np.ascontiguousarray(image[::step, ::step])
        anomaly_map = np.ascontiguousarray(anomaly_map[::step, ::step])
        polygons = [[(x // step, y // step) for x, y in polygon] for polygon in polygons]
    picture = blend(image, anomaly_map)
    factor = -(-_MIN_SIDE_PX // max(picture.size))
    width, height = picture.width * factor, picture.height * factor
    strip = _strip(width, max(11, min(width, height) // 40), score, threshold)
    whole = _enlarged(picture, factor, strip.height)
    _outline(whole, [[(x * factor, y * factor) for x, y in polygon] for polygon in polygons], max(width, height))
    whole.paste(strip, (0, height))
    return whole


def _enlarged(picture: Image.Image, factor: int, below: int) -> Image.Image:
    """The picture with whole pixels repeated ``factor`` times each way, and ``below`` more rows, in one copy."""
    if factor == 1:
        return picture.crop((0, 0, picture.width, picture.height + below))
    size = picture.width * factor, picture.height * factor + below
    part = 0, 0, picture.width, picture.height + below / factor
    return picture.transform(size, Image.Transform.EXTENT, part, Image.Resampling.NEAREST)


def _step(size: tuple[int, ...]) -> int:
    """1 where a picture of ``size`` (H, W) can be drawn and saved, else every how many px it is shown by."""
    return max(1, -(-max(size) // _MAX_SIDE_PX), math.ceil(math.sqrt(size[0] * size[1] / _MAX_PX)))


def _outline(picture: Image.Image, polygons: Sequence[Polygon], side_px: int) -> None:
    draw = ImageDraw.Draw(picture)
    width = max(2, round(side_px / 500))
    for colour, extra in (((0, 0, 0), 2), ((255, 255, 255), 0)):  # a dark rim keeps the line visible on white parts
        for polygon in polygons:
            draw.line([*polygon, polygon[0], polygon[1]], fill=colour, width=width + extra, joint="curve")


@cache
def _font(text_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, unpacked once for each size: that takes as long as drawing the strip."""
    return ImageFont.load_default(text_px)


def _kept(draw: Callable[[int, *Facts], Image.Image]) -> Callable[[int, *Facts], Image.Image]:
    """What draws text of a height, and draws nothing twice; it takes more time than the rest of a small overlay."""
    drawn = cast("Callable[[int, *Facts], Image.Image]", lru_cache(_KEPT_TEXTS)(draw))

    def draw_once(text_px: int, *facts: *Facts) -> Image.Image:
        return (drawn if text_px <= _KEPT_TEXT_PX else draw)(text_px, *facts)

    return draw_once


def _strip(width: int, text_px: int, score: float, threshold: float) -> Image.Image:
    alarm = score >= threshold
    words = f"{score:.2f} {'anomalous' if alarm else 'normal'}"
    strip = Image.new("RGB", (width, _strip_height(text_px)), _FOOTER)
    strip.paste(_words(text_px, words, _ALARM if alarm else _INK))
    words_right = text_px + _length(text_px, words)
    bar_right = width - _beyond_bar(text_px)
    bar_left = max(round(words_right + 2.5 * text_px), bar_right - 20 * text_px)
    if bar_right - bar_left >= 3 * text_px:
        strip.paste(_scale(text_px, bar_right - bar_left, threshold), (bar_left - 2 * text_px, 0))
    return strip


def _strip_height(text_px: int) -> int:
    return round(2.6 * text_px)


def _beyond_bar(text_px: int) -> int:
    """From the colour bar's right end to the strip's, in px."""
    return text_px + round(_length(text_px, "1")) + text_px // 2


@lru_cache(maxsize=1024)
def _length(text_px: int, words: str) -> float:
    return _font(text_px).getlength(words)


@_kept
def _words(text_px: int, words: str, colour: Colour) -> Image.Image:
    """The left end of the strip."""
    font, height = _font(text_px), _strip_height(text_px)
    left = Image.new("RGB", (round(_length(text_px, words)) + 2 * text_px, height), _FOOTER)
    ImageDraw.Draw(left).text((text_px, height / 2), words, fill=colour, font=font, anchor="lm")
    return left


@_kept
def _scale(text_px: int, bar_px: int, threshold: float) -> Image.Image:
    """The right end of the strip, from twice the text's height before the colour bar on."""
    font, height, left = _font(text_px), _strip_height(text_px), 2 * text_px
    middle, right, thickness = height / 2, left + bar_px, max(4, text_px // 2)
    scale = Image.new("RGB", (right + _beyond_bar(text_px), height), _FOOTER)
    draw = ImageDraw.Draw(scale)
    colours = Image.fromarray(colour_table()[None]).resize((bar_px, thickness))
    scale.paste(colours, (left, round(middle - thickness / 2)))
    draw.text((left - text_px // 2, middle), "0", fill=_FAINT_INK, font=font, anchor="rm")
    draw.text((right + text_px // 2, middle), "1", fill=_FAINT_INK, font=font, anchor="lm")
    tick, reach = left + threshold * bar_px, 0.9 * thickness
    draw.line([(tick, middle - reach), (tick, middle + reach)], fill=_INK, width=max(1, text_px // 8))
    return scale
