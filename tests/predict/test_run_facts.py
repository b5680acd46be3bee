"""run.json: what older versions wrote still opens, and the model of a run is found again, whichever it was."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from ad_dinov3.cli import predict
from ad_dinov3.cli.workbench import results_of
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.opening import ModelSpec
from ad_dinov3.infer.views import View
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import command_again, read_rows
from ad_dinov3.predict.run_facts import MadeBy, RunFacts, read_run

# As version 0.2.0 wrote it, but for what nobody reads again.
OLDER = {
    "format_version": 1,
    "ad_dinov3": "0.2.0",
    "method": "AD-DINOv3",
    "model": "line",
    "model_fingerprint": "f" * 16,
    "promises": {"nut": "about 1 good part in 20 will be flagged"},
    "options": {
        "class_name": "nut",
        "rule": {
            "threshold": 0.4,
            "min_area_px": 12,
            "regions_on_normal": False,
            "areas": {"inspect": [], "ignore": [[[0.0, 0.9], [0.3, 0.9], [0.3, 1.0]]]},
        },
        "batch_size": 8,
        "threads": 2,
        "memory_mb": 1000,
        "class_from_folder": False,
    },
    "outputs": {"overlays": True, "masks": False, "maps": "png16"},
    "shard": "0/1",
    "images": 6,
    "interrupted": False,
}


def said(folder: Path, tree: object) -> RunFacts:
    (folder / "run.json").write_text(json.dumps(tree))
    return read_run(folder)


def test_a_file_of_an_older_version_says_all_that_is_in_it(tmp_path: Path) -> None:
    facts = said(tmp_path, OLDER)
    areas = Areas(ignore=(((0.0, 0.9), (0.3, 0.9), (0.3, 1.0)),))
    assert facts.options == DriveOptions("nut", DecisionRule(0.4, 12, areas=areas), 8, 2, 1000)
    assert facts.outputs == Outputs(masks=False, maps="png16")
    assert (facts.model_fingerprint, facts.promises) == ("f" * 16, OLDER["promises"])
    assert facts.maker == MadeBy(ModelSpec("line"))


def test_what_is_missing_or_spoilt_has_its_default_and_the_rest_stays(tmp_path: Path) -> None:
    assert read_run(tmp_path) == RunFacts()
    assert said(tmp_path, []) == RunFacts()
    assert said(tmp_path, {"model": "line", "options": {"rule": {"areas": "everywhere"}}}) == RunFacts(model="line")
    assert said(tmp_path, {"options": {}}).options == DriveOptions()
    assert said(tmp_path, {"outputs": {"maps": "gif"}, "method": "X", "promises": 3}) == RunFacts(method="X")
    assert said(tmp_path, {"options": {"rule": {"threshold": 7}}, "model": "line"}) == RunFacts(model="line")


def test_the_command_says_all_that_decides_a_score() -> None:
    maker = MadeBy(ModelSpec("line", "april_gan", "vitl14", view=View(300, 0.5, True)), "s3://key:word@good", "folder")
    words = maker.words(DriveOptions("metal nut", class_from_folder=True))
    assert shlex.split(command_again([], "out", words)) == [
        *("ad-dinov3", "predict", "-o", "out", "--model", "line", "--method", "april_gan", "--weights", "vitl14"),
        *("--normals", "s3://good", "--compare", "folder", "--class-name", "metal nut", "--tile", "300"),
        *("--overlap", "0.5", "--keep-aspect", "--class-from-folder"),
    ]
    assert MadeBy().words(DriveOptions()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "mahalanobis", "--tile", "24"),
        ("--method", "dinov3_plain", "--keep-aspect", "--class-name", "tile", "--normals", "good"),
    ],
)
def test_the_very_model_of_a_run_is_opened_again_from_any_folder(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for name in ("photos/1.png", "good/1.png", "good/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(predict.app, ["photos", "-o", "out", "--offline", *options])
    assert result.exit_code == 0, result.output
    monkeypatch.chdir("/")

    folder, model = results_of(Console(), tmp_path / "out", None, "object", ModelSpec("", offline=True))
    run = read_run(folder)
    assert model.fingerprint_of(model.plain()) == run.model_fingerprint
    monkeypatch.chdir(tmp_path)  # where the images were named
    again = command_again(read_rows(folder), "out", run.maker.words(run.options or DriveOptions()))
    done = CliRunner().invoke(predict.app, [*shlex.split(again)[2:], "--offline"])
    assert "1 image had been done before" in done.output.replace("\n", " ")
