"""Medical look-alikes: ultrasound, skin, mucosa, MRI slice, eye ground. All of it is normal anatomy."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from recipes.synthetic.noise import Plane, Shape, cells, noise
from recipes.synthetic.palette import hsv, mix, tinted
from recipes.synthetic.shapes import Stroke, draw, grid, smoothstep, walk
from recipes.synthetic.surface import Light, Surface, random_light


def _unlit(grey: Plane, area: Plane) -> Surface:
    """A grey picture without light."""
    level = np.clip(grey, 0.0, 1.0)
    albedo = np.repeat(level[..., None], 3, axis=2).astype(np.float32)
    return Surface(albedo, np.zeros(grey.shape, np.float32), area > 0.5, light=None)


def ultrasound(rng: Generator, size: int) -> Surface:
    """Layers of tissue in log-compressed speckle, with attenuation and the shadows that belong."""
    unit, shape = size / 256, (size, size)
    depth = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    layer = (
        depth + 0.04 * noise(rng, shape, (160 * unit, 90 * unit)) + 0.012 * noise(rng, shape, (25 * unit, 40 * unit))
    )
    echo = 0.35 * noise(rng, shape, (30 * unit, 50 * unit)) + 0.3 * noise(rng, shape, (7 * unit, 22 * unit))
    patches = smoothstep(-1.0, 1.0, noise(rng, shape, (25 * unit, 60 * unit)))
    previous = 0.0
    for bound in np.sort(rng.uniform(0.1, 0.85, 3)).tolist():
        step, previous = float(rng.uniform(-1.0, 0.8)) - previous, previous
        previous += step
        echo += np.float32(step) * smoothstep(bound - 0.02, bound + 0.02, layer)
        echo += np.float32(rng.uniform(0.3, 1.6)) * np.exp(-(((layer - np.float32(bound)) / 0.01) ** 2)) * patches
    septa = np.abs(noise(rng, shape, (10 * unit, 48 * unit)) + 0.4 * noise(rng, shape, (5 * unit, 18 * unit)))
    echo += rng.uniform(0.4, 1.5) * smoothstep(0.35, 0.0, septa) + 1.5 * np.exp(-((depth / 0.03) ** 2))
    shadows = smoothstep(0.9, 2.0, noise(rng, (1, size), (1.0, 30 * unit))) * smoothstep(0.1, 0.5, depth)
    echo -= rng.uniform(0.3, 1.6) * depth**2 + rng.uniform(0.0, 1.2) * shadows
    grain = (float(rng.uniform(1.2, 1.8)) * unit, float(rng.uniform(2.0, 3.0)) * unit)
    speckle = np.log(np.hypot(noise(rng, shape, grain), noise(rng, shape, grain)) + 0.12)
    grey = rng.uniform(0.3, 0.42) + rng.uniform(0.12, 0.17) * (echo + 0.8 * speckle)
    if rng.random() < 0.2:
        # A convex probe sees a fan.
        rows, cols = grid(shape)
        fan = smoothstep(0.0, 0.02, np.asarray(1.15 + 0.75 * rows - 1.1 * np.abs(cols), np.float32))
        return _unlit(np.asarray(grey * fan, np.float32), fan * (depth > 0.12))
    return _unlit(np.asarray(grey, np.float32), np.broadcast_to(depth > 0.12, shape).astype(np.float32))


def _hairs(rng: Generator, shape: Shape, count: int) -> Plane:
    """Body hairs."""
    unit = shape[0] / 256
    strokes = []
    for _ in range(count):
        hair = walk(rng, rng.uniform(0, shape[0], 2), rng.uniform(0, 2 * np.pi), rng.uniform(40, 160) * unit, 0.06)
        strokes.append(Stroke(hair.points, np.full(len(hair.widths), 1.1 * unit)))
    return draw(strokes, shape)


def skin(rng: Generator, size: int) -> Surface:
    """Skin of any tone with its lines, pores, redness, freckles and hairs; sometimes seen through a dermatoscope."""
    unit, shape = size / 256, (size, size)
    darkness = rng.random() ** 1.5
    tone = (1 - darkness) * np.array([0.88, 0.69, 0.6]) + darkness * np.array([0.36, 0.23, 0.17])
    tone = (tone + rng.normal(0, 0.025, 3)).astype(np.float32)
    furrows = cells(rng, shape, float(rng.uniform(7, 14)) * unit)
    plates = smoothstep(0.0, 0.3, furrows.edge)
    red = noise(rng, shape, unit, 2.5)
    albedo = tone * (1 + 0.025 * noise(rng, shape, unit, 2.0) + 0.05 * (plates - 0.8))[..., None]
    albedo = albedo * (1 + np.array([0.008, -0.02, -0.02], np.float32) * red[..., None])
    freckles = cells(rng, shape, 34 * unit)
    spots = smoothstep(0.09, 0.04, freckles.distance) * (freckles.value > rng.uniform(0.5, 1.2))
    albedo = albedo * (1 - np.array([0.14, 0.25, 0.3], np.float32) * spots[..., None])
    relief = 0.45 * unit * plates + 0.07 * noise(rng, shape, 1.6 * unit) + unit * 1.2 * noise(rng, shape, 60 * unit)
    if rng.random() < 0.4:
        hairs = _hairs(rng, shape, int(rng.integers(3, 12)))
        albedo = mix(albedo.astype(np.float32), tone * np.float32(0.25), 0.8 * hairs)
    area = np.ones(shape, np.bool_)
    if rng.random() < 0.3:
        rows, cols = grid(shape)
        area = rows * rows + cols * cols < float(rng.uniform(0.9, 1.4))
        albedo = albedo * smoothstep(1.35, 1.2, rows * rows + cols * cols)[..., None]
    return Surface(albedo.astype(np.float32), relief.astype(np.float32), area, light=random_light(rng, 0.06, 4))


def mucosa(rng: Generator, size: int) -> Surface:
    """The inside of a gut: pink folds, fine vessels, wet highlights, the dark way ahead, the scope's round frame."""
    unit, shape = size / 256, (size, size)
    rows, cols = grid(shape)
    way = rng.uniform(-0.7, 0.7, 2)
    far = np.hypot(rows - np.float32(way[0]), cols - np.float32(way[1])) * (1 + 0.12 * noise(rng, shape, 60 * unit))
    ring = np.sin(
        far * np.float32(rng.uniform(7, 13)) + 0.9 * noise(rng, shape, 90 * unit) + np.float32(rng.uniform(0, 6))
    )
    folds = smoothstep(0.2, 1.0, ring)
    relief = unit * (
        rng.uniform(2.0, 6.0) * folds + 2.5 * noise(rng, shape, 40 * unit) + 0.2 * noise(rng, shape, 7 * unit)
    )
    colour = hsv(rng.uniform(-0.02, 0.05), rng.uniform(0.4, 0.6), rng.uniform(0.75, 0.95))
    vessels = np.exp(-np.abs(noise(rng, shape, 34 * unit) + 0.35 * noise(rng, shape, 11 * unit)) * 22)
    vessels = vessels * smoothstep(-0.3, 1.2, noise(rng, shape, 60 * unit))
    light = smoothstep(0.0, 0.9, far) * (1.05 - 0.25 * np.minimum(far, 1.5)) * (1 + 0.12 * folds)
    albedo = tinted(colour, light.astype(np.float32)) * (1 + 0.02 * noise(rng, shape, 2 * unit))[..., None]
    albedo = albedo * (1 - np.array([0.12, 0.38, 0.32], np.float32) * vessels[..., None])
    wet = noise(rng, shape, (9 * unit, 13 * unit)) + 0.15 * noise(rng, shape, 5 * unit) + 0.8 * folds
    shine = smoothstep(2.4, 2.9, wet) * smoothstep(0.3, 0.8, far)
    albedo = mix(albedo.astype(np.float32), np.array([1.0, 0.97, 0.95], np.float32), 0.9 * shine)
    frame = np.maximum(np.hypot(rows, cols) - 0.28 * (rng.random() < 0.5), 0)
    seen = smoothstep(1.0, 0.985, frame) if rng.random() < 0.6 else np.ones(shape, np.float32)
    area = (seen > 0.5) & (far > 0.35)
    lamp = Light(float(rng.uniform(0, 6.28)), float(rng.uniform(0.7, 1.1)), 0.45, 0.0)
    return Surface((albedo * seen[..., None]).astype(np.float32), (relief * seen).astype(np.float32), area, light=lamp)


def _brain(rng: Generator, depth: Plane, rows: Plane, cols: Plane, gyri: Plane) -> Plane:
    """Grey levels of the brain: ``depth`` is the way to its surface, ``gyri`` folds the cortex."""
    shape: Shape = (depth.shape[0], depth.shape[1])
    unit = shape[0] / 256
    white, grey, fluid = rng.uniform(0.38, 0.6), rng.uniform(0.28, 0.5), rng.uniform(0.04, 0.2)
    cortex = smoothstep(0.3, 0.02, depth + 0.07 * gyri)
    core = np.hypot((np.abs(cols) - 0.16) / 0.09, rows / 0.2) + 0.15 * noise(rng, shape, 14 * unit)
    level = white + (grey - white) * np.maximum(cortex, 0.8 * smoothstep(1.0, 0.75, core))
    sulci = smoothstep(0.32, 0.0, np.abs(gyri)) * smoothstep(0.26, 0.04, depth + 0.04 * noise(rng, shape, 30 * unit))
    level = level + (fluid - level) * 0.75 * sulci
    horn = np.abs(cols + 0.01 * gyri) - np.float32(rng.uniform(0.07, 0.13)) * (0.4 + np.abs(rows) * 1.6)
    around = np.hypot(horn / np.float32(rng.uniform(0.03, 0.07)), rows / np.float32(rng.uniform(0.2, 0.32)))
    midline = smoothstep(0.018, 0.006, np.abs(cols + 0.008 * noise(rng, shape, 20 * unit)))
    midline = midline * smoothstep(0.2, 0.35, np.abs(rows))
    return np.asarray(level + (fluid - level) * np.maximum(smoothstep(1.0, 0.75, around), 0.8 * midline))


def mri(rng: Generator, size: int) -> Surface:
    """An axial head slice: scalp, skull, folded cortex, white matter, ventricles, the midline."""
    unit, shape = size / 256, (size, size)
    rows, cols = grid(shape)
    tilt = np.float32(rng.normal(0, 0.05))
    rows, cols = rows - tilt * cols, cols + tilt * rows
    tall = float(rng.uniform(0.75, 0.92))
    wobble = 1 + 0.015 * noise(rng, shape, 60 * unit)
    head = np.hypot(rows / np.float32(tall), cols / np.float32(tall * rng.uniform(0.76, 0.86))) * wobble
    depth = np.asarray(np.float32(rng.uniform(0.84, 0.9)) - head)  # above 0 in the brain
    gyri = noise(rng, shape, 11 * unit) + 0.35 * noise(rng, shape, 5 * unit)
    inner = smoothstep(0.0, 0.02, depth)
    rim = smoothstep(0.92, 0.95, head - 0.012 * gyri) * smoothstep(1.0, 0.97, head)
    scalp = rng.uniform(0.6, 1.0) * (0.7 + 0.15 * noise(rng, shape, 24 * unit) + 0.1 * noise(rng, shape, 4 * unit))
    picture = inner * _brain(rng, depth, rows, cols, gyri) + rim * scalp
    picture = picture * (1 + 0.07 * noise(rng, shape, 90 * unit)) + 0.012 * np.abs(noise(rng, shape, 1.2 * unit))
    picture = picture + 0.015 * inner * noise(rng, shape, 1.4 * unit)
    surface = _unlit(np.asarray(picture, np.float32), smoothstep(0.08, 0.1, depth))
    if rng.random() < 0.4:
        # Three sequences shown as the three colour channels.
        gains = rng.uniform(0.55, 1.0, 3).astype(np.float32)
        surface.albedo[...] = surface.albedo ** rng.uniform(0.7, 1.4, 3).astype(np.float32) * gains
    return surface


def eye_ground(rng: Generator, size: int) -> Surface:
    """A retina: orange disc on black, branching vessels, bright optic disc, darker macula."""
    unit, shape = size / 256, (size, size)
    rows, cols = grid(shape)
    radius = np.hypot(rows, cols) / np.float32(rng.uniform(0.86, 0.98))
    side = float(rng.choice([-1.0, 1.0]))
    disc = np.array([rng.normal(0, 0.05), side * 0.5])
    ground = hsv(rng.uniform(0.03, 0.07), rng.uniform(0.6, 0.8), rng.uniform(0.6, 0.8))
    level = 1.0 - 0.25 * radius**2 + 0.05 * noise(rng, shape, unit, 2.5)
    macula = np.exp(-((np.hypot(rows - np.float32(disc[0]), cols + np.float32(0.25 * side)) / 0.16) ** 2))
    albedo = tinted(ground, np.asarray(level - 0.35 * macula, np.float32))
    strokes, centre = [], (disc + 1) * size / 2
    for heading in (0.9, -0.9, 1.5, -1.5, 2.4, -2.4, 0.2, -0.3):
        toward = heading if side < 0 else np.pi - heading
        trunk = walk(rng, centre, float(toward + rng.normal(0, 0.1)), size * float(rng.uniform(0.45, 0.75)), 0.09)
        strokes.append(Stroke(trunk.points, np.linspace(3.4, 1.0, len(trunk.widths)) * unit))
        for _ in range(3):
            at = int(rng.integers(2, len(trunk.points) - 4))
            ahead = trunk.points[at + 1] - trunk.points[at]
            bend = np.arctan2(ahead[0], ahead[1]) + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            branch = walk(rng, trunk.points[at], float(bend), size * float(rng.uniform(0.15, 0.3)), 0.12)
            strokes.append(Stroke(branch.points, np.linspace(1.8, 0.7, len(branch.widths)) * unit))
    vessels = draw(strokes, shape)
    albedo = albedo * (1 - np.array([0.3, 0.55, 0.5], np.float32) * vessels[..., None])
    near = np.hypot(rows - np.float32(disc[0]), (cols - np.float32(disc[1])) * 1.1)
    glow = smoothstep(0.16, 0.12, near) * (1 - 0.5 * vessels)
    albedo = mix(albedo.astype(np.float32), hsv(0.11, 0.4, 0.98), np.asarray(0.85 * glow, np.float32))
    seen = smoothstep(1.0, 0.985, radius)
    area = (radius < 0.95) & (near > 0.2)
    return Surface(albedo * seen[..., None], np.zeros(shape, np.float32), area, light=None)
