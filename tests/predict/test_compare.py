"""A folder compared with itself, by the function and by the command, on images that are drawn here."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_detector import ToyDetector
from typer.testing import CliRunner

from ad_dinov3.cli import predict
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer import opening
from ad_dinov3.infer.compared import Answer
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.predict import compare
from ad_dinov3.predict.compare import Comparison, StreamScorer, compare_images
from ad_dinov3.predict.results import read_rows
from ad_dinov3.references.calibration import References
from ad_dinov3.references.tokens import unit


def draw(path: Path, seed: int, defect: bool = False) -> Path:
    chance = np.random.default_rng(seed)
    image = np.tile(np.linspace(60, 180, 160)[None, :, None], (160, 1, 3)) + chance.normal(0, 4, (160, 160, 3))
    if defect:
        image[80:110, 20:50] = chance.uniform(0, 255, (30, 30, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def model() -> Detector:
    found = load(offline=True)
    assert isinstance(found, Detector)
    return found


def compared(model: Detector, folder: Path, normals: Sequence[Path] = ()) -> Comparison:
    items = list(find_images([str(folder)]))
    given = {"object": normals} if normals else {}
    return compare_images(model, items, lambda item: "object", given, folder.parent / "scratch")


def scores(found: Comparison, paths: Sequence[Path]) -> list[float]:
    inputs = [found.scorer.prepare(np.asarray(Image.open(path))) for path in paths]
    return [float(found.scorer.score(one[None], ["object"]).scores[0]) for one in inputs]


def test_the_strange_image_stands_out_whatever_the_files_are_called(model: Detector, tmp_path: Path) -> None:
    paths = [draw(tmp_path / "a" / f"{seed}.png", seed, seed == 3) for seed in range(8)]
    renamed = [draw(tmp_path / "b" / f"{9 - seed}.png", seed, seed == 3) for seed in range(8)]
    first, second = compared(model, tmp_path / "a"), compared(model, tmp_path / "b")
    assert int(np.argmax(scores(first, paths))) == 3
    np.testing.assert_allclose(scores(first, paths), scores(second, renamed), atol=1e-6)
    assert first.fingerprint == second.fingerprint
    assert "no promise" in first.remarks[0]
    assert not list((tmp_path / "scratch").iterdir())


def test_normal_images_among_the_compared_give_a_promise_and_p_values(model: Detector, tmp_path: Path) -> None:
    paths = [draw(tmp_path / "a" / f"{seed}.png", seed, seed == 3) for seed in range(6)]
    normals = [draw(tmp_path / "good" / f"{seed}.png", 100 + seed) for seed in range(5)]
    found = compared(model, tmp_path / "a", normals)
    assert found.promises["object"].startswith("with your 5 good images about 1 good part in 6 will be flagged")
    raw = found.scorer.score(found.scorer.prepare(np.asarray(Image.open(paths[3])))[None], ["object"])
    assert raw.row(0).p_value == pytest.approx(1 / 6)
    assert raw.row(0).score > 0.5


def test_two_images_and_images_without_likeness_are_scored_on_their_own(
    model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        draw(tmp_path / "two" / f"{seed}.png", seed)
    assert "2 images are too few to be compared" in compared(model, tmp_path / "two").remarks[0]
    draw(tmp_path / "two" / "2.png", 2)
    monkeypatch.setattr(compare, "LARGEST_RATIO", 0.1)
    words = compared(model, tmp_path / "two").remarks[0]
    assert re.fullmatch(r"object: the images do not resemble .* (0\.\d\d) times as far as .*scored on its own", words)


def test_the_command_compares_a_folder_and_says_so(tmp_path: Path) -> None:
    for seed in range(6):
        draw(tmp_path / "in" / f"{seed}.png", seed, seed == 2)
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--compare", "folder", "--offline"]
    shown = CliRunner().invoke(predict.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "6 images compared with each other" in shown.output
    assert "the threshold is a robust guess, with no promise" in (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = {row["image"]: float(row["score"]) for row in csv.DictReader(file)}
    assert max(rows, key=lambda name: rows[name]) == "2.png"
    refused = CliRunner().invoke(predict.app, [*arguments, "--tile", "64"])
    assert "omit --tile" in str(refused.exception)
    for more in (["--engine", "ray"], ["--shard", "0/2"]):
        refused = CliRunner().invoke(predict.app, [*arguments, *more])
        assert "omit --engine and --shard, and give each machine" in str(refused.exception)


@pytest.mark.parametrize(("folders", "said"), [(("plate", "cookie"), True), (("good", "crack"), False)])
def test_sub_folders_that_may_be_products_are_spoken_of(folders: tuple[str, str], said: bool, tmp_path: Path) -> None:
    for seed in range(4):
        draw(tmp_path / "in" / folders[seed % 2] / f"{seed}.png", seed)
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--compare", "folder", "--offline"]
    for more, expected in (([], said), (["--class-from-folder"], False)):
        shown = " ".join(CliRunner().invoke(predict.app, [*arguments, *more]).output.split())
        assert ("2 sub-folders are compared as one class; if each is a product" in shown) is expected


@pytest.mark.parametrize("how", ["folder", "stream"])
def test_a_comparison_says_that_it_leaves_out_what_the_model_remembers(how: str, tmp_path: Path) -> None:
    for seed in range(4):
        draw(tmp_path / "in" / f"{seed}.png", seed)
    taught = load(offline=True)
    taught.remember(sorted((tmp_path / "in").glob("*.png"))[:2])
    taught.save_pretrained(tmp_path / "line")
    for model_name, said in ((str(tmp_path / "line"), True), ("embedded", False)):
        arguments = [str(tmp_path / "in"), "-o", str(tmp_path / f"{said}"), "--compare", how, "--model", model_name]
        shown = " ".join(CliRunner().invoke(predict.app, [*arguments, "--offline"]).output.split())
        assert ("take no part in this comparison" in shown) is said


def pixels(seed: int, defect: bool = False, product: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, 128)
    image = np.tile(ramp[None, :, None] if product == 0 else 120 + 60 * np.sin(ramp)[:, None, None], (1, 1, 3))
    image = np.broadcast_to(image, (128, 128, 3)) + chance.normal(0, 4, (128, 128, 3))
    if defect:
        image[60:90, 20:50] = chance.uniform(0, 255, (30, 30, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_stream_learns_finds_a_defect_and_follows_a_new_product(model: Detector) -> None:
    scorer = StreamScorer(model)

    def score(image: np.ndarray) -> float:
        return float(scorer.score(scorer.prepare(image)[None], ["object"]).scores[0])

    learning = [score(pixels(seed)) for seed in range(10)]
    alone = StreamScorer(model).score(model.prepare(pixels(0))[None], ["object"])
    assert learning[0] == pytest.approx(float(alone.scores[0]))
    quiet = [score(pixels(seed)) for seed in range(10, 32)]
    assert score(pixels(40, defect=True)) > max(quiet[-10:])
    assert score(pixels(41)) < 0.5
    changed = [score(pixels(seed, product=1)) for seed in range(50, 90)]
    assert changed[0] > max(quiet[-10:])
    assert float(np.median(changed[-8:])) < 0.5


class ToyComparable(ToyDetector):
    """The toy detector with a few numbers for tokens."""

    fingerprint, own_threshold, references = "toy", 0.3, References()

    def answer(self, batch: np.ndarray, class_names: Sequence[str]) -> Answer:
        cells = batch.reshape(len(batch), 3, 8, 8, 8, 8).mean(axis=(3, 5)).transpose(0, 2, 3, 1)
        return Answer(self.score(batch, class_names), unit(cells - 100))


def test_the_command_tells_of_a_new_product_in_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load", lambda *_, **__: ToyComparable())
    chance = np.random.default_rng(0)
    for number in range(80):
        colour = (180, 120, 60) if number < 50 else (60, 120, 180)
        image = np.array(colour) + chance.normal(0, 5, (64, 64, 3)) + chance.normal(0, 5, 3)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{number:02d}.png")
    plain = [str(tmp_path), "-o", str(tmp_path / "out"), "--no-overlays", "--no-masks", "--maps", "none"]
    shown = CliRunner().invoke(predict.app, [*plain, "--compare", "stream", "--drift"])
    assert shown.exit_code == 0, shown.output
    found = re.search(r"object: the images have changed, noticed at number (\d+)", " ".join(shown.output.split()))
    assert found is not None
    assert 50 < int(found[1]) <= 80
    assert "the next 20 by a fixed threshold" in (tmp_path / "out" / "report.html").read_text()
    refused = CliRunner().invoke(predict.app, [*plain, "--compare", "folder", "--drift"])
    assert "in the order in which they come" in str(refused.exception)


def test_the_command_warns_of_a_part_that_is_nearly_a_good_one(tmp_path: Path) -> None:
    for seed in range(3):
        draw(tmp_path / "good" / f"{seed}.png", seed)
    Image.open(tmp_path / "good" / "1.png").save(tmp_path / "part.bmp")
    arguments = [str(tmp_path / "part.bmp"), "-o", str(tmp_path / "out"), "--normals", str(tmp_path / "good")]
    shown = " ".join(CliRunner().invoke(predict.app, [*arguments, "--offline"]).output.split())
    assert "1 image is nearly a normal one (part.bmp is like" in shown
    assert "no promise holds for them" in shown


def test_each_camera_has_its_own_good_images_threshold_and_promise(tmp_path: Path) -> None:
    for camera, level, count in (("left", 0, 3), ("right", 1, 5)):
        for seed in range(count):
            path = tmp_path / "good" / camera / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(seed, product=level)).save(path)
        for seed in (30, 31):
            path = tmp_path / "parts" / camera / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(seed, defect=seed == 31, product=level)).save(path)
    arguments = [str(tmp_path / "parts"), "-o", str(tmp_path / "out"), "--normals", str(tmp_path / "good")]
    shown = CliRunner().invoke(predict.app, [*arguments, "--class-from-folder", "--offline"])
    words = " ".join(shown.output.split())
    assert "left: with your 3 good images about 1 good part in 4 will be flagged" in words
    assert "right: with your 5 good images about 1 good part in 6 will be flagged" in words
    rows = {row.image: row for row in read_rows(tmp_path / "out")}
    assert rows["left/31.png"].p_value == pytest.approx(1 / 4, abs=1e-6)
    assert rows["right/31.png"].p_value == pytest.approx(1 / 6, abs=1e-6)
    assert {name for name, row in rows.items() if row.decision == "anomalous"} >= {"left/31.png", "right/31.png"}
