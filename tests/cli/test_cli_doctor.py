"""doctor: every line says how it stands, and what must be fixed ends in exit code 1."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ad_dinov3.cli import doctor
from ad_dinov3.export.processor import Processor


def _states(found: Any) -> dict[str, str]:
    return {finding.subject: finding.state for finding in found}


def test_a_machine_that_works_has_no_problem(runner: CliRunner) -> None:
    done = runner.invoke(doctor.app, [], catch_exceptions=False)
    assert done.exit_code == 0
    assert "problem" not in done.output
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in done.output
    for subject in ("torch", "transformers", "lite0", "nano", "disk here"):
        assert subject in done.output


def test_a_torch_that_cannot_be_imported_is_a_problem_with_a_way_out(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (finding,) = doctor._torch()
    assert finding.state == "problem"
    assert "libcudart" in finding.words
    assert "pip install" in finding.words
    monkeypatch.setattr(doctor, "_transformers", lambda: iter(()))  # it would import torch, too
    monkeypatch.setattr(doctor, "_torchvision", lambda: iter(()))
    assert runner.invoke(doctor.app, []).exit_code == 1


def test_a_weights_folder_that_is_none_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AD_DINOV3_WEIGHTS", str(tmp_path / "absent"))
    assert _states(doctor._weights())["AD_DINOV3_WEIGHTS"] == "problem"
    (tmp_path / "absent").mkdir()
    assert "AD_DINOV3_WEIGHTS" not in _states(doctor._weights())


def test_being_offline_and_without_public_backbones_are_notes_and_the_package_weights_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = _states(doctor._weights())
    assert found["lite0"] == found["nano"] == "ok"
    assert found["network"] == "note"
    assert found["weights"] == "note"


def test_an_absent_extra_is_a_note_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in {"av", "openvino"} else usual(name, *rest)
    )
    found = {finding.subject: finding for finding in doctor._optional()}
    assert {found[name].state for name in ("av", "openvino")} == {"note"}
    assert 'pip install "ad-dinov3[video]"' in found["av"].words
    assert "pip install openvino" in found["openvino"].words
    assert found["fastapi"].state == "ok"


def test_a_processor_without_instructions_for_bytes_is_a_note_that_says_which_export_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ad_dinov3.export.processor.read_processor", lambda: Processor("EPYC", ("AVX2",)))
    (found,) = doctor._processor()
    assert found.state == "note"
    assert "EPYC with AVX2" in found.words
    assert "--precision fp32" in found.words
    monkeypatch.setattr("ad_dinov3.export.processor.read_processor", lambda: None)
    assert not list(doctor._processor())


@pytest.mark.parametrize(("free", "state"), [(3 << 30, "ok"), (1 << 30, "note")])
def test_little_memory_is_a_note(monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(doctor, "_available_memory", lambda: free)
    assert _states(doctor._room())["memory"] == state


def test_available_memory_is_less_than_all_memory() -> None:
    available = doctor._available_memory()
    if available is None:
        pytest.skip("this system does not tell")
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < available <= int(total.split()[1]) * 1024
