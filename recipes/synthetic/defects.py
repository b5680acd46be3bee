"""Defects drawn on a surface, each with the exact mask of what it changed.

Every function edits the surface in place and returns its mask (H, W) bool. Sizes run from 0.05 % to 20 % of the area.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from recipes.synthetic.lesions import cyst, deposits, mole, polyp, tumour
from recipes.synthetic.noise import Plane, Shape, noise
from recipes.synthetic.place import (
    colours_in,
    contrasting,
    foreign_texture,
    marked,
    mean_colour,
    paint,
    place,
    press,
    visible,
    window_at,
)
from recipes.synthetic.shapes import (
    Stroke,
    blob,
    clouds,
    draw,
    ellipse,
    polygon,
    rectangle,
    smoothstep,
    walk,
)
from recipes.synthetic.surface import Mask, Surface

Defect = Callable[[Surface, Generator], Mask]

_SEEN = 0.3  # coverage from which a pixel counts as changed


def _patch(rng: Generator, shape: Shape, softness: float) -> Plane:
    """One of the patch shapes: an ellipse, a ragged blob, islands, a polygon."""
    kind = int(rng.integers(4))
    if kind == 0:
        return blob(rng, shape, softness, 0.1)
    if kind == 1:
        return blob(rng, shape, softness, 0.6)
    return clouds(rng, shape, softness) if kind == 2 else polygon(rng, shape)


def _line(rng: Generator, shape: Shape, wander: float) -> Stroke:
    """A path through the window's middle that keeps inside it most of the time."""
    heading = rng.uniform(0, 2 * np.pi)
    reach = 0.5 / max(abs(np.sin(heading)) / shape[0], abs(np.cos(heading)) / shape[1], 1e-6)
    length = reach * rng.uniform(1.1, 1.9)
    middle = np.array(shape) / 2.0
    start = middle - np.array([np.sin(heading), np.cos(heading)]) * length / 2.0
    return walk(rng, start, heading, length, wander)


def _tapered(stroke: Stroke, width_px: float) -> Stroke:
    """The stroke with its widths scaled, thin at both ends."""
    t = np.linspace(0, 1, len(stroke.widths))
    return Stroke(stroke.points, stroke.widths * width_px * np.clip(6 * np.minimum(t, 1 - t), 0.3, 1.0))


def scratch(surface: Surface, rng: Generator) -> Mask:
    """One to three nearly straight scores: bright, dark, or a groove that only the light shows."""
    window = place(surface, rng, 0.12, 1.1, aspect=2.5)
    unit = min(surface.shape) / 256.0
    width = unit * float(np.exp(rng.uniform(np.log(0.8), np.log(2.4))))
    first = _line(rng, window.shape, float(rng.uniform(0.01, 0.07)))
    strokes = [_tapered(first, width)]
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        offset = rng.normal(0, 5 * unit, 2)
        strokes.append(_tapered(Stroke(first.points + offset, first.widths), width * float(rng.uniform(0.4, 0.9))))
    alpha = visible(surface, window, draw(strokes, window.shape))
    groove = rng.random() < 0.6
    if groove:
        press(surface, window, alpha * np.float32(-rng.uniform(0.4, 1.6)))
    if not groove or rng.random() < 0.7:
        colour = contrasting(rng, mean_colour(surface, window), 0.12, 0.5)
        paint(surface, window, alpha * np.float32(rng.uniform(0.5, 1.0)), colour)
    return marked(surface, window, alpha > _SEEN)


def crack(surface: Surface, rng: Generator) -> Mask:
    """A dark jagged line of varying width, with branches."""
    window = place(surface, rng, 0.15, 1.0, aspect=2.0)
    unit = min(surface.shape) / 256.0
    width = unit * float(np.exp(rng.uniform(np.log(0.8), np.log(4.0))))
    trunk = _line(rng, window.shape, float(rng.uniform(0.2, 0.5)))
    strokes = [_tapered(trunk, width)]
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        at = int(rng.integers(1, len(trunk.points) - 1))
        ahead = trunk.points[at + 1] - trunk.points[at]
        heading = float(np.arctan2(ahead[0], ahead[1])) + float(rng.choice([-1, 1])) * float(rng.uniform(0.4, 1.1))
        branch = walk(rng, trunk.points[at], heading, max(window.shape) * float(rng.uniform(0.1, 0.35)), 0.4)
        thinning = np.linspace(0.8, 0.25, len(branch.widths))
        strokes.append(Stroke(branch.points, branch.widths * width * thinning))
    alpha = visible(surface, window, draw(strokes, window.shape))
    base = mean_colour(surface, window)
    dark = base * np.float32(rng.uniform(0.1, 0.65)) if base.mean() > 0.12 else base + np.float32(0.25)
    paint(surface, window, alpha * np.float32(rng.uniform(0.6, 1.0)), dark)
    press(surface, window, alpha * np.float32(-rng.uniform(0.3, 1.5)))
    return marked(surface, window, alpha > _SEEN)


def pit(surface: Surface, rng: Generator) -> Mask:
    """One to a handful of small deep holes with a worn rim (blowholes, pitting)."""
    mask = np.zeros(surface.shape, dtype=np.bool_)
    first = place(surface, rng, 0.03, 0.13, aspect=1.8)
    spread = min(surface.shape) * 0.12
    for index in range(int(rng.choice([1, 1, 1, 2, 3, 6]))):
        window = first
        if index:
            size = max(6, round(first.shape[0] * rng.uniform(0.4, 1.0)))
            shift = rng.normal(0, spread, 2)
            row = int(np.clip(first.rows.start + shift[0], 0, surface.shape[0] - 1))
            col = int(np.clip(first.cols.start + shift[1], 0, surface.shape[1] - 1))
            window = window_at(surface.shape, (row, col), (size, size))
        alpha = visible(surface, window, blob(rng, window.shape, 0.35, float(rng.uniform(0.1, 0.5))))
        base = mean_colour(surface, window)
        floor = base * np.float32(rng.uniform(0.1, 0.6)) if base.mean() > 0.12 else base + np.float32(0.3)
        paint(surface, window, alpha * np.float32(rng.uniform(0.6, 1.0)), floor)
        press(surface, window, alpha * np.float32(-0.12 * max(window.shape) * rng.uniform(0.4, 1.0)))
        mask |= marked(surface, window, alpha > _SEEN)
    return mask


def stain(surface: Surface, rng: Generator) -> Mask:
    """A transparent discoloration, sometimes with the darker rim of a dried drop."""
    window = place(surface, rng, 0.1, 0.7, aspect=2.0)
    shape = blob if rng.random() < 0.6 else clouds
    drawn = shape(rng, window.shape, float(rng.uniform(0.1, 0.6)))
    alpha = visible(surface, window, drawn)
    weight = alpha * np.float32(rng.uniform(0.35, 1.0))
    if rng.random() < 0.4:
        weight = weight * (0.35 + 2.6 * alpha * (1.0 - alpha)).astype(np.float32)
    colour = rng.uniform(0.25, 0.8) * np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0)])
    view = colours_in(surface, window)
    if mean_colour(surface, window).mean() < 0.2:
        view += weight[..., None] * (np.float32(0.35) * colour.astype(np.float32))
    else:
        view *= 1.0 - weight[..., None] * (1.0 - colour.astype(np.float32))
    return marked(surface, window, alpha > _SEEN)


def lesion(surface: Surface, rng: Generator) -> Mask:
    """A soft-edged patch, brighter or darker, with a texture of its own."""
    window = place(surface, rng, 0.1, 0.75, aspect=1.8)
    drawn = blob(rng, window.shape, float(rng.uniform(0.1, 0.8)), float(rng.uniform(0.1, 0.5)))
    alpha = visible(surface, window, drawn)
    target = contrasting(rng, mean_colour(surface, window), 0.08, 0.4)
    grain = window.cut(noise(rng, window.shape, float(rng.uniform(1.0, 5.0))))[..., None]
    texture = target + np.float32(rng.uniform(0.0, 0.08)) * grain
    kept = np.float32(rng.uniform(0.0, 0.6))
    view = colours_in(surface, window)
    paint(surface, window, alpha, texture + kept * (view - mean_colour(surface, window)))
    if rng.random() < 0.3:
        press(surface, window, alpha * np.float32(rng.uniform(-0.05, 0.08) * max(window.shape)))
    return marked(surface, window, alpha > _SEEN)


def missing(surface: Surface, rng: Generator) -> Mask:
    """A piece broken out: what lies behind shows, with a shadow along the break."""
    window = place(surface, rng, 0.1, 0.6, aspect=2.0)
    drawn = polygon(rng, window.shape) if rng.random() < 0.4 else blob(rng, window.shape, 0.06, 0.4)
    alpha = visible(surface, window, drawn)
    if surface.behind is not None:
        behind = surface.behind[window.rows, window.cols]
    else:
        behind = contrasting(rng, mean_colour(surface, window), 0.15, 0.6)
        behind = behind + np.float32(0.015) * window.cut(noise(rng, window.shape, 1.5))[..., None]
    shifted = ndimage.shift(alpha, rng.uniform(-3, 3, 2), order=1, mode="nearest")
    shadow = 1.0 - np.float32(rng.uniform(0.2, 0.6)) * np.clip(alpha - shifted, 0.0, 1.0)
    paint(surface, window, alpha, behind * shadow[..., None])
    # The missing part's relief goes with it.
    relief = surface.height[window.rows, window.cols]
    under = 0.0 if surface.under is None else surface.under[window.rows, window.cols]
    relief += alpha * (under - relief)
    return marked(surface, window, alpha > _SEEN)


def bright_spot(surface: Surface, rng: Generator) -> Mask:
    """A glowing or burnt spot with a soft edge."""
    window = place(surface, rng, 0.04, 0.3, aspect=1.5)
    radius = ellipse(rng, window.shape, float(rng.uniform(1.0, 1.8)))
    alpha = visible(surface, window, smoothstep(1.0, float(rng.uniform(0.0, 0.6)), radius))
    level = float(mean_colour(surface, window).mean())
    sign = 1.0 if level < 0.65 or rng.random() < 0.2 else -1.0
    tint = np.clip(1.0 + rng.normal(0, 0.15, 3), 0.4, 1.3)
    view = colours_in(surface, window)
    view += alpha[..., None] * (sign * rng.uniform(0.12, 0.6) * tint).astype(np.float32)
    return marked(surface, window, alpha > _SEEN)


def dent(surface: Surface, rng: Generator) -> Mask:
    """A dent or a bump that changes nothing but the relief."""
    window = place(surface, rng, 0.1, 0.5, aspect=2.0)
    drawn = blob(rng, window.shape, float(rng.uniform(0.4, 0.72)), float(rng.uniform(0.0, 0.3)))
    alpha = visible(surface, window, drawn)
    depth = float(rng.uniform(0.05, 0.16)) * min(window.shape) * float(rng.choice([-1.0, -1.0, 1.0]))
    press(surface, window, alpha * np.float32(depth))
    if surface.light is None:
        rows, cols = np.gradient(alpha)
        tilt = (rows * np.sin(depth) + cols * np.cos(depth)) * np.float32(depth * 0.8)
        colours_in(surface, window)[...] *= 1.0 + tilt[..., None].astype(np.float32)
    return marked(surface, window, alpha > 0.08)


def smear(surface: Surface, rng: Generator) -> Mask:
    """A region whose detail is wiped away along one direction."""
    window = place(surface, rng, 0.15, 0.65, aspect=2.0)
    alpha = visible(surface, window, _patch(rng, window.shape, float(rng.uniform(0.1, 0.4))))
    view = colours_in(surface, window)
    reach = max(3, round(min(surface.shape) / 256 * rng.uniform(5, 24)))
    wiped = ndimage.uniform_filter1d(view, reach, axis=int(rng.integers(2)), mode="nearest")
    wiped = wiped * np.float32(rng.uniform(0.75, 1.25))
    paint(surface, window, alpha, np.asarray(wiped, np.float32))
    surface.height[window.rows, window.cols] *= 1.0 - np.float32(0.8) * alpha
    return marked(surface, window, alpha > _SEEN)


def colour_shift(surface: Surface, rng: Generator) -> Mask:
    """A region of another hue, brightness or contrast; the structure stays."""
    window = place(surface, rng, 0.12, 0.7, aspect=2.0)
    alpha = visible(surface, window, _patch(rng, window.shape, float(rng.uniform(0.05, 0.5))))
    view = colours_in(surface, window)
    mean = mean_colour(surface, window)
    side = 1.0 if rng.random() < 0.5 else -1.0
    gains = np.exp(side * rng.uniform(0.12, 0.6) + rng.normal(0, 0.15 if rng.random() < 0.6 else 0.0, 3))
    contrast = rng.uniform(0.4, 1.6)
    shifted = (mean + (view - mean) * np.float32(contrast)) * gains.astype(np.float32)
    if mean.mean() < 0.15:
        shifted = shifted + np.float32(rng.uniform(0.08, 0.25))
    paint(surface, window, alpha, np.clip(shifted, 0.0, 1.0).astype(np.float32))
    return marked(surface, window, alpha > _SEEN)


def fold(surface: Surface, rng: Generator) -> Mask:
    """A crease: a soft line with a lit and a shaded flank."""
    window = place(surface, rng, 0.3, 1.0, aspect=3.0)
    unit = min(surface.shape) / 256.0
    width = unit * float(rng.uniform(3.0, 9.0))
    stroke = _tapered(_line(rng, window.shape, float(rng.uniform(0.01, 0.1))), width)
    coverage = draw([stroke], window.shape)
    drawn = np.asarray(ndimage.uniform_filter(coverage, max(2, round(width / 2))), dtype=np.float32)
    alpha = visible(surface, window, drawn)
    press(surface, window, alpha * np.float32(width * rng.uniform(0.25, 0.6) * float(rng.choice([-1.0, 1.0]))))
    colours_in(surface, window)[...] *= 1.0 + np.float32(rng.uniform(-0.35, 0.2)) * alpha[..., None]
    return marked(surface, window, alpha > _SEEN)


def speckle(surface: Surface, rng: Generator) -> Mask:
    """A cluster of tiny dots: spatter, rust, dirt."""
    window = place(surface, rng, 0.1, 0.5)
    size = float(rng.uniform(1.5, 4.0)) * min(surface.shape) / 256.0
    density = noise(rng, window.shape, size) - 1.2 * np.sqrt(ellipse(rng, window.shape, float(rng.uniform(1.0, 2.0))))
    drawn = smoothstep(0.0, 0.6, np.asarray(density - np.float32(rng.uniform(0.0, 0.9)), np.float32))
    alpha = visible(surface, window, drawn)
    paint(surface, window, alpha, contrasting(rng, mean_colour(surface, window), 0.15, 0.6))
    press(surface, window, alpha * np.float32(rng.uniform(-0.6, 0.8)))
    return marked(surface, window, alpha > _SEEN)


def perlin(surface: Surface, rng: Generator) -> Mask:
    """Foreign texture blended in through a Perlin-shaped mask (after DRAEM, Zavrtanik et al. 2021)."""
    window = place(surface, rng, 0.2, 1.1, aspect=1.8)
    alpha = visible(surface, window, clouds(rng, window.shape, float(rng.uniform(0.05, 0.5))))
    texture = foreign_texture(surface, rng, (alpha.shape[0], alpha.shape[1]))
    paint(surface, window, alpha * np.float32(rng.uniform(0.25, 1.0)), texture)
    return marked(surface, window, alpha > _SEEN)


def cutpaste(surface: Surface, rng: Generator) -> Mask:
    """A piece of another place, or a thin scar of it, pasted in (after CutPaste, Li et al. 2021)."""
    scar = rng.random() < 0.4
    window = place(surface, rng, 0.06, 0.4, aspect=6.0 if scar else 2.0)
    drawn = rectangle(rng, window.shape, float(rng.uniform(-0.6, 0.6)) if rng.random() < 0.6 else 0.0)
    alpha = visible(surface, window, drawn)
    texture = foreign_texture(surface, rng, (alpha.shape[0], alpha.shape[1]))
    paint(surface, window, alpha, texture)
    return marked(surface, window, alpha > _SEEN)


def fibre(surface: Surface, rng: Generator) -> Mask:
    """A curled hair or thread lying on top, with its shadow."""
    window = place(surface, rng, 0.12, 0.6, aspect=1.5)
    unit = min(surface.shape) / 256.0
    path = _line(rng, window.shape, float(rng.uniform(0.12, 0.3)))
    widths = np.full(len(path.widths), unit * float(rng.uniform(1.0, 3.0)))
    drawn = draw([Stroke(path.points, widths)], window.shape)
    shadow = visible(surface, window, draw([Stroke(path.points + 1.5 * unit, widths * 1.4)], window.shape))
    alpha = visible(surface, window, drawn)
    colour = contrasting(rng, mean_colour(surface, window), 0.25, 0.65)
    colours_in(surface, window)[...] *= 1.0 - np.float32(0.3) * shadow[..., None]
    paint(surface, window, alpha, colour)
    return marked(surface, window, (alpha > _SEEN))


def bend(surface: Surface, rng: Generator) -> Mask:
    """A region whose structure is pushed out of place (bent wires, dragged print)."""
    window = place(surface, rng, 0.15, 0.5, aspect=1.6)
    alpha = visible(surface, window, blob(rng, window.shape, 0.72, 0.1))
    # Pushed by less than the ramp is long, or the structure would fold over itself.
    reach = min(window.shape) * rng.uniform(0.06, 0.16)
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = np.meshgrid(np.arange(alpha.shape[0]), np.arange(alpha.shape[1]), indexing="ij")
    source = np.stack([rows - alpha * (reach * np.sin(angle)), cols - alpha * (reach * np.cos(angle))]).astype(
        np.float32
    )
    view, relief = colours_in(surface, window), surface.height[window.rows, window.cols]
    for plane in (view[..., 0], view[..., 1], view[..., 2], relief):
        plane[...] = ndimage.map_coordinates(plane.copy(), source, order=1, mode="nearest")
    return marked(surface, window, alpha * reach > 1.0)


def wear(surface: Surface, rng: Generator) -> Mask:
    """A band of parallel scuffs: rubbed, rolled-in or burnt streaks."""
    window = place(surface, rng, 0.15, 0.6, aspect=3.0)
    unit = min(surface.shape) / 256.0
    pair = (float(rng.uniform(10, 30)) * unit, 1.3 * unit)
    streaks = noise(rng, window.shape, pair if window.shape[0] > window.shape[1] else pair[::-1])
    inside = np.asarray(1.0 - ellipse(rng, window.shape, 1.2), np.float32)
    field = np.asarray(np.minimum(streaks + np.float32(rng.uniform(-0.2, 1.0)), 4.0 * inside), np.float32)
    alpha = visible(surface, window, smoothstep(0.0, 1.6, field))
    colour = contrasting(rng, mean_colour(surface, window), 0.1, 0.35)
    paint(surface, window, alpha * np.float32(rng.uniform(0.4, 0.9)), colour)
    # What is worn is the band, not each of its scuffs.
    dense = np.asarray(ndimage.uniform_filter(alpha, max(3, round(7 * unit))), np.float32)
    return marked(surface, window, (dense > 0.15) & (window.cut(inside) > 0.0))


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "pit": pit,
    "stain": stain,
    "lesion": lesion,
    "missing": missing,
    "bright_spot": bright_spot,
    "dent": dent,
    "smear": smear,
    "colour_shift": colour_shift,
    "fold": fold,
    "speckle": speckle,
    "perlin": perlin,
    "cutpaste": cutpaste,
    "fibre": fibre,
    "bend": bend,
    "wear": wear,
    "cyst": cyst,
    "tumour": tumour,
    "mole": mole,
    "polyp": polyp,
    "deposits": deposits,
}
