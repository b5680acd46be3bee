"""The table of methods against what each method's file holds."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

import ad_dinov3.methods
from ad_dinov3.config import PRESETS, MethodConfig
from ad_dinov3.errors import ConfigError
from ad_dinov3.export.graphs import GRAPHS
from ad_dinov3.methods.head import Head, Parts, TrainableHead
from ad_dinov3.methods.table import METHODS, method_row, names_of, parts_of
from ad_dinov3.model import new_model, open_method


@pytest.mark.parametrize("name", METHODS)
def test_row_says_what_the_file_of_its_name_holds(name: str) -> None:
    row, parts = METHODS[name], parts_of(name)
    assert isinstance(parts, Parts)
    assert row.remembers == (parts.remember is not None) == (parts.references is not None)
    assert row.compares_folders == (parts.compare is not None)
    assert (row.authors_preset is not None) == (parts.read_authors is not None) == (parts.write_authors is not None)
    assert row.settings().model_dump()["kind"] == name
    ensemble = parts.ensemble and parts.ensemble(PRESETS[row.preset].method)
    assert row.says_states(PRESETS[row.preset]) == (ensemble is not None) == (parts.settle is not None)
    for preset in (row.preset, row.authors_preset or row.preset):
        assert PRESETS[preset].method.kind == name
    assert (name in GRAPHS) != (row.no_graph is not None)


def test_settings_of_every_row_are_a_member_of_the_union_and_nothing_else_is() -> None:
    union, _ = typing.get_args(MethodConfig)
    assert set(typing.get_args(union)) == {row.settings for row in METHODS.values()}


def test_every_file_with_parts_has_a_row() -> None:
    folder = Path(ad_dinov3.methods.__file__).parent
    assert {file.stem for file in folder.glob("*.py") if "\nPARTS = " in file.read_text()} == set(METHODS)


@pytest.mark.parametrize("name", ["winclip", "april_gan", "anomalyclip", "adaclip"])
def test_head_can_be_trained_where_the_row_says_so(name: str, clip: str) -> None:
    head = new_model(PRESETS[name].with_settings({"encoder": clip}), offline=True).head
    assert isinstance(head, Head)
    assert isinstance(head, TrainableHead) == METHODS[name].is_trained


def test_methods_are_listed_as_a_sentence_lists_them() -> None:
    assert names_of(lambda row: row.remembers) == "winclip, april_gan, anomalydino, subspacead and uniadet"
    assert names_of(lambda row: row.authors_preset) == "ad_dinov3, april_gan, anomalyclip and adaclip"
    assert names_of(lambda row: row.title == "WinCLIP") == "winclip"


def test_unknown_method_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"there is no method 'padim'; there are ad_dinov3, .*, mahalanobis"):
        method_row("padim")


def test_checkpoint_for_a_method_without_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match=r"winclip reads no checkpoint; ad_dinov3, april_gan, .* read"):
        open_method("winclip", str(file), offline=True)
