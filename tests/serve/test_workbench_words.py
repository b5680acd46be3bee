"""Other words for good and bad in the workbench: tried on an image, used for all, kept with the model, taken back."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench_service import TeachableToy, score_with, worded_model, workbench
from http_client import Answer, ask

from ad_dinov3.config import States
from ad_dinov3.data.decode import decode_image
from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import Areas
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import load
from ad_dinov3.predict.results import read_rows
from ad_dinov3.serve.judge import BusyError
from ad_dinov3.serve.limits import Limits
from ad_dinov3.serve.normals import UnknownImageError
from ad_dinov3.serve.workbench import bench as bench_file
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel

KEY = "0123456789abcdef-key"
STATES = States(normal=("clean {}", "even {}"), abnormal=("{} with a white square", "scratched {}"))
NAME, GOOD = "crack/0.png", ("good/0.png", "good/1.png")


@pytest.fixture
def model(clip: str, tmp_path: Path) -> BenchModel:
    return worded_model(clip, tmp_path / "line")


@pytest.fixture
def out(model: BenchModel, parts_folder: Path) -> Path:
    return score_with(model, parts_folder, parts_folder.parent / "out")


@pytest.fixture
def bench(model: BenchModel, out: Path) -> Iterator[Bench]:
    made = Bench(out, "parts", model)
    yield made
    made.close()


def rested(bench: Bench) -> None:
    deadline = time.monotonic() + 60
    while bench.work().words:
        assert time.monotonic() < deadline, bench.work()
        time.sleep(0.01)
    assert bench.work().trouble == ""


def witness(model: BenchModel) -> Detector:
    """The same model in Python, with the words."""
    detector = load(model.name, offline=True)
    assert isinstance(detector, Detector)
    return detector.with_states(STATES.normal, STATES.abnormal)


def judged(detector: Detector, out: Path) -> dict[str, float]:
    """Image -> score."""
    return {row.image: detector.predict(row.path, "part").score for row in read_rows(out)}


def scores(bench: Bench) -> dict[str, float | None]:
    return {image.name: image.score for image in bench.images().images}


def test_the_model_s_own_states_are_told_and_nothing_of_it_changes_by_a_trial(bench: Bench, model: BenchModel) -> None:
    own, before = bench.own_states(), scores(bench)
    assert own is not None
    assert "flawless {}" in own.normal
    tried = bench.try_states(NAME, STATES)
    row = bench.before.row(NAME)
    expected = witness(model).predict(row.path, "part")
    assert tried.score == pytest.approx(expected.score, abs=1e-6)
    np.testing.assert_allclose(tried.map, expected.anomaly_map, atol=1e-6)
    assert tried.score != pytest.approx(before[NAME], abs=1e-6)
    assert (scores(bench), bench.state().states) == (before, None)
    assert bench.try_states(NAME, own).score == pytest.approx(before[NAME], abs=1e-5)


def test_a_trial_looks_where_images_are_looked_at(bench: Bench) -> None:
    whole = bench.try_states(NAME, STATES)
    row, column = np.unravel_index(whole.map.argmax(), whole.map.shape)
    height, width = whole.map.shape
    peak = (column + 0.5) / width, (row + 0.5) / height
    around = tuple((min(max(peak[0] + x, 0), 1), min(max(peak[1] + y, 0), 1)) for x, y in ((-1, -1), (1, -1), (0, 1)))
    bench.set_areas(Areas(ignore=(around,)))
    assert bench.try_states(NAME, STATES).score < whole.score
    rested(bench)


def test_used_for_all_the_scores_are_the_worded_model_s_and_the_saved_model_keeps_the_words(
    bench: Bench, model: BenchModel, out: Path
) -> None:
    before = scores(bench)
    bench.use_states(STATES)
    rested(bench)
    assert scores(bench) == pytest.approx(judged(witness(model), out), abs=1e-6)
    told = bench.state()
    assert told.taught is not None
    assert (told.taught.good, told.taught.words, told.taught.same_model) == (0, True, True)
    kept = load(out / "taught-1" / "model", offline=True)
    assert isinstance(kept, Detector)
    assert kept.states == STATES
    assert f"--model {out / 'taught-1' / 'model'}" in bench.images().command
    bench.use_states(None)
    rested(bench)
    assert scores(bench) == before
    assert (bench.state().taught, list(out.glob("taught-*"))) == (None, [])


def test_words_and_good_images_go_together_and_one_can_be_taken_back_alone(
    bench: Bench, model: BenchModel, out: Path
) -> None:
    bench.use_states(STATES)
    bench.use_as_good(GOOD, True)
    rested(bench)
    both = witness(model)
    both.remember([bench.before.row(name).path for name in GOOD], "part")
    assert scores(bench) == pytest.approx(judged(both, out), abs=1e-6)
    assert bench.try_states(NAME, STATES).score == pytest.approx(scores(bench)[NAME], abs=1e-6)
    bench.use_as_good(GOOD, False)
    rested(bench)
    assert scores(bench) == pytest.approx(judged(witness(model), out), abs=1e-6)


def test_a_server_that_was_killed_meanwhile_goes_on_and_an_earlier_version_s_choice_is_known(
    bench: Bench, model: BenchModel, out: Path
) -> None:
    bench.store.set("states", STATES.model_dump())
    bench.close()
    again = Bench(out, "parts", model)
    rested(again)
    assert again.state().taught is not None
    kept = again.store.setting("taught", None)
    assert isinstance(kept, dict)
    again.store.set("states", None)
    again.store.set_good(GOOD, True)
    again.store.set("taught", {name: kept[name] for name in ("folder", "same_model")} | {"good": GOOD})
    assert again.state().taught.words is False  # type: ignore[union-attr]
    again.close()


def test_words_can_be_taken_back_where_another_model_knows_none(bench: Bench, out: Path) -> None:
    bench.use_states(STATES)
    rested(bench)
    bench.close()
    other = Bench(out, "parts", BenchModel("toy", TeachableToy))
    assert other.state().states is not None
    other.use_states(None)
    rested(other)
    assert (other.state().states, other.state().taught) == (None, None)
    other.close()


def test_one_trial_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_between(*_: object) -> None:
        with pytest.raises(BusyError):
            bench.try_states(NAME, STATES)
        raise ConfigError("enough")

    with monkeypatch.context() as within:
        within.setattr(bench_file, "try_on", in_between)
        with pytest.raises(ConfigError, match="enough"):
            bench.try_states(NAME, STATES)
    bench.try_states(NAME, STATES)


def test_a_model_without_such_prompts_refuses_them(scored: Path) -> None:
    for model in (None, BenchModel("toy", TeachableToy)):
        bench = Bench(scored, "parts", model)
        assert bench.own_states() is None
        with pytest.raises(ConfigError, match="no model here whose prompts name states"):
            bench.use_states(STATES)
        with pytest.raises(ConfigError, match="no model here whose prompts name states"):
            bench.try_states(NAME, STATES)
        bench.close()


def test_an_unknown_image_is_refused(bench: Bench) -> None:
    with pytest.raises(UnknownImageError):
        bench.try_states("no.png", STATES)


def post(address: str, path: str, body: object, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json", **headers}
    return ask(urllib.request.Request(f"{address}/bench/{path}", json.dumps(body).encode(), kind))


def test_over_http_the_map_and_the_score_come_and_limits_hold(bench: Bench) -> None:
    states = STATES.model_dump()
    with workbench(bench, limits=Limits(upload_mb=1)) as address:
        answer = post(address, "try", {"image": NAME, "states": states})
        height, width = np.frombuffer(answer.body, "<u4", 2)
        assert (height, width) == decode_image(Path(bench.before.row(NAME).path)).shape[:2]
        expected = bench.try_states(NAME, STATES)
        assert float(answer.headers["X-Score"]) == expected.score
        levels = np.frombuffer(answer.body, "<u2", offset=8).reshape(height, width)
        np.testing.assert_allclose(levels / 65535, expected.map, atol=1e-5)
        for path, extra in (("try", {"image": NAME}), ("words", {})):
            for wrong in (
                {**states, "normal": ["clean {}"] * 101},
                {**states, "normal": ["{}" + "x" * 199]},
                {**states, "normal": []},
                {**states, "abnormal": ["scratched"]},
                {**states, "templates": ["{}"]},
            ):
                refused = post(address, path, {**extra, "states": wrong})
                assert refused.status == 422, wrong
            assert post(address, path, {**extra, "states": states}, Origin="http://elsewhere.example").status == 403
            assert post(address, path, {**extra, "states": {**states, "normal": ["{}" * 2**20]}}).status == 413
        assert "exactly one {}" in post(address, "words", {"states": {**states, "normal": ["bent"]}}).body.decode()
        assert post(address, "try", {"image": "no.png", "states": states}).status == 404
        assert bench.state().states is None


def test_with_keys_nobody_else_asks_or_changes(bench: Bench) -> None:
    with workbench(bench, (KEY,)) as address:
        for path in ("try", "words"):
            assert post(address, path, {"image": NAME, "states": STATES.model_dump()}).status == 401
        assert ask(urllib.request.Request(f"{address}/bench/words")).status == 401
        own = ask(urllib.request.Request(f"{address}/bench/words", headers={"Authorization": f"Bearer {KEY}"}))
        assert "flawless {}" in json.loads(own.body)["normal"]
