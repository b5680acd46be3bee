"""``ad-dinov3 datasets`` as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from official_trees import colondb, draw, mvtec_ad, visa
from PIL import Image
from typer.testing import CliRunner

from ad_dinov3.cli.datasets import app
from ad_dinov3.data.catalog import CATALOG, open_data
from ad_dinov3.data.verify import contact_sheet, count_classes, find_problems

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def test_list_names_every_set_with_its_licence() -> None:
    result = RUNNER.invoke(app, ["list"])
    assert result.exit_code == 0
    for name, data_set in CATALOG.items():
        assert name in result.stdout
        assert data_set.licence in result.stdout


def test_show_tells_where_to_get_a_set_and_its_words() -> None:
    result = RUNNER.invoke(app, ["show", "mvtec_ad"])
    for text in ("https://www.mvtec.com", "CC BY-NC-SA 4.0", "metal nut", "000_mask.png"):
        assert text in result.stdout


def test_verify_of_a_fitting_folder_succeeds_and_writes_the_picture(tmp_path: Path) -> None:
    mvtec_ad(tmp_path / "mine")
    sheet = tmp_path / "out" / "sheet.jpg"
    result = RUNNER.invoke(app, ["verify", str(tmp_path / "mine"), "--sheet", str(sheet)])
    assert result.exit_code == 0, result.stdout
    assert "16 images, every pair fits" in result.stdout
    assert Image.open(sheet).size[1] >= 2 * 160


def test_verify_reports_counts_that_differ_and_pairs_that_do_not_fit(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    Image.new("L", (5, 5)).save(tmp_path / "bottle" / "ground_truth" / "bent" / "001_mask.png")
    (tmp_path / "bottle" / "test" / "bent" / "010.png").write_bytes(b"")
    sheet = tmp_path / "sheet.jpg"
    result = RUNNER.invoke(app, ["verify", "mvtec_ad", str(tmp_path), "--sheet", str(sheet)])
    assert result.exit_code == 3
    assert "001_mask.png does not belong to" in result.stdout
    assert "the file is empty" in result.stdout
    assert "2 of 20" in result.stdout
    assert "0 of 32" in result.stdout  # zipper is not there at all


def test_names_with_brackets_are_printed_whole(tmp_path: Path) -> None:
    draw(tmp_path / "part[1]" / "test" / "bent" / "x[2].png", 0)
    (tmp_path / "part[1]" / "ground_truth").mkdir()
    result = RUNNER.invoke(app, ["verify", str(tmp_path), "--sheet", str(tmp_path / "sheet.jpg")])
    assert "x[2].png: no mask" in result.stdout


def test_locate_finds_what_is_there(tmp_path: Path) -> None:
    visa(tmp_path / "VisA")
    result = RUNNER.invoke(app, ["locate", "visa", "colondb", "--data-root", str(tmp_path)])
    assert str(tmp_path / "VisA") in result.stdout
    assert "not found" in result.stdout


def test_an_unknown_name_ends_with_code_2_and_the_known_names() -> None:
    command = [sys.executable, "-c", "from ad_dinov3.cli import main; main()", "datasets", "show", "nope"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "mvtec_ad" in result.stderr


def test_reading_data_takes_no_torch() -> None:
    code = (
        "import sys, ad_dinov3.data.catalog, ad_dinov3.data.streams, ad_dinov3.data.transforms, ad_dinov3.cli.datasets;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_counts_fit_where_the_catalog_does_not_know_them(tmp_path: Path) -> None:
    mvtec_ad(tmp_path)
    assert all(count.fits for count in count_classes(open_data(str(tmp_path))))
    assert not any(count.fits for count in count_classes(open_data(f"mvtec_ad={tmp_path}")))


def test_problems_are_in_the_order_of_the_samples_and_progress_is_told(tmp_path: Path) -> None:
    colondb(tmp_path)
    for name in ("10.png", "1.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    ticks: list[int] = []
    problems = find_problems(open_data(f"colondb={tmp_path}").listing.samples, lambda: ticks.append(1))
    assert ["1.png" in problems[0], "10.png" in problems[1], len(problems)] == [True, True, 2]
    assert len(ticks) == 3


def test_contact_sheet_outlines_the_mask_in_red(tmp_path: Path) -> None:
    truth = colondb(tmp_path)
    sheet = contact_sheet(open_data(f"colondb={tmp_path}")).astype(int)
    red = (np.abs(sheet - np.array([255, 40, 90])) == 0).all(axis=2)
    rows, columns = np.nonzero(red[:160, 170:330])
    mask = next(iter(truth.values()))
    scale = 160 / mask.shape[1]
    top = (160 - mask.shape[0] * scale) / 2
    assert abs((columns.min() + columns.max()) / 2 / scale - np.nonzero(mask)[1].mean()) < 1
    assert abs(((rows.min() + rows.max()) / 2 - top) / scale - np.nonzero(mask)[0].mean()) < 1
