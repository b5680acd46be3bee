"""Good images chosen in the workbench: what is scored again, what is kept, and what goes back to before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench_service import TeachableToy

from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.opening import Abilities
from ad_dinov3.predict.results import read_rows
from ad_dinov3.serve.normals import UnknownImageError
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel
from ad_dinov3.serve.workbench.store import Store

GOOD = ("good/0.png", "good/1.png")


@pytest.fixture
def toy() -> TeachableToy:
    return TeachableToy()


@pytest.fixture
def bench(scored: Path, toy: TeachableToy) -> Iterator[Bench]:
    made = Bench(scored, "parts", BenchModel("toy", lambda: toy))
    yield made
    toy.go_on.set()
    made.close()


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline, "nothing has come of it"
        time.sleep(0.01)


def rested(bench: Bench) -> None:
    until(lambda: not bench.work().words)


def teach(bench: Bench, *images: str) -> None:
    bench.use_as_good(images, True)
    rested(bench)
    assert bench.work().trouble == ""


def test_scores_are_those_of_a_model_that_remembers_the_good_images(bench: Bench, scored: Path) -> None:
    before = {image.name: image.score for image in bench.images().images}
    teach(bench, *GOOD)
    told = bench.images()
    witness = TeachableToy()
    rows = {row.image: row for row in read_rows(scored)}
    witness.remember([rows[name].path for name in GOOD])
    for image in told.images:
        raw = witness.score(witness.prepare(decode_image(Path(rows[image.name].path)))[None], ["part"])
        assert image.score == pytest.approx(float(raw.scores[0]), abs=1e-6)
        assert image.before == before[image.name]
    assert (told.threshold, told.threshold_before) == (0.5, bench.before.threshold)
    assert told.promises == {"part": witness.promises["part"]}
    taught = bench.state().taught
    assert taught is not None
    assert (taught.good, taught.same_model) == (2, True)


def test_the_results_before_stay_as_they_are_and_come_back(bench: Bench, scored: Path) -> None:
    files = {path: path.read_bytes() for path in scored.glob("*.*") if not path.name.startswith("workbench")}
    before = bench.images().images
    bench.store.set("threshold", 0.7)
    teach(bench, *GOOD)
    assert bench.threshold == 0.5
    scored_once = bench.images().scored
    bench.use_as_good(GOOD, False)
    assert bench.images().images == before
    assert bench.images().scored != scored_once
    assert bench.state().taught is None
    assert bench.threshold == bench.before.threshold
    assert list(scored.glob("taught-*")) == []
    assert {path: path.read_bytes() for path in files} == files


def test_the_command_shown_is_one_whose_model_knows_the_good_images(bench: Bench, scored: Path) -> None:
    teach(bench, *GOOD)
    model = scored / "taught-1" / "model"
    assert bench.images().command.endswith(f"-o {scored / 'taught-1'} --model {model}")
    assert (model / "references.safetensors").is_file()
    assert json.loads((scored / "taught-1" / "run.json").read_text())["images"] == 6


def test_the_last_choice_counts_and_what_was_being_scored_is_dropped(bench: Bench, toy: TeachableToy) -> None:
    toy.go_on.clear()
    bench.use_as_good(GOOD[:1], True)
    until(lambda: bench.work().words == "Scoring again" or bench.work().words.startswith("Looking"))
    assert bench.state().taught is None
    bench.use_as_good(GOOD[1:], True)
    toy.go_on.set()
    rested(bench)
    taught = bench.state().taught
    assert taught is not None
    assert taught.good == 2


def test_going_back_while_images_are_scored_leaves_nothing(bench: Bench, toy: TeachableToy, scored: Path) -> None:
    toy.go_on.clear()
    bench.use_as_good(GOOD, True)
    bench.use_as_good(GOOD, False)
    toy.go_on.set()
    bench.close()
    assert list(scored.glob("taught-*")) == []


def test_a_server_that_was_killed_meanwhile_goes_on(scored: Path) -> None:
    store = Store(scored)
    store.set_good(GOOD, True)
    store.close()
    bench = Bench(scored, "parts", BenchModel("toy", TeachableToy))
    rested(bench)
    assert bench.state().taught is not None
    bench.close()
    toy = TeachableToy()
    again = Bench(scored, "parts", BenchModel("toy", lambda: toy))
    assert again.state().taught is not None
    assert again.images().threshold_before is not None
    assert toy.batches == []  # nothing was scored a second time
    again.close()


def test_a_kill_while_the_model_was_saved_leaves_no_other_model_behind(bench: Bench, scored: Path) -> None:
    left = scored / ".taught.unfinished" / "model"
    left.mkdir(parents=True)
    (left / "half of another").write_text("model")
    teach(bench, *GOOD)
    kept = {path.name for path in (scored / "taught-1" / "model").iterdir()}
    assert "half of another" not in kept
    assert "references.safetensors" in kept


def test_another_server_of_the_same_folder_shows_the_same(bench: Bench, scored: Path) -> None:
    other = Bench(scored, "parts")
    teach(bench, *GOOD)
    assert other.state().taught == bench.state().taught
    assert other.images().images == bench.images().images
    other.close()


def test_good_images_choose_no_threshold(bench: Bench) -> None:
    teach(bench, *GOOD)
    suggestion = bench.state().suggestion
    assert suggestion is not None
    assert (suggestion.good, suggestion.defects) == (1, 3)


def test_each_class_needs_good_images_of_its_own(bench: Bench) -> None:
    rows = dict(bench.before.rows)
    rows["crack/0.png"] = replace(rows["crack/0.png"], class_name="nut")
    bench.before.rows = rows
    bench.use_as_good(GOOD, True)
    rested(bench)
    assert bench.work().trouble == "mark good images of nut, too: each class is compared with its own"
    assert bench.state().taught is None


def test_what_cannot_be_is_refused(bench: Bench, scored: Path) -> None:
    with pytest.raises(UnknownImageError, match=r"no\.png"):
        bench.use_as_good(["no.png"], True)
    plain = Bench(scored, "parts")
    with pytest.raises(ConfigError, match="without a model"):
        plain.use_as_good(GOOD, True)
    plain.close()


def test_a_model_without_tokens_takes_no_good_images(scored: Path) -> None:
    bench = Bench(scored, "parts", BenchModel("toy", TeachableToy, abilities=Abilities("toy has no tokens")))
    with pytest.raises(ConfigError, match="toy has no tokens"):
        bench.use_as_good(GOOD, True)
    assert bench.state().good == ()
    bench.close()


def test_a_good_image_whose_file_is_gone_is_named(bench: Bench, parts_folder: Path) -> None:
    (parts_folder / "good" / "1.png").unlink()
    bench.use_as_good(GOOD, True)
    rested(bench)
    assert "1.png" in bench.work().trouble
    assert bench.state().taught is None


def test_more_good_images_than_may_be_are_refused_in_words(scored: Path) -> None:
    bench = Bench(scored, "parts", BenchModel("toy", TeachableToy))
    bench.store.set_good([f"{number}.png" for number in range(201)], True)
    bench.use_as_good(["good/0.png"], True)
    rested(bench)
    assert "more than the 200" in bench.work().trouble
    bench.close()
