"""Everything that can be rendered, by name, and which defects each can have."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from recipes.synthetic import boards, metals, minerals, objects, textiles, tissues
from recipes.synthetic.surface import Surface

Material = Callable[[Generator, int], Surface]

MATERIALS: dict[str, Material] = {
    "brushed_metal": metals.brushed_metal,
    "steel_strip": metals.steel_strip,
    "cast_iron": metals.cast_iron,
    "machined_disc": metals.machined_disc,
    "threaded_rod": metals.threaded_rod,
    "perforated": metals.perforated,
    "wood": textiles.wood,
    "leather": textiles.leather,
    "weave": textiles.weave,
    "knit": textiles.knit,
    "carpet": textiles.carpet,
    "paper": textiles.paper,
    "printed": textiles.printed,
    "mesh": textiles.mesh,
    "ceramic_tile": minerals.ceramic_tile,
    "concrete": minerals.concrete,
    "asphalt": minerals.asphalt,
    "marble": minerals.marble,
    "rubber": minerals.rubber,
    "glass": minerals.glass,
    "bottle_cap": objects.bottle_cap,
    "nut": objects.nut,
    "tablet": objects.tablet,
    "biscuit": objects.biscuit,
    "gear": objects.gear,
    "bolt_head": objects.bolt_head,
    "leaf": objects.leaf,
    "fruit": objects.fruit,
    "circuit_board": boards.circuit_board,
    "connector": boards.connector,
    "ultrasound": tissues.ultrasound,
    "skin": tissues.skin,
    "mucosa": tissues.mucosa,
    "mri": tissues.mri,
    "eye_ground": tissues.eye_ground,
}

_METAL = (
    "scratch",
    "crack",
    "pit",
    "stain",
    "dent",
    "missing",
    "colour_shift",
    "speckle",
    "wear",
    "fibre",
    "lesion",
    "fold",
)
_CLOTH = (
    "scratch",
    "stain",
    "missing",
    "fold",
    "fibre",
    "colour_shift",
    "speckle",
    "perlin",
    "cutpaste",
    "bend",
    "pit",
)
_STONE = ("scratch", "crack", "pit", "stain", "missing", "colour_shift", "speckle", "fibre", "perlin", "lesion", "wear")
_PART = (
    "scratch",
    "crack",
    "pit",
    "stain",
    "missing",
    "dent",
    "colour_shift",
    "speckle",
    "fibre",
    "perlin",
    "cutpaste",
    "smear",
)

# What each material can have; perlin and cutpaste stand for anything unforeseen. A material that is not named: all.
SUITED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("brushed_metal", "steel_strip", "cast_iron", "machined_disc", "threaded_rod"), (*_METAL, "perlin")
    ),
    "perforated": (*_METAL, "bend", "cutpaste"),
    "wood": (*_STONE, "dent", "smear"),
    **dict.fromkeys(("leather", "carpet", "weave", "knit"), _CLOTH),
    "paper": (*_CLOTH, "crack", "smear"),
    "printed": (*_CLOTH, "smear"),
    "mesh": (*_CLOTH, "dent"),
    **dict.fromkeys(("ceramic_tile", "concrete", "asphalt", "marble"), _STONE),
    "rubber": (*_STONE, "dent", "cutpaste"),
    "glass": (
        "scratch",
        "crack",
        "pit",
        "stain",
        "bright_spot",
        "speckle",
        "fibre",
        "perlin",
        "lesion",
        "missing",
        "smear",
    ),
    **dict.fromkeys(("bottle_cap", "nut", "tablet", "biscuit", "gear", "bolt_head", "connector"), _PART),
    "leaf": (*_STONE, "fold", "mole"),
    "fruit": (*_STONE, "dent", "mole"),
    "circuit_board": (*_PART, "bend"),
    "ultrasound": ("cyst", "cyst", "cyst", "lesion", "tumour", "smear"),
    "skin": ("mole", "mole", "lesion", "stain", "crack", "deposits", "dent", "tumour", "colour_shift"),
    "mucosa": ("polyp", "polyp", "lesion", "deposits", "mole", "tumour", "colour_shift"),
    "mri": ("tumour", "tumour", "lesion", "cyst", "colour_shift"),
    "eye_ground": ("deposits", "deposits", "lesion", "mole", "tumour", "speckle"),
}
