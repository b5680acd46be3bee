"""Models and encoders that are read from and written to an object store, and the refusal of what takes no URI."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import s3_server
from s3_server import Store
from toy_detector import draw_part
from typer.testing import CliRunner

from ad_dinov3.assets import BACKBONES
from ad_dinov3.bench.seen import seen_on_disk
from ad_dinov3.cli import calibrate, remember
from ad_dinov3.config import PRESETS
from ad_dinov3.data.remote import list_files
from ad_dinov3.errors import ConfigError, DataError
from ad_dinov3.infer.opening import load
from ad_dinov3.model import load_model, new_model, save_model
from ad_dinov3.predict.store import written_into

NANO = "s3://parts/nano"


@pytest.fixture
def cached(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return store


def names(uri: str) -> set[str]:
    return {file.name for file in list_files(uri)}


def test_an_encoder_in_a_store_is_the_encoder_here_and_has_seen_the_same(cached: Store, tmp_path: Path) -> None:
    s3_server.upload(BACKBONES["nano"].parent, cached.endpoint)
    image = draw_part(tmp_path / "part.png", blemish=True)
    here, there = (load(method="dinov3_plain", weights=name).predict(image) for name in ("nano", NANO))
    assert np.array_equal(here.anomaly_map, there.anomaly_map)
    seen = [seen_on_disk("dinov3_plain", "embedded", name) for name in ("nano", NANO)]
    assert seen[0].images == seen[1].images
    assert seen[0].encoder_trained_on == seen[1].encoder_trained_on


def test_a_saved_model_names_its_encoder_by_uri_so_that_any_machine_can_open_it(cached: Store, tmp_path: Path) -> None:
    s3_server.upload(BACKBONES["nano"].parent, cached.endpoint)
    model = new_model(PRESETS["dinov3_plain"].with_settings({"encoder": NANO}))
    save_model(model, tmp_path / "model")
    opened = load_model(tmp_path / "model")
    assert (opened.config.encoder, opened.fingerprint) == (NANO, model.fingerprint)


def test_a_model_that_remembers_is_made_from_and_written_into_a_store(cached: Store, tmp_path: Path) -> None:
    for index in range(3):
        draw_part(tmp_path / "good" / "nut" / f"{index}.png")
    s3_server.upload(tmp_path, cached.endpoint)
    for source, out in ((str(tmp_path / "good"), str(tmp_path / "model")), ("s3://parts/good", "s3://parts/model")):
        ran = CliRunner().invoke(remember.app, [source, "-o", out])
        assert ran.exit_code == 0, ran.output
    here, there = load(tmp_path / "model"), load("s3://parts/model")
    assert here.normal_classes == there.normal_classes == ("nut",)
    image = draw_part(tmp_path / "part.png", blemish=True)
    assert np.array_equal(*(one.predict(image, "nut").anomaly_map for one in (here, there)))
    assert names("s3://parts/model") == {path.name for path in (tmp_path / "model").iterdir()}
    assert not any((tmp_path / "cache" / "ad-dinov3" / "runs").glob("*/*"))


def test_good_images_in_a_store_calibrate_a_model(cached: Store, tmp_path: Path) -> None:
    for index in range(4):
        draw_part(tmp_path / "good" / f"{index}.png", size=(96, 80 + index))
    s3_server.upload(tmp_path, cached.endpoint)
    words = ["embedded", "s3://parts/good", "-o", "s3://parts/calibrated", "--false-alarms", "25%"]
    ran = CliRunner().invoke(calibrate.app, words)
    assert ran.exit_code == 0, ran.output
    assert load("s3://parts/calibrated").promises.keys() == {"object"}


def test_a_place_that_holds_something_is_not_written_into(cached: Store, tmp_path: Path) -> None:
    draw_part(tmp_path / "model" / "config.json.png")
    s3_server.upload(tmp_path, cached.endpoint)
    refusal = r"s3://parts/model: expected an empty place, found config\.json\.png"
    with pytest.raises(ConfigError, match=refusal), written_into("s3://parts/model"):
        raise AssertionError("nothing is done before the refusal")


def test_nothing_is_stored_of_what_ends_in_an_error_and_the_settings_are_stored_last(
    cached: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr("ad_dinov3.predict.store.put_file", lambda path, uri: order.append(path.name))
    monkeypatch.setattr("ad_dinov3.predict.store.names_in", lambda uri: frozenset())
    monkeypatch.setattr("ad_dinov3.predict.store.remove_file", lambda uri: None)
    for failing in (True, False):
        try:
            with written_into("s3://parts/model") as folder:
                for name in ("config.json", "head.safetensors", "README.md"):
                    (folder / name).touch()
                if failing:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert order == []
    assert (order[-1], len(order)) == ("config.json", 3)


@pytest.mark.parametrize(
    "words",
    [
        "train --data DATA -o URI",
        "train --data DATA -o out --settings URI",
        "evaluate --data DATA -o URI",
        "watch IMAGES -o URI",
        "convert URI -o out",
        "convert model -o URI",
        "compare URI",
        "demo -o URI",
        "reproduce table1 -o URI",
        "datasets verify mvtec URI",
        "weights download nano -o URI",
    ],
)
def test_what_works_on_paths_alone_says_so_in_one_line_and_makes_nothing(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *rest = words.replace("URI", "s3://user:secret@parts/place").split()
    ran = CliRunner().invoke(importlib.import_module(f"ad_dinov3.cli.{verb}").app, rest)
    assert isinstance(ran.exception, DataError), ran.output
    assert re.fullmatch(r"s3://parts/place: expected a path on this machine; copy it [^\n]+", str(ran.exception))
    assert not any(tmp_path.iterdir())
