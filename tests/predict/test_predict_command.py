from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console
from toy_detector import ToyDetector, draw_part
from typer.testing import CliRunner

from ad_dinov3.cli import merge, predict
from ad_dinov3.cli.demo import verdict_on
from ad_dinov3.cli.run_summary import print_summary
from ad_dinov3.errors import ConfigError
from ad_dinov3.predict.drive import DriveOptions, RunSummary
from ad_dinov3.predict.folder import FolderRun, FolderSummary
from ad_dinov3.predict.results import read_rows
from ad_dinov3.types import Sample


@pytest.fixture(autouse=True)
def toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands load the toy detector, whatever model they name."""

    def load(
        model: str = "embedded",
        *,
        method: str | None = None,
        weights: str | None = None,
        device: str = "cpu",
        offline: bool = False,
    ) -> ToyDetector:
        detector = ToyDetector()
        detector.config = SimpleNamespace(threshold=0.3)  # type: ignore[attr-defined]
        detector.fingerprint = model  # type: ignore[attr-defined]
        return detector

    monkeypatch.setattr("ad_dinov3.infer.opening.load", load)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    draw_part(root / "nut" / "1.png", blemish=True)
    draw_part(root / "tile" / "2.png")
    return root


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(predict.app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_predict_writes_everything_and_says_what_it_found(parts: Path, tmp_path: Path) -> None:
    code, text = run(str(parts), "-o", str(tmp_path / "out"), "--coco", "--profile")
    assert code == 0
    assert "nut/1.png" in text
    assert "report.html" in text
    assert "wait for images" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"coco.json", "results.csv", "report.html"}


def test_predict_exits_with_3_and_the_reason_when_an_image_is_broken(parts: Path, tmp_path: Path) -> None:
    (parts / "bad[red].png").write_bytes(b"")
    code, text = run(str(parts), "-o", str(tmp_path / "out"))
    assert code == 3
    assert "bad[red].png" in text
    assert "empty" in text
    assert run(str(parts), "-o", str(tmp_path / "out"))[0] == 3


def test_predict_counts_right_and_wrong_decisions_where_folder_names_tell(parts: Path, tmp_path: Path) -> None:
    assert "by folder names" not in run(str(parts), "-o", str(tmp_path / "out"))[1]
    lab = tmp_path / "lab"
    for number, (label, blemish) in enumerate((("crack", True), ("crack", False), ("good", False), ("good", True))):
        draw_part(lab / label / f"{number}.png", blemish=blemish)
    draw_part(lab / "good" / "9.png")
    for _ in range(2):  # a run that skips everything says it too
        text = " ".join(run(str(lab), "-o", str(tmp_path / "counted"))[1].split())
        assert "1 of 2 anomalous images were called anomalous (TP 1, FN 1)" in text
        assert "1 of 3 normal ones (FP 1, TN 2)" in text
        report = (tmp_path / "counted" / "report.html").read_text()
        assert "By folder names" in report
        assert "TP 1, FN 1" in report


def test_predict_says_what_to_do_when_it_calls_most_of_a_folder_anomalous(tmp_path: Path) -> None:
    for number in range(10):
        draw_part(tmp_path / "parts" / f"{number}.png", blemish=number < 6)
    hint = "--normals GOOD"
    assert hint in run(str(tmp_path / "parts"), "-o", str(tmp_path / "out"))[1]
    (tmp_path / "parts" / "0.png").unlink()  # of nine, more than half are as many
    assert hint not in run(str(tmp_path / "parts"), "-o", str(tmp_path / "few"))[1]


def said_of(done: RunSummary, run_: FolderRun) -> str:
    console = Console(file=io.StringIO(), width=300)
    print_summary(console, FolderSummary(done, 0, 0), run_, ["parts"])
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_summary_says_when_a_promise_may_be_void_and_when_a_run_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    compared = FolderRun(tmp_path, "embedded", "", DriveOptions(), promises={"object": "about 1 good part in 11"})
    hint, stopped = "if that is wrong, they differ from the good images", "goes on where it stopped"
    most = said_of(RunSummary(9, 1, (), 1.0, True, {}), compared)
    few = said_of(RunSummary(1, 9, (), 1.0, False, {}), compared)
    assert hint in most
    assert stopped in most
    assert hint not in few
    assert stopped not in few


def test_predict_refuses_an_output_folder_that_holds_all_images(parts: Path) -> None:
    for out in (parts, parts.parent):
        before = sorted(parts.parent.rglob("*"))
        with pytest.raises(ConfigError, match="all images lie in --out"):
            run(str(parts), "-o", str(out))
        assert sorted(parts.parent.rglob("*")) == before
    assert run(str(parts), str(parts / "nut"), "-o", str(parts / "nut"))[0] == 0  # some lie elsewhere


def test_predict_takes_a_list_on_stdin(parts: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(predict.app, ["-", "-o", str(tmp_path / "out")], input=f"{parts / 'nut' / '1.png'}\n")
    assert result.exit_code == 0
    assert [row.image for row in read_rows(tmp_path / "out")] == ["1.png"]


def test_predict_can_take_the_class_from_the_folder(parts: Path, tmp_path: Path) -> None:
    run(str(parts), "-o", str(tmp_path / "out"), "--class-from-folder", "--maps", "none", "--no-masks", "--no-overlays")
    assert [row.class_name for row in read_rows(tmp_path / "out")] == ["nut", "tile"]
    assert not (tmp_path / "out" / "maps").exists()


def test_predict_refuses_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="no images"):
        run(str(tmp_path / "none"), "-o", str(tmp_path / "out"))


def test_a_run_that_finds_everything_done_says_what_was_found_then(parts: Path, tmp_path: Path) -> None:
    run(str(parts), "-o", str(tmp_path / "out"))
    code, text = run(str(parts), "-o", str(tmp_path / "out"))
    assert code == 0
    assert "2 images had been done before with these settings" in text
    assert [line.split() for line in text.splitlines() if line.rstrip().endswith(("anomalous", "normal"))] == [
        ["1", "anomalous"],
        ["1", "normal"],
    ]


def test_an_unknown_method_is_refused_before_a_model_is_loaded(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ad_dinov3.infer.opening.load", None)
    with pytest.raises(ConfigError, match="no method 'anomolyclip'"):
        run(str(parts), "-o", str(tmp_path / "out"), "--method", "anomolyclip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["no such folder"], "no such file or folder"), (["PARTS", "--normals", "nowhere"], "nowhere: no such folder")],
)
def test_what_is_not_there_is_refused_before_a_model_is_loaded(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr("ad_dinov3.infer.opening.load", None)
    named = [str(parts) if word == "PARTS" else word for word in arguments]
    with pytest.raises(ConfigError, match=words):
        run(*named, "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--threshold", "50"], ["--maps", "jpg"], ["--batch-size", "0"], ["--colour"]])
def test_predict_exits_with_2_on_wrong_usage(parts: Path, tmp_path: Path, wrong: list[str]) -> None:
    assert run(str(parts), "-o", str(tmp_path / "out"), *wrong)[0] == 2
    assert not (tmp_path / "out").exists()


@pytest.fixture
def listening() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a shell's background jobs begin without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_the_first_interrupt_asks_to_stop_and_the_second_one_stops() -> None:
    before = signal.getsignal(signal.SIGINT)
    stopped = Event()
    with predict.stop_on_interrupt(Console(file=io.StringIO()), stopped):
        assert not stopped.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def _case(folder: Path, marked: tuple[slice, slice], true: tuple[slice, slice] | None) -> tuple[Path, Sample]:
    """A run over one 60 x 60 image with a marked square, and the sample that it was."""
    image = draw_part(folder / "in" / "a.png", (60, 60))
    mask = np.zeros((60, 60), np.uint8)
    mask[marked] = 255
    out = folder / "out"
    for kind in ("masks", "maps"):
        (out / kind).mkdir(parents=True)
    Image.fromarray(mask).save(out / "masks" / "a.png.png")
    tifffile.imwrite(out / "maps" / "a.png.tiff", mask.astype(np.float32) / 255)
    if true is None:
        return out, Sample(image, None, "part", False)
    truth = np.zeros((60, 60), np.uint8)
    truth[true] = 255
    Image.fromarray(truth).save(folder / "truth.png")
    return out, Sample(image, folder / "truth.png", "part", True, "dent")


HERE, THERE = (slice(0, 10), slice(0, 10)), (slice(40, 60), slice(40, 60))


@pytest.mark.parametrize(
    ("marked", "true", "is_right", "words"),
    [
        (HERE, (slice(0, 10), slice(0, 20)), True, "50% of it marked, 100% of the marks on it"),
        (HERE, THERE, False, "elsewhere"),
        (HERE, None, False, "false alarm"),
    ],
)
def test_compare_says_how_much_of_a_defect_was_marked(
    tmp_path: Path,
    marked: tuple[slice, slice],
    true: tuple[slice, slice] | None,
    is_right: bool,
    words: str,
) -> None:
    from ad_dinov3.predict.results import Row

    out, sample = _case(tmp_path, marked, true)
    row = Row(
        image="a.png",
        path="a.png",
        decision="anomalous",
        score=0.9,
        threshold=0.5,
        mask="masks/a.png.png",
        map="maps/a.png.tiff",
    )
    verdict = verdict_on(out, row, sample)
    assert verdict.is_right == is_right
    assert words in verdict.words


def test_rows_on_disk_are_plain_json(parts: Path, tmp_path: Path) -> None:
    run(str(parts), "-o", str(tmp_path / "out"), "--threshold", "0.25")
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(row["image"], row["decision"], row["threshold"]) for row in rows] == [
        ("nut/1.png", "anomalous", 0.25),
        ("tile/2.png", "normal", 0.25),
    ]


def test_shards_are_predicted_apart_and_merged(parts: Path, tmp_path: Path) -> None:
    draw_part(parts / "nut" / "3.png")
    out = str(tmp_path / "out")
    for part in ("0/2", "1/2"):
        assert run(str(parts), "-o", out, "--shard", part)[0] == 0
    merged = CliRunner().invoke(merge.app, [out, "--coco"])
    assert merged.exit_code == 0, merged.output
    assert "1 anomalous, 2 normal" in merged.output
    assert [row.image for row in read_rows(tmp_path / "out")] == ["nut/1.png", "nut/3.png", "tile/2.png"]
    assert run(str(parts), "-o", out, "--shard", "0/9999")[0] == 0  # a shard may be empty
