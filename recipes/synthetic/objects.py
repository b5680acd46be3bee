"""Single objects on a ground with a shadow: cap, nut, tablet, biscuit, gear, bolt, leaf, fruit. All is normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from recipes.synthetic import metals, minerals, textiles
from recipes.synthetic.noise import Plane, cells, noise, profile
from recipes.synthetic.palette import hsv, metal_colour, mix, tinted
from recipes.synthetic.shapes import smoothstep
from recipes.synthetic.surface import Colours, Light, Surface, random_light


@dataclass(frozen=True)
class Frame:
    """An object's own coordinates on the picture.

    Attributes:
        rows: (H, W), -1 to 1 over the object, turned with it.
        cols: (H, W), likewise.
        radius: (H, W), distance from the object's middle.
        angle: (H, W), radians.
        edge: the width of one pixel in these coordinates.
        unit: px of the object's radius.
    """

    rows: Plane
    cols: Plane
    radius: Plane
    angle: Plane
    edge: float
    unit: float


def frame(rng: Generator, size: int, low: float = 0.6, high: float = 0.88) -> Frame:
    """Coordinates of an object that takes ``low`` to ``high`` of the picture's side, off the middle and turned."""
    unit = float(rng.uniform(low, high)) * size / 2
    turn = rng.uniform(0, 2 * np.pi)
    middle = size / 2 + rng.uniform(-0.5, 0.5, 2) * (size / 2 - unit)
    rows = (np.arange(size, dtype=np.float32)[:, None] - np.float32(middle[0])) / np.float32(unit)
    cols = (np.arange(size, dtype=np.float32)[None, :] - np.float32(middle[1])) / np.float32(unit)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    rows, cols = rows * cos - cols * sin, rows * sin + cols * cos
    return Frame(rows, cols, np.sqrt(rows * rows + cols * cols), np.arctan2(rows, cols), 1.0 / unit, unit)


def inside(at: Frame, distance: Plane, limit: float | Plane) -> Plane:
    """Antialiased coverage of ``distance < limit``."""
    return smoothstep(1.0, -1.0, np.asarray((distance - limit) / np.float32(at.edge), np.float32))


def _ground(rng: Generator, size: int, contrast_with: float) -> Surface:
    """What the object lies on: a plain sheet, a tray, wood, concrete, metal; lighter or darker than the object."""
    kinds = (None, None, textiles.paper, minerals.concrete, metals.steel_strip, textiles.wood, textiles.weave)
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind is not None:
        surface = kind(rng, size)
        level = float(surface.albedo[::8, ::8].mean())
    else:
        level = 0.5
        albedo = tinted(hsv(rng.random(), rng.uniform(0, 0.2), 0.5), 1 + 0.02 * noise(rng, (size, size), size / 200))
        surface = Surface(albedo, np.zeros((size, size), np.float32), np.ones((size, size), np.bool_))
    wanted = rng.uniform(0.5, 0.8) if contrast_with < 0.4 or rng.random() < 0.25 else rng.uniform(0.1, 0.3)
    # Brightening must not blow the texture up with it: half of the contrast goes, and some of the colour.
    surface.albedo[...] = np.minimum(
        np.float32(wanted) * (0.5 + np.float32(0.5 / max(level, 0.05)) * surface.albedo), 1.0
    )
    surface.height[...] *= np.float32(0.6)
    return surface


def put(rng: Generator, cover: Plane, albedo: Colours, height: Plane, light: Light) -> Surface:
    """An object (soft coverage, colours, relief in px) on a random ground, with contact shadow and cast shadow."""
    size = cover.shape[0]
    ground = _ground(rng, size, float(albedo[cover > 0.5].mean()))
    reach = size * float(rng.uniform(0.015, 0.05))
    away = (-reach * np.sin(light.azimuth), -reach * np.cos(light.azimuth))
    small = ndimage.uniform_filter(cover[::2, ::2], max(3, round(reach)))
    moved = ndimage.shift(small, (away[0] / 2, away[1] / 2), order=1, mode="nearest")
    shadow = np.repeat(np.repeat(ndimage.uniform_filter(moved, 3), 2, 0), 2, 1)[:size, :size]
    shaded = ground.albedo * (1.0 - np.float32(rng.uniform(0.5, 0.85)) * shadow)[..., None]
    relief = height * cover + ground.height * (1.0 - cover)
    return Surface(
        mix(shaded, albedo, cover), relief, cover > 0.5, behind=ground.albedo, under=ground.height, light=light
    )


def _metal(rng: Generator, size: int, low: float = 0.35, high: float = 0.7) -> Colours:
    """Machined metal as colours (H, W, 3)."""
    shape, unit = (size, size), size / 256
    level = rng.uniform(low, high) * (
        1.0 + 0.07 * noise(rng, shape, (unit, 30 * unit)) + 0.06 * noise(rng, shape, unit, 2.5)
    )
    return tinted(metal_colour(rng), level.astype(np.float32))


def hexagon(at: Frame) -> Plane:
    """Distance that is 1 on a hexagon's flats."""
    flats = [
        np.abs(at.rows * np.float32(np.sin(a)) + at.cols * np.float32(np.cos(a)))
        for a in (0.0, np.pi / 3, 2 * np.pi / 3)
    ]
    return np.asarray(np.maximum(np.maximum(flats[0], flats[1]), flats[2]))


def bottle_cap(rng: Generator, size: int) -> Surface:
    """A crown cap with 21 flutes and a printed top."""
    at = frame(rng, size)
    flutes = np.cos(21 * at.angle)
    cover = inside(at, at.radius, 0.97 + 0.03 * flutes)
    skirt = smoothstep(1.0, 0.76, at.radius)
    relief = at.unit * (0.16 * skirt + 0.035 * (1 - skirt) * smoothstep(0.74, 0.9, at.radius) * flutes)
    base = hsv(rng.random(), rng.uniform(0.5, 0.85), rng.uniform(0.45, 0.85))
    ink = hsv(rng.random(), rng.uniform(0, 0.5), 0.92)
    ring = inside(at, np.abs(at.radius - 0.6), 0.025)
    star = inside(at, at.radius, 0.34 * (1 + rng.uniform(0.15, 0.4) * np.cos(int(rng.integers(3, 8)) * at.angle)))
    albedo = mix(np.broadcast_to(base, (size, size, 3)), ink, np.maximum(ring, star))
    albedo = albedo * (1 + 0.015 * noise(rng, cover.shape))[..., None]
    relief = relief + 0.4 * noise(rng, cover.shape, size / 5)
    return put(rng, cover, albedo.astype(np.float32), relief.astype(np.float32), random_light(rng, 0.35, 4))


def nut(rng: Generator, size: int) -> Surface:
    """A hexagon nut or a plain washer with its (threaded) hole."""
    at = frame(rng, size)
    washer = rng.random() < 0.35
    bore = float(rng.uniform(0.4, 0.55))
    outer = at.radius if washer else hexagon(at) / np.float32(0.87)
    hole = inside(at, at.radius, bore)
    cover = inside(at, outer, 0.98)
    albedo = _metal(rng, size)
    relief = smoothstep(1.0, 0.93, outer) * 0.06
    if not washer:
        relief = relief + 0.07 * smoothstep(1.06, 0.9, at.radius)
        thread = 0.5 + 0.5 * np.sin(at.radius * 2 * np.pi / 0.035 + at.angle)
        inner = hole * smoothstep(bore - 0.14, bore - 0.1, at.radius)
        albedo = albedo * (1 - hole * (1 - inner * (0.25 + 0.5 * thread)))[..., None]
    relief = relief + 0.03 * smoothstep(bore, bore + 0.05, at.radius)
    through = inside(at, at.radius, bore if washer else bore - 0.12)
    return put(
        rng,
        cover * (1 - through),
        albedo.astype(np.float32),
        (at.unit * relief).astype(np.float32),
        random_light(rng, 0.35, 4),
    )


def tablet(rng: Generator, size: int) -> Surface:
    """A round or oblong tablet or a two-coloured capsule, with score line or imprint."""
    at = frame(rng, size, 0.6, 0.85)
    wide = float(rng.choice([1.0, 1.0, 0.55, 0.42]))
    straight = np.maximum(np.abs(at.cols) - (1 - wide), 0.0)
    distance = np.sqrt(straight * straight + at.rows * at.rows) / np.float32(wide)
    cover = inside(at, distance, 1.0)
    dome = np.sqrt(np.maximum(1.03 - distance * distance, 0.0))
    relief = rng.uniform(0.15, 0.35) * wide * dome + 0.05 * wide * smoothstep(1.0, 0.88, distance)
    base = hsv(rng.random(), float(rng.choice([0.02, 0.06, 0.25, 0.5])), rng.uniform(0.72, 0.95))
    albedo = np.broadcast_to(base, (size, size, 3)) * np.ones((size, size, 1), np.float32)
    glossy = wide < 0.5
    if glossy:
        albedo = mix(albedo, hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.5, 0.9)), inside(at, at.cols, 0.0))
        relief = relief + 0.012 * inside(at, at.cols, 0.0)
    elif rng.random() < 0.7:
        groove = smoothstep(0.06, 0.0, np.abs(at.cols)) * smoothstep(0.95, 0.82, distance)
        relief = relief - 0.06 * groove
    grain = noise(rng, cover.shape, 1.2 * size / 256)
    albedo = albedo * (1 + (0.006 if glossy else 0.02) * grain)[..., None]
    relief = at.unit * relief + (0.0 if glossy else 0.1) * grain
    light = random_light(rng, 0.4 if glossy else 0.08, 5 if glossy else 3)
    return put(rng, cover, albedo.astype(np.float32), relief.astype(np.float32), light)


def biscuit(rng: Generator, size: int) -> Surface:
    """A baked biscuit: browned rim, uneven top, chocolate chips or docking holes."""
    at = frame(rng, size, 0.65, 0.88)
    shape, unit = (size, size), size / 256
    wobble = noise(rng, shape, 45 * unit)
    distance = at.radius * (1 + 0.035 * wobble)
    chips = rng.random() < 0.65
    if not chips and rng.random() < 0.5:
        distance = distance * (1 + 0.02 * np.cos(24 * at.angle))
    cover = inside(at, distance, 0.97)
    bumps = noise(rng, shape, 14 * unit) + 0.6 * noise(rng, shape, 5 * unit) + 0.35 * noise(rng, shape, 2 * unit)
    relief = (0.16 * at.unit) * np.sqrt(np.maximum(1.05 - distance * distance, 0)) + (
        1.3 if chips else 0.35
    ) * unit * bumps
    brown = smoothstep(0.55, 1.0, distance + 0.1 * noise(rng, shape, unit, 2.0))
    albedo = mix(np.broadcast_to(hsv(0.1, 0.45, 0.86), (*shape, 3)), hsv(0.075, 0.68, 0.56), brown)
    albedo = albedo * (1 + 0.05 * noise(rng, shape, 1.6 * unit) + 0.04 * bumps)[..., None]
    if chips:
        lumps = cells(rng, shape, 26 * unit)
        chip = smoothstep(0.34, 0.26, lumps.distance + 0.05 * noise(rng, shape, 4 * unit)) * (lumps.value > 0.62)
        chip = chip * inside(at, distance, 0.85)
        albedo = mix(albedo.astype(np.float32), hsv(0.05, 0.6, 0.17), chip.astype(np.float32))
        relief = relief + 2.2 * unit * chip
    else:
        pitch = np.float32(rng.uniform(0.22, 0.34))
        dots = np.hypot(at.rows / pitch - np.rint(at.rows / pitch), at.cols / pitch - np.rint(at.cols / pitch))
        dock = smoothstep(0.14, 0.08, dots) * inside(at, distance, 0.8)
        albedo = albedo * (1 - 0.45 * dock)[..., None]
        relief = relief - 1.5 * unit * dock
    return put(rng, cover, albedo.astype(np.float32), relief.astype(np.float32), random_light(rng, 0.05, 3))


def gear(rng: Generator, size: int) -> Surface:
    """A spur gear with bore, keyway, recessed web and lightening holes."""
    at = frame(rng, size, 0.7, 0.92)
    teeth, bore = int(rng.integers(12, 30)), float(rng.uniform(0.14, 0.24))
    flank = smoothstep(-0.35, 0.35, np.cos(teeth * at.angle))
    rim = 0.84 + np.float32(0.14) * flank
    key = inside(at, np.maximum(np.abs(at.rows) / 0.3, np.abs(at.cols - bore * 0.7) / 0.7), bore)
    through = np.maximum(inside(at, at.radius, bore), key)
    web = smoothstep(0.36, 0.39, at.radius) * smoothstep(0.7, 0.67, at.radius)
    if rng.random() < 0.6:
        count = int(rng.integers(4, 8))
        spoke = (at.angle * count / (2 * np.pi)) % 1.0 - 0.5
        arc = np.hypot(at.radius - 0.53, spoke * (2 * np.pi / count) * 0.53)
        through = np.maximum(through, inside(at, arc, 0.1))
    cover = inside(at, at.radius, rim) * (1 - through)
    albedo = _metal(rng, size, 0.3, 0.6) * (1 - 0.18 * web)[..., None]
    marks = profile(rng, 1024, 3.0)[np.minimum((at.radius * 700).astype(np.intp), 1023)]
    albedo = albedo * (1 + 0.04 * marks)[..., None]
    relief = at.unit * (0.05 * smoothstep(0.0, 0.05, rim - at.radius) - 0.05 * web)
    return put(rng, cover, albedo.astype(np.float32), np.asarray(relief, np.float32), random_light(rng, 0.3, 4))


def bolt_head(rng: Generator, size: int) -> Surface:
    """A screw head seen from above: hexagon with chamfer, or round with a socket, slot or cross."""
    at = frame(rng, size, 0.6, 0.85)
    hexed = rng.random() < 0.45
    outer = hexagon(at) / np.float32(0.87) if hexed else at.radius
    cover = inside(at, outer, 0.98)
    relief = 0.14 * smoothstep(1.0, 0.86, at.radius) + 0.05 * smoothstep(1.0, 0.94, outer)
    if not hexed:
        relief = 0.25 * np.sqrt(np.maximum(1.04 - at.radius**2, 0))
    kind = int(rng.integers(4))
    arm = np.minimum(
        np.maximum(np.abs(at.rows) / 0.16, np.abs(at.cols)), np.maximum(np.abs(at.cols) / 0.16, np.abs(at.rows))
    )
    drives = (
        hexagon(at),
        np.maximum(np.abs(at.rows) * 6, np.abs(at.cols) * 0.6),
        arm,
        at.radius * (1 - 0.14 * np.cos(6 * at.angle)),
    )
    socket = inside(at, drives[kind], 0.42 if kind else 0.38)
    albedo = _metal(rng, size, 0.35, 0.6)
    if hexed:
        marks = inside(at, np.hypot(at.radius - 0.68, 0.15 * np.sin(1.5 * at.angle)), 0.03)
        relief = relief + 0.015 * marks
        socket = socket * (0.0 if rng.random() < 0.5 else 1.0)
    albedo = albedo * (1 - 0.75 * socket)[..., None]
    relief = at.unit * (relief - 0.1 * smoothstep(0.0, 1.0, socket))
    return put(rng, cover, albedo.astype(np.float32), np.asarray(relief, np.float32), random_light(rng, 0.35, 4))


def leaf(rng: Generator, size: int) -> Surface:
    """A leaf with midrib, side veins and a serrated or smooth edge."""
    at = frame(rng, size, 0.8, 0.95)
    shape, unit = (size, size), size / 256
    bent = at.rows + np.float32(rng.uniform(-0.12, 0.12)) * (1 - at.cols**2)
    profile_ = np.maximum(1 - at.cols * at.cols, 0.0) ** np.float32(rng.uniform(0.7, 1.1))
    half = np.float32(rng.uniform(0.3, 0.55)) * profile_ * (1 - np.float32(rng.uniform(-0.3, 0.3)) * at.cols)
    slant = at.cols - np.abs(bent) * np.float32(rng.uniform(0.6, 1.2))
    half = half * (1 + np.float32(rng.uniform(0.0, 0.06)) * np.abs(np.sin(slant * 40)))
    cover = inside(at, np.abs(bent), half) * (np.abs(at.cols) < 1)
    stem = inside(at, np.abs(bent), 0.022) * (at.cols > -1.12) * (at.cols < 0)
    cover = np.maximum(cover, stem)
    midrib = smoothstep(0.035, 0.01, np.abs(bent) * (1 + 0.4 * at.cols))
    vein = smoothstep(0.12, 0.0, np.abs(np.sin(slant * np.float32(rng.uniform(9, 15)))))
    fine = smoothstep(0.12, 0.0, cells(rng, shape, 7 * unit).edge)
    hue, value = float(rng.choice([0.28, 0.25, 0.3, 0.1, 0.04])), rng.uniform(0.3, 0.55)
    base = hsv(hue + rng.normal(0, 0.015), rng.uniform(0.5, 0.75), value)
    lines = np.clip(midrib + 0.55 * vein + 0.2 * fine, 0, 1)
    albedo = mix(
        np.broadcast_to(base, (*shape, 3)), base * np.float32(0.6) + np.float32(0.28), lines.astype(np.float32)
    )
    albedo = albedo * (1 + 0.07 * noise(rng, shape, unit, 2.0))[..., None]
    relief = unit * (
        2.2 * np.abs(np.sin(slant * 6)) * (1 - midrib) - 1.5 * midrib - 0.6 * vein + 0.5 * noise(rng, shape, 8 * unit)
    )
    return put(
        rng, cover.astype(np.float32), albedo.astype(np.float32), relief.astype(np.float32), random_light(rng, 0.12, 3)
    )


def fruit(rng: Generator, size: int) -> Surface:
    """Apple, orange, lemon or tomato: a shaded ball with its skin."""
    at = frame(rng, size, 0.65, 0.9)
    shape, unit = (size, size), size / 256
    distance = at.radius * (1 + 0.014 * noise(rng, shape, 90 * unit))
    cover = inside(at, distance, 0.98)
    light = random_light(rng, 0.18, 4)
    bulge = np.sqrt(np.maximum(1.0 - np.minimum(distance, 1.0) ** 2, 0.02))
    kind = int(rng.integers(4))
    hue, dimple = ((0.98, 0.0), (0.075, 0.55), (0.145, 0.4), (0.015, 0.0))[kind]
    first, second = hsv(hue, 0.85, 0.75), hsv(hue + (0.12 if kind == 0 else 0.02), 0.75, 0.85)
    calyx = np.hypot(at.rows - 0.25, at.cols - 0.1)
    round_it = np.arctan2(at.rows - 0.25, at.cols - 0.1) / (2 * np.pi) + 0.5
    meridian = profile(rng, size, 2.5)[(round_it * (size - 1)).astype(np.intp)]
    blush = smoothstep(-1.6, 2.0, 0.45 * meridian * (kind == 0) + noise(rng, shape, unit, 3.0))
    dots = cells(rng, shape, 12 * unit)
    spots = smoothstep(0.14, 0.06, dots.distance) * (kind == 0)
    albedo = mix(np.broadcast_to(first, (*shape, 3)), second, np.clip(blush + 0.5 * spots, 0, 1))
    dip = smoothstep(0.22, 0.0, calyx)
    albedo = albedo * (0.45 + 0.55 * bulge)[..., None] * (1 - 0.55 * dip)[..., None]
    albedo = mix(albedo.astype(np.float32), hsv(0.25, 0.5, 0.22), inside(at, calyx, 0.05 + 0.02 * np.cos(5 * at.angle)))
    pores = cells(rng, shape, 6 * unit).distance
    # The ball is flattened: its true relief would leave the range that one light can show.
    relief = 0.35 * at.unit * bulge - 3 * unit * dip + dimple * 2 * unit * np.minimum(pores, 0.7)
    return put(rng, cover, albedo.astype(np.float32), relief.astype(np.float32), light)
