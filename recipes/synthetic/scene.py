"""A picture from a seed: material, perhaps a defect, light and camera, with the exact mask."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ad_dinov3.errors import ConfigError
from recipes.synthetic.defects import DEFECTS
from recipes.synthetic.materials import MATERIALS, SUITED
from recipes.synthetic.noise import Plane
from recipes.synthetic.surface import Colours, Mask, Surface, is_coloured, photograph, without_colour

GOOD = "good"
_GOOD_SHARE = 0.25
_MIN_SIZE_PX = 64
_TRIES = 4
_LEAST_SHARE = 0.0006  # of the picture's area
_LEAST_CHANGE = 0.025


@dataclass(frozen=True)
class Rendered:
    """One rendered picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the pixels that the defect changed; all false for ``good``.
        material: its name in ``MATERIALS``.
        defect: its name in ``DEFECTS``, or ``good``.
    """

    image: NDArray[np.uint8]
    mask: Mask
    material: str
    defect: str


def render(seed: int, size: int = 256, material: str | None = None, defect: str | None = None) -> Rendered:
    """Render a square picture; equal arguments give equal pixels.

    Args:
        seed: chooses everything that the other arguments leave open.
        size: side in px, at least 64; structures grow with it.
        material: a name of ``MATERIALS``; None draws one.
        defect: a name of ``DEFECTS`` or ``good``; None draws ``good`` one time in four, else a defect that the
            material can have.

    Raises:
        ConfigError: a name is unknown or the size too small.
    """
    if size < _MIN_SIZE_PX:
        raise ConfigError(f"expected a size of at least {_MIN_SIZE_PX} px, got {size}")
    rng = np.random.default_rng(seed)
    # Drawn whether needed or not, so that naming what the seed would have drawn changes nothing.
    drawn_material = list(MATERIALS)[int(rng.integers(len(MATERIALS)))]
    drawn_good, drawn_defect = rng.random() < _GOOD_SHARE, rng.random()
    material = material if material is not None else drawn_material
    _check(material, MATERIALS)
    suited = SUITED.get(material, tuple(DEFECTS))
    defect = defect if defect is not None else GOOD if drawn_good else suited[int(drawn_defect * len(suited))]
    _check(defect, (GOOD, *DEFECTS))
    scene_rng, defect_rng, camera_rng = rng.spawn(3)
    surface = MATERIALS[material](scene_rng, size)
    mask = np.zeros(surface.shape, dtype=np.bool_) if defect == GOOD else _spoil(surface, defect_rng, defect)
    return Rendered(photograph(surface, camera_rng), mask, material, defect)


def _spoil(surface: Surface, rng: Generator, defect: str) -> Mask:
    """Draw the defect, more than once while too little of it can be seen; the mask of all of it."""
    before, relief = surface.albedo.copy(), surface.height.copy()
    grey = surface.light is None and not is_coloured(before)
    mask = np.zeros(surface.shape, dtype=np.bool_)
    for _ in range(_TRIES):
        mask |= DEFECTS[defect](surface, rng)
        if mask.mean() >= _LEAST_SHARE and _change(surface, before, relief, mask) >= _LEAST_CHANGE:
            break
    if grey:
        # A scan has no colours, and its defects have none either.
        surface.albedo[...] = without_colour(surface.albedo)
    return mask


def _change(surface: Surface, before: Colours, relief: Plane, mask: Mask) -> float:
    """Mean change inside the mask: of the albedo, or of the relief's slope where that is larger."""
    albedo = float(np.abs(surface.albedo[mask] - before[mask]).mean())
    if surface.light is None:
        return albedo
    added = surface.height - relief
    slope = np.abs(np.diff(added, axis=0, append=added[-1:])) + np.abs(np.diff(added, axis=1, append=added[:, -1:]))
    return max(albedo, 0.3 * float(slope[mask].mean()))


def _check(name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ConfigError(f"unknown name {name!r}; choose one of {', '.join(known)}")
