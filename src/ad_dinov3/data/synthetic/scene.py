"""A picture from a seed: material, perhaps a defect, light and camera, with the exact mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ad_dinov3.data.synthetic.defects import DEFECTS
from ad_dinov3.data.synthetic.materials import MATERIALS, SUITED
from ad_dinov3.data.synthetic.surface import Mask, photograph
from ad_dinov3.errors import ConfigError

GOOD = "good"
_GOOD_SHARE = 0.25
_MIN_SIZE_PX = 64


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
        size: side in px, at least 64; the picture shows the same scene at any size.
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
    mask = np.zeros(surface.shape, dtype=np.bool_) if defect == GOOD else DEFECTS[defect](surface, defect_rng)
    return Rendered(photograph(surface, camera_rng), mask, material, defect)


def _check(name: str, known: dict[str, object] | tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"unknown name {name!r}; choose one of {', '.join(known)}")
