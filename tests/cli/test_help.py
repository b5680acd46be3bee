"""The help of every command: whole at 80 columns, in sentences, and one option is one thing everywhere."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ad_dinov3.cli.app import COMMANDS

# The options that mean something else in some commands: (option, command) -> why its help text is another one.
OTHER_TEXTS = {
    ("--model", "serve"): "it may be repeated, and names the models for requests",
    ("--model", "workbench"): "by default it is the one that made the results",
    ("--method", "train"): "only methods that are trained",
    ("--method", "convert"): "only methods whose authors publish checkpoints",
    ("--class-name", "serve"): "what a request says goes before it",
    ("--class-name", "remember"): "it is the class of the normal images",
    ("--class-name", "calibrate"): "it is the class of the normal images",
    ("--class-name", "export"): "prompts are stored, for several classes",
    ("--class-name", "convert"): "prompts are stored, for several classes",
    ("--batch-size", "benchmark"): "it may be repeated",
    ("--data", "benchmark"): "one set, and only for accuracy",
    ("--size", "benchmark"): "it may be repeated",
    ("--normals", "evaluate"): "it may also be a number of images to draw",
    ("--compare", "evaluate"): "a labelled set is no stream",
    ("--compare", "watch"): "what arrives is a stream and no folder with an end",
}
EACH_ITS_OWN = {"--out"}  # every command writes something else
NARROWEST_TEXT = 30  # columns that are left for the explanation of an option


def _commands() -> Iterator[tuple[str, Any]]:
    for verb, (module, _) in COMMANDS.items():
        command: Any = typer.main.get_command(importlib.import_module(f"ad_dinov3.cli.{module}").app)
        below = getattr(command, "commands", {})
        yield from ((f"{verb} {name}", sub) for name, sub in below.items()) if below else [(verb, command)]


ALL = dict(_commands())


def _options(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option" and one.name != "help"]


@pytest.mark.parametrize("words", ALL)
def test_help_at_80_columns_shows_every_name_whole_and_leaves_room_for_its_text(words: str) -> None:
    verb, *sub = words.split()
    app = importlib.import_module(f"ad_dinov3.cli.{COMMANDS[verb][0]}").app
    shown = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, [*sub, "--help"]).output
    lines = shown.splitlines()
    assert "…" not in shown
    assert max(map(len, lines)) <= 80
    for option in _options(ALL[words]):
        for name in [*option.opts, *option.secondary_opts]:
            assert any(name in line.split() for line in lines), f"{name} is not shown whole"
        first_words = " ".join(option.help.split()[:2])
        starts = [line.index(first_words) for line in lines if line.startswith("│") and first_words in line]
        assert starts, f"{option.opts[0]}: {first_words!r} is broken over two lines"
        assert 78 - min(starts) >= NARROWEST_TEXT, f"{option.opts[0]} is squeezed"


@pytest.mark.parametrize("words", ALL)
def test_every_parameter_is_explained_in_whole_sentences(words: str) -> None:
    for parameter in ALL[words].params:
        text = parameter.help or ""
        if parameter.name != "help":
            assert text[:1].isupper(), f"{words} {parameter.opts[0]}: {text!r}"
            assert text.endswith("."), f"{words} {parameter.opts[0]}: {text!r}"


@pytest.mark.parametrize("words", ALL)
def test_a_flag_that_is_off_by_default_has_no_negative_twin(words: str) -> None:
    twins = [option.opts[0] for option in _options(ALL[words]) if option.secondary_opts and option.default is False]
    assert not twins


def test_an_option_has_one_text_in_all_commands_but_for_the_listed_ones() -> None:
    texts: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for words, command in ALL.items():
        for option in _options(command):
            name = next(opt for opt in option.opts if opt.startswith("--"))
            if name not in EACH_ITS_OWN and (name, words) not in OTHER_TEXTS:
                texts[name][option.help].add(words)
    assert {name: dict(found) for name, found in texts.items() if len(found) > 1} == {}


def test_every_listed_exception_is_there_and_differs() -> None:
    for name, words in OTHER_TEXTS:
        text = next(option.help for option in _options(ALL[words]) if name in option.opts)
        usual = {
            option.help
            for other, command in ALL.items()
            for option in _options(command)
            if name in option.opts and (name, other) not in OTHER_TEXTS
        }
        assert text not in usual, f"{words} {name} needs no exception"


def test_short_names_are_those_of_the_output_only() -> None:
    short = {
        (opt, option.opts[-1] if option.opts[-1].startswith("--") else option.opts[0])
        for command in ALL.values()
        for option in _options(command)
        for opt in option.opts
        if not opt.startswith("--")
    }
    assert short == {("-o", "--out")}
