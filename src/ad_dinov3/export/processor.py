"""What this processor can do that decides which export is the fastest on it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CPUINFO = Path("/proc/cpuinfo")
# flag of the system -> what the field calls it; several flags may be of one name
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bfloat16",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
}
_OF_BYTES = {"VNNI", "AMX", "dot product"}  # instructions that multiply bytes and add them up


class Processor(NamedTuple):
    """A processor as its system tells of it.

    Attributes:
        name: of the model, such as ``AMD EPYC 7B13``.
        features: of those that matter here, in the field's words.
    """

    name: str
    features: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} with {', '.join(self.features) or 'no feature that matters here'}"

    @property
    def multiplies_bytes(self) -> bool:
        """Whether it has instructions for networks in 8 bits; without, these are about as slow as in float."""
        return not _OF_BYTES.isdisjoint(self.features)

    @property
    def advice(self) -> str:
        """Which export to take on it, in words."""
        if self.multiplies_bytes:
            return "export --precision int8 is the fastest, two to four times fp32 on a ViT"
        return "no instructions for 8 bits, so int8 is hardly faster than fp32 or slower: export --precision fp32"


def read_processor(cpuinfo: Path = _CPUINFO) -> Processor | None:
    """This machine's processor; None where the system does not tell (Linux does).

    Args:
        cpuinfo: what tells.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    told = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = (told.get("flags") or told.get("features") or "").split()
    features = dict.fromkeys(name for flag, name in _FEATURES.items() if flag in flags)
    return Processor(told.get("model name", "unnamed"), tuple(features))
