"""Everything that can be rendered, by name, and which defects each can have."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from ad_dinov3.data.synthetic import textures
from ad_dinov3.data.synthetic.surface import Surface

Material = Callable[[Generator, int], Surface]

MATERIALS: dict[str, Material] = {
    "brushed_metal": textures.brushed_metal,
    "steel_strip": textures.steel_strip,
    "cast_iron": textures.cast_iron,
    "machined_disc": textures.machined_disc,
    "wood": textures.wood,
    "leather": textures.leather,
    "weave": textures.weave,
    "knit": textures.knit,
}

SUITED: dict[str, tuple[str, ...]] = {}
