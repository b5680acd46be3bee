"""The folder that a training run writes: nothing in it is replaced unasked, and what is cut short does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_training import assert_equal_bits, losses, quick
from typer.testing import CliRunner

from ad_dinov3 import model as model_module
from ad_dinov3.cli import train as train_command
from ad_dinov3.data.layouts import read_folder
from ad_dinov3.errors import ConfigError, TrainingError, WeightsError
from ad_dinov3.model import load_model, new_model, save_model
from ad_dinov3.training.loop import RunOptions, read_log, train
from ad_dinov3.training.output import CHECKPOINT, LOG, check_output


def test_finished_model_is_not_overwritten_unasked(tmp_path: Path, tiny_vit: Path, squares: Path) -> None:
    samples = read_folder(squares)
    first = train(new_model(quick(tiny_vit)), samples, tmp_path / "m")

    with pytest.raises(TrainingError, match=r"m holds a trained model: add --resume .* --overwrite .* another --out"):
        train(new_model(quick(tiny_vit, train__seed=1)), samples, tmp_path / "m")

    assert_equal_bits(load_model(tmp_path / "m"), first)
    other = train(new_model(quick(tiny_vit, train__seed=1)), samples, tmp_path / "m", RunOptions(overwrite=True))
    assert_equal_bits(load_model(tmp_path / "m"), other)
    assert len(losses(tmp_path / "m")) == 9


@pytest.mark.parametrize(
    ("files", "resume", "words"),
    [
        ([LOG], False, "an unfinished training run"),
        ([LOG, CHECKPOINT], False, "an unfinished training run"),
        (["head.safetensors", "config.json"], False, "a trained model"),
        (["head.safetensors", "config.json"], True, f"no {CHECKPOINT}, so there is nothing to resume"),
    ],
)
def test_what_a_folder_holds_decides_the_refusal(tmp_path: Path, files: list[str], resume: bool, words: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(TrainingError, match=words):
        check_output(tmp_path, resume=resume, overwrite=False)
    check_output(tmp_path, resume=False, overwrite=True)


def test_folders_that_may_be_written_are_not_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()  # of something else
    check_output(tmp_path, resume=False, overwrite=False)
    check_output(tmp_path / "new", resume=True, overwrite=False)
    (tmp_path / LOG).touch()  # killed within the first epoch
    check_output(tmp_path, resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="give one of the two"):
        check_output(tmp_path, resume=True, overwrite=True)
    with pytest.raises(ConfigError, match=r"config\.json: expected a folder"):
        check_output(tmp_path / "config.json", resume=False, overwrite=False)


@pytest.mark.parametrize("damage", [None, "", '{"epoch": 0, "tot'])
def test_run_is_resumed_without_a_log_and_with_a_torn_one(
    tmp_path: Path, tiny_vit: Path, squares: Path, damage: str | None
) -> None:
    samples, out = read_folder(squares), tmp_path / "m"
    whole = train(new_model(quick(tiny_vit)), samples, tmp_path / "whole")
    train(new_model(quick(tiny_vit, train__epochs=1)), samples, out)
    if damage is None:
        (out / LOG).unlink()
    else:
        (out / LOG).write_text(damage)

    assert_equal_bits(train(new_model(quick(tiny_vit)), samples, out, RunOptions(resume=True)), whole)
    assert [row["epoch"] for row in read_log(out)] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("over_an_old_one", [False, True])
def test_save_that_is_cut_short_leaves_nothing_that_loads_without_its_seen_images(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, over_an_old_one: bool
) -> None:
    from dataclasses import replace

    class Killed(Exception):
        pass

    new = replace(new_model(quick(tiny_vit, train__seed=1)), training_images=frozenset({"b" * 64}))
    loaded = 0
    for last in range(6):
        folder = tmp_path / str(last)
        if over_an_old_one:
            save_model(replace(new_model(quick(tiny_vit)), training_images=frozenset({"a" * 64})), folder)
        left = [last]

        def counted(function: object, left: list[int] = left) -> object:
            def call(*arguments: object) -> object:
                if not left[0]:
                    raise Killed
                left[0] -= 1
                assert callable(function)
                return function(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("write_tensors", "write_text", "write_seen_images"):
                patch.setattr(model_module, name, counted(getattr(model_module, name)))
            try:
                save_model(new, folder)
            except Killed:
                with pytest.raises(WeightsError, match="not a saved model"):
                    load_model(folder)
                continue
        loaded += 1
        assert load_model(folder).training_images == new.training_images
        assert_equal_bits(load_model(folder), new)
    assert 0 < loaded < 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere", "--out", "m"], "nowhere: expected a folder"),
        (["--data", "DATA", "--out", "m", "--preset", "defualt"], "no preset 'defualt'"),
        (["--data", "DATA", "--out", "full"], "full holds a trained model"),
        (["--data", "DATA", "--out", "full", "--resume", "--overwrite"], "give one of the two"),
        (["--data", "DATA", "--out", "m", "--set", "train.epoch=3"], "no setting 'train.epoch'"),
    ],
)
def test_wrong_arguments_are_refused_before_torch_is_loaded(
    tmp_path: Path, squares: Path, words: list[str], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "head.safetensors").touch()
    words = ["train", "--weights", "nano", *(str(squares) if word == "DATA" else word for word in words)]
    script = f"""
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
sys.argv = ["ad-dinov3", *{words!r}]
from ad_dinov3.cli.app import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in " ".join((done.stderr + done.stdout).split())
    assert done.stdout.endswith("False\n")
    assert not (tmp_path / "m").exists()


def test_command_says_what_came_out_and_what_can_be_measured_next(
    tmp_path: Path, tiny_vit: Path, squares: Path
) -> None:
    (tmp_path / "data" / "mvtec_anomaly_detection").mkdir(parents=True)
    settings = tmp_path / "settings.json"
    settings.write_text(quick(tiny_vit).model_dump_json(include={"encoder", "input", "prompts", "method", "train"}))
    words = ["train", "--data", str(squares), "--settings", str(settings), "--out", "m"]

    done = subprocess.run(
        [sys.executable, "-m", "ad_dinov3", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    totals = losses(tmp_path / "m")
    assert (
        f"loss {sum(totals[-3:]) / 3:.4g} in epoch 3 ({sum(totals[:3]) / 3:.4g} in epoch 1): cross_modal" in done.stdout
    )
    assert "threshold 0.5: the setting's value, fitted to no image" in done.stdout
    assert "found here: mvtec_ad)" in done.stdout
    assert done.stdout.endswith("  ad-dinov3 evaluate --model m --data mvtec_ad\n")
    assert {"loss.svg", LOG, CHECKPOINT, "config.json"} <= {path.name for path in (tmp_path / "m").iterdir()}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["trained_on"] == [squares.name]


def test_a_run_that_is_stopped_says_how_it_goes_on(
    tmp_path: Path, tiny_vit: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ad_dinov3.training.loop.train", stopped)
    (tmp_path / "settings.json").write_text(quick(tiny_vit).model_dump_json(include={"encoder", "input", "method"}))
    words = ["--data", str(squares), "--settings", str(tmp_path / "settings.json"), "--out", str(tmp_path / "m")]
    shown = CliRunner().invoke(train_command.app, words)
    assert shown.exit_code != 0
    assert "the same command with --resume goes on after the last whole epoch" in " ".join(shown.output.split())
