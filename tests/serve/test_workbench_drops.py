"""Images dropped onto the workbench: kept by safe names, scored as the others, and compared with the good ones."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from bench_service import THRESHOLD, TeachableToy, score_parts, workbench
from http_client import ask
from PIL import Image
from toy_detector import ToyDetector, draw_part

from ad_dinov3.data.streams import find_images
from ad_dinov3.errors import ConfigError, ImageError
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.results import read_rows
from ad_dinov3.predict.run_facts import read_run
from ad_dinov3.serve.limits import Limits
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.drops import keep
from ad_dinov3.serve.workbench.model import BenchModel

GOOD = ("good/0.png", "good/1.png")


@pytest.fixture
def bench(scored: Path) -> Iterator[Bench]:
    made = Bench(scored, "parts", BenchModel("toy", TeachableToy))
    yield made
    made.close()


@pytest.fixture
def part(tmp_path: Path) -> bytes:
    """A part of another size with a defect."""
    return draw_part(tmp_path / "more" / "new.png", (110, 80), blemish=True).read_bytes()


def rested(bench: Bench, happens: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 30
    while bench.work().words or not happens():
        assert time.monotonic() < deadline, bench.work()
        time.sleep(0.01)
    assert bench.work().trouble == ""


def test_a_dropped_image_joins_the_results_as_predict_would_score_it(bench: Bench, part: bytes, scored: Path) -> None:
    before, run = bench.images(), read_run(scored)
    assert bench.add([("new.png", part)]) == ["dropped/new.png"]
    rested(bench)
    after = bench.images()
    assert after.scored != before.scored
    assert {image.name for image in after.images} - {image.name for image in before.images} == {"dropped/new.png"}
    row = next(row for row in read_rows(scored) if row.image == "dropped/new.png")
    toy = ToyDetector()
    raw = toy.score(toy.prepare(np.asarray(Image.open(BytesIO(part)).convert("RGB")))[None], ["part"])
    assert row.score == pytest.approx(float(raw.scores[0]))
    assert (row.decision, row.threshold, row.class_name) == ("anomalous", THRESHOLD, "part")
    assert row.map is not None
    assert (scored / row.map).is_file()
    assert "dropped/new.png" in (scored / "results.csv").read_text()
    assert Path(row.path).read_bytes() == part
    assert read_run(scored) == run  # the next one finds the same model
    assert bench.results.thumbnail("crack/0.png", True).kind == "image/jpeg"  # whose place in the file has moved


def test_with_good_images_it_is_compared_and_the_others_are_not_scored_again(scored: Path, part: bytes) -> None:
    toy = TeachableToy()
    bench = Bench(scored, "parts", BenchModel("toy", lambda: toy))
    bench.use_as_good(GOOD, True)
    rested(bench)
    asked = sum(toy.batches)
    bench.add([("new.png", part)])
    rested(bench)
    found = {image.name: image for image in bench.images().images}["dropped/new.png"]
    assert found.before is not None
    assert found.score is not None
    assert found.score > found.before
    assert sum(toy.batches) - asked == 1 + len(GOOD) + 1  # alone; the good images again; compared
    bench.close()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\parts\\new.PNG", "new.png"),
        (".hidden.png", "hidden.png"),
        ('a<b>"c&.png', "a_b__c_.png"),
        ("no suffix", "no suffix.png"),
        ("x" * 300 + ".png", "x" * 100 + ".png"),
        ("..", "image.png"),
    ],
)
def test_names_lead_nowhere_else(name: str, kept: str, part: bytes, tmp_path: Path) -> None:
    home = tmp_path / "out"
    assert keep(home, [(name, part)]) == [f"dropped/{kept}"]
    assert [path.name for path in (home / "dropped").iterdir()] == [kept]


def test_one_name_for_two_images_replaces_nothing_and_one_image_is_kept_once(part: bytes, tmp_path: Path) -> None:
    other = draw_part(tmp_path / "other.png", (50, 50)).read_bytes()
    home = tmp_path / "out"
    names = [keep(home, [("new.png", content)])[0] for content in (part, other, part, other)]
    assert names == ["dropped/new.png", "dropped/new-2.png", "dropped/new.png", "dropped/new-2.png"]
    assert (home / "dropped" / "new.png").read_bytes() == part


def test_what_is_no_image_is_refused_and_nothing_is_kept(bench: Bench, part: bytes, scored: Path) -> None:
    with pytest.raises(ImageError, match=r"words\.png"):
        bench.add([("new.png", part), ("words.png", b"these are words")])
    assert not (scored / "dropped").exists()
    plain = Bench(scored, "parts")
    with pytest.raises(ConfigError, match="without a model"):
        plain.add([("new.png", part)])
    plain.close()


def test_images_that_were_compared_with_each_other_take_no_new_one(bench: Bench, part: bytes, scored: Path) -> None:
    facts = json.loads((scored / "run.json").read_text())
    facts["made_by"]["compare"] = "folder"
    (scored / "run.json").write_text(json.dumps(facts))
    bench.before.read()
    with pytest.raises(ConfigError, match="--compare folder; run predict again"):
        bench.add([("new.png", part)])
    assert not (scored / "dropped").exists()


def test_a_server_that_was_killed_before_it_scored_does_so_at_its_start(scored: Path, part: bytes) -> None:
    keep(scored, [("new.png", part)])
    bench = Bench(scored, "parts", BenchModel("toy", TeachableToy))
    rested(bench, lambda: any(image.name == "dropped/new.png" for image in bench.images().images))
    bench.close()


def test_a_run_of_predict_over_the_results_takes_dropped_images_and_no_outputs(scored: Path, part: bytes) -> None:
    keep(scored, [("new.png", part)])
    run = FolderRun(scored, "toy", "f" * 16, DriveOptions("part", DecisionRule(THRESHOLD), threads=1))
    summary = score_into_folder(find_images([str(scored)]), ToyDetector(), run)
    assert summary.run.scored == 1


def test_over_http_forms_come_in_within_the_limits(scored: Path, part: bytes) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="new.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with workbench(Bench(scored, "parts", BenchModel("toy", TeachableToy)), limits=Limits(upload_mb=1)) as address:
        answer = ask(urllib.request.Request(f"{address}/bench/drop", head + part + b"\r\n--x--\r\n", kind))
        assert json.loads(answer.body) == {"images": ["dropped/new.png"]}
        large = head + bytes(2**20) + b"\r\n--x--\r\n"
        assert ask(urllib.request.Request(f"{address}/bench/drop", large, kind)).status == 413
        elsewhere = {**kind, "Origin": "http://elsewhere.example"}
        assert ask(urllib.request.Request(f"{address}/bench/drop", head, elsewhere)).status == 403


def test_tables_that_the_folder_has_are_kept_up_to_date(parts_folder: Path, tmp_path: Path, part: bytes) -> None:
    out = score_parts(parts_folder, tmp_path / "tables")
    (out / "coco.json").write_text("{}")
    bench = Bench(out, "parts", BenchModel("toy", TeachableToy))
    bench.add([("new.png", part)])
    rested(bench)
    assert "dropped/new.png" in (out / "coco.json").read_text()
    bench.close()
