"""A surface before it is photographed, its lighting, and the camera that turns it into pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recipes.synthetic.noise import Plane, Shape, noise

Colours = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Light:
    """One directional light.

    Attributes:
        azimuth: where it comes from in the image plane, radians.
        elevation: height above the plane, radians; low light shows relief.
        ambient: share of light without direction, in [0, 1].
        specular: strength of highlights, 0 for matt surfaces.
        sharpness: how often the cosine of a highlight is squared; 3 satin, 6 polished.
    """

    azimuth: float = 0.8
    elevation: float = 0.8
    ambient: float = 0.4
    specular: float = 0.0
    sharpness: int = 4


@dataclass(frozen=True)
class Surface:
    """A canvas on which materials and defects are drawn; its arrays are edited in place.

    Attributes:
        albedo: (H, W, 3) float32 in [0, 1], colour under flat light.
        height: (H, W) float32, relief in px.
        area: (H, W) bool, where a defect may lie: the object, or everything for a texture.
        behind: (H, W, 3) float32, what shows where a piece is missing; None: a plausible flat colour.
        under: (H, W) float32, the relief of what lies behind, in px; None: flat.
        donor: (H, W, 3) float32, a picture from which foreign texture is taken; None: procedural texture.
        light: how the relief is lit; None for pictures that are not lit (ultrasound, MRI).
        clips: whether defects end at the border of ``area``.
    """

    albedo: Colours
    height: Plane
    area: Mask
    behind: Colours | None = None
    under: Plane | None = None
    donor: Colours | None = None
    light: Light | None = field(default_factory=Light)
    clips: bool = True

    @property
    def shape(self) -> Shape:
        """(H, W) in px."""
        return int(self.height.shape[0]), int(self.height.shape[1])


def is_coloured(albedo: Colours) -> bool:
    """Whether every eighth pixel differs between its channels by more than JPEG's chroma noise."""
    few = albedo[::8, ::8]
    return float((few.max(axis=2) - few.min(axis=2)).mean()) > 0.012


def without_colour(albedo: Colours) -> Colours:
    """The mean of the channels in all three of them."""
    # Reductions over a last axis of three are slow in numpy; sums of planes are not.
    grey = (albedo[..., 0] + albedo[..., 1] + albedo[..., 2]) * np.float32(1 / 3)
    return np.repeat(grey[..., None], 3, axis=2)


def random_light(rng: Generator, specular: float = 0.0, sharpness: int = 4) -> Light:
    """A light from a random side, between raking and nearly overhead."""
    return Light(
        float(rng.uniform(0, 2 * np.pi)),
        float(rng.uniform(0.6, 1.15)),
        float(rng.uniform(0.3, 0.55)),
        specular,
        sharpness,
    )


def shade(albedo: Colours, height: Plane, light: Light) -> Colours:
    """Colours (H, W, 3) under the light: Lambert plus Blinn-Phong; a flat matt surface keeps its albedo."""
    slope_y = np.zeros_like(height)
    slope_x = np.zeros_like(height)
    slope_y[1:-1] = 0.5 * (height[2:] - height[:-2])
    slope_x[:, 1:-1] = 0.5 * (height[:, 2:] - height[:, :-2])
    length = np.sqrt(1.0 + slope_x * slope_x + slope_y * slope_y)
    toward = (
        np.cos(light.elevation) * np.cos(light.azimuth),
        np.cos(light.elevation) * np.sin(light.azimuth),
        np.sin(light.elevation),
    )
    facing = (toward[2] - slope_x * np.float32(toward[0]) - slope_y * np.float32(toward[1])) / length
    diffuse = light.ambient + (1.0 - light.ambient) * np.maximum(facing, 0.0) / np.float32(toward[2])
    shaded: Colours = albedo * diffuse.astype(np.float32)[..., None]
    if light.specular > 0.0:
        # The viewer looks straight down, so the half vector leans half way toward the light.
        half = np.array((toward[0], toward[1], toward[2] + 1.0), np.float32)
        half /= np.float32(np.linalg.norm(half))
        shine = np.maximum((half[2] - slope_x * half[0] - slope_y * half[1]) / length, 0.0)
        for _ in range(light.sharpness):
            shine = shine * shine
        shaded += (light.specular * shine).astype(np.float32)[..., None]
    return shaded


def to_pixels(colours: Colours) -> NDArray[np.uint8]:
    """(H, W, 3) float colours in [0, 1] as uint8, rounded and clipped."""
    return np.asarray(np.rint(np.clip(colours, 0.0, 1.0) * np.float32(255.0)), dtype=np.uint8)


def illumination(rng: Generator, shape: Shape) -> Plane:
    """Uneven lighting and vignetting as a factor (H, W) around 1."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    angle, slope, falloff = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.16), rng.uniform(0, 0.16)
    field_ = 1.0 + slope * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) - falloff * (x * x + y * y)
    return np.asarray(field_, dtype=np.float32)


def photograph(surface: Surface, rng: Generator) -> NDArray[np.uint8]:
    """The surface as a camera sees it: shading, uneven light, exposure, sensor noise; (H, W, 3) uint8."""
    if surface.light is None:
        colours = surface.albedo * np.float32(rng.uniform(0.92, 1.06))
    else:
        colours = shade(surface.albedo, surface.height, surface.light)
        colours *= (illumination(rng, surface.shape) * np.float32(rng.uniform(0.88, 1.1)))[..., None]
        colours *= (1.0 + rng.uniform(-0.025, 0.025, 3)).astype(np.float32)
    colours += np.float32(rng.uniform(0.002, 0.014)) * noise(rng, surface.shape)[..., None]
    return to_pixels(colours)
