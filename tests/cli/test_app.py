"""The table of commands: one place where errors become words and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ad_dinov3 import __version__
from ad_dinov3.cli import app as table
from ad_dinov3.errors import DataError


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code; None where the command simply ends."""
    monkeypatch.setattr(sys, "argv", ["ad-dinov3", *arguments])
    try:
        table.main()
    except SystemExit as end:
        return end.code
    return None


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert _run(monkeypatch, *arguments) is None
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for verb, (_, words) in table.COMMANDS.items():
        assert lines[verb].endswith(words)
    assert all(len(line) <= 80 for line in lines.values())


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"ad-dinov3 {__version__}\n"


def test_an_unknown_command_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "predcit") == 2
    assert capsys.readouterr().err == "error: no command 'predcit'; `ad-dinov3 --help` lists the commands\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("images/a.png: expected a mask, found none"), 2, "error: images/a.png: expected a mask, found none"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_becomes_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(args: list[str], prog_name: str) -> None:
        assert (args, prog_name) == (["DIR", "--out", "x"], "ad-dinov3 predict")
        raise error

    monkeypatch.setattr(table.importlib, "import_module", lambda name: SimpleNamespace(app=fail))
    assert _run(monkeypatch, "predict", "DIR", "--out", "x") == code
    assert capsys.readouterr().err.strip() == said


def test_an_error_that_nobody_foresaw_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: list[str], prog_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(table.importlib, "import_module", lambda name: SimpleNamespace(app=fail))
    with pytest.raises(ZeroDivisionError):
        _run(monkeypatch, "predict")


def test_help_of_one_command_imports_no_other_command() -> None:
    code = (
        "import json, sys\n"
        "from ad_dinov3.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('ad_dinov3.cli.')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.rpartition(".")[2] for name in json.loads(done.stdout.splitlines()[-1])}
    assert "compare" in loaded
    assert not loaded & {module for module, _ in table.COMMANDS.values()} - {"compare"}
