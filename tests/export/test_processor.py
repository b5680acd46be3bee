"""Which export suits a processor, by what its system tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from ad_dinov3.export.processor import read_processor

XEON = "processor : 0\nmodel name : Xeon\nflags : fpu avx2 avx512f avx512_vnni amx_int8\n\nprocessor : 1\n"
ZEN3 = "model name\t: AMD EPYC 7B13\nflags\t\t: fpu sse4_2 avx2 avx512fake\n"
CORE = "model name : Core Ultra\nflags : avx2 avx_vnni\n"
ARM = "processor : 0\nFeatures : fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "name", "features", "multiplies_bytes"),
    [
        (XEON, "Xeon", ("AVX2", "AVX-512", "VNNI", "AMX"), True),
        (ZEN3, "AMD EPYC 7B13", ("AVX2",), False),
        (CORE, "Core Ultra", ("AVX2", "VNNI"), True),
        (ARM, "unnamed", ("NEON", "dot product"), True),
        ("", "unnamed", (), False),
    ],
)
def test_features_are_read_and_decide_the_advice(
    tmp_path: Path, text: str, name: str, features: tuple[str, ...], multiplies_bytes: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    processor = read_processor(tmp_path / "cpuinfo")
    assert processor is not None
    assert (processor.name, processor.features, processor.multiplies_bytes) == (name, features, multiplies_bytes)
    assert ("--precision int8" in processor.advice) == multiplies_bytes
    assert ("--precision fp32" in processor.advice) != multiplies_bytes


def test_a_system_that_does_not_tell_has_no_processor(tmp_path: Path) -> None:
    assert read_processor(tmp_path / "absent") is None
