"""What the workbench answers, over a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from bench_service import THRESHOLD, score_parts, workbench
from http_client import Answer, ask
from PIL import Image

from ad_dinov3.errors import ConfigError
from ad_dinov3.infer.areas import Areas, read_areas
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import read_rows
from ad_dinov3.serve.limits import Limits
from ad_dinov3.serve.workbench.bench import Bench

KEY = "0123456789abcdef-key"


@pytest.fixture
def address(scored: Path) -> Iterator[str]:
    with workbench(Bench(scored, "parts")) as running:
        yield running


def get(address: str, path: str, **headers: str) -> Answer:
    return ask(urllib.request.Request(f"{address}/{path}", headers=headers))


def post(address: str, path: str, body: object, **headers: str) -> Answer:
    content = json.dumps(body).encode()
    return ask(urllib.request.Request(f"{address}/{path}", content, {"Content-Type": "application/json", **headers}))


def read(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_images_come_worst_first_with_what_their_folders_say(address: str, scored: Path) -> None:
    answer = read(get(address, "bench/images"))
    scores = [image["score"] for image in answer["images"]]
    assert scores == sorted(scores, reverse=True)
    assert {image["name"]: image["label"] for image in answer["images"]} == {
        **{f"crack/{number}.png": "ng" for number in range(3)},
        **{f"good/{number}.png": "ok" for number in range(3)},
    }
    assert answer["threshold"] == THRESHOLD
    assert answer["command"].startswith("ad-dinov3 predict ")
    assert answer["command"].endswith(f"-o {scored} --model toy --class-name part")


def test_the_map_is_the_one_that_the_run_wrote(address: str, scored: Path) -> None:
    row = next(row for row in read_rows(scored) if row.image == "crack/1.png")
    assert row.map is not None
    content = get(address, f"bench/map?image={quote('crack/1.png')}").body
    height, width = np.frombuffer(content, "<u4", 2)
    levels = np.frombuffer(content, "<u2", offset=8).reshape(height, width)
    np.testing.assert_allclose(levels / 65535, read_map(scored / row.map), atol=1e-5)


def test_a_folder_of_an_older_version_opens_and_decides_as_its_run_did(scored: Path) -> None:
    rule = {"threshold": THRESHOLD, "min_area_px": 7, "regions_on_normal": False}
    older = {"format_version": 1, "model": "line", "options": {"class_name": "part", "rule": rule}}
    (scored / "run.json").write_text(json.dumps(older))
    bench = Bench(scored, "parts")
    told = bench.images()
    assert {image.min_area_px for image in told.images} == {7}
    assert (told.threshold, bench.areas, told.promises) == (THRESHOLD, Areas(), {})
    assert told.command.endswith("--model line --class-name part")
    bench.close()
    (scored / "run.json").unlink()  # the run was interrupted
    bench = Bench(scored, "parts")
    assert bench.images().threshold == THRESHOLD
    assert bench.before.options.rule.threshold == THRESHOLD
    bench.close()


def test_without_map_files_the_report_s_small_map_stands_in(parts_folder: Path, tmp_path: Path) -> None:
    bare = score_parts(parts_folder, tmp_path / "bare", Outputs(overlays=False, masks=False, maps="none"))
    whole = score_parts(parts_folder, tmp_path / "whole")
    one, other = (Bench(folder, "parts").results.map("crack/0.png") for folder in (bare, whole))
    np.testing.assert_allclose(one, other, atol=1 / 255)


def test_a_photograph_comes_as_it_is_or_as_a_browser_takes_it(address: str, parts_folder: Path, tmp_path: Path) -> None:
    answer = get(address, "bench/photo?image=crack/0.png")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.body == (parts_folder / "crack" / "0.png").read_bytes()
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.linspace(0, 60000, 64 * 64).astype(np.uint16).reshape(64, 64)).save(deep / "deep.tiff")
    shown = Bench(score_parts(deep, tmp_path / "deep-out"), "deep").results.photo("deep.tiff")
    assert shown.kind == "image/jpeg"


def test_what_is_not_in_the_folder_is_not_shown(address: str) -> None:
    for path in ("photo", "map", "thumbnail"):
        answer = get(address, f"bench/{path}?image={quote('../../../../etc/passwd')}")
        assert answer.status == 404
        assert "there is no image" in json.loads(answer.body)["detail"]


def test_a_photograph_that_is_gone_is_said_so(address: str, parts_folder: Path) -> None:
    (parts_folder / "crack" / "0.png").unlink()
    answer = get(address, "bench/photo?image=crack/0.png")
    assert answer.status == 422
    assert "crack/0.png" in json.loads(answer.body)["detail"]


def test_reviews_change_what_is_suggested_and_can_be_taken_back(address: str) -> None:
    first = read(get(address, "bench/state"))
    assert first["suggestion"]["defects"] == 3
    review = {"id": "review-0001", "image": "crack/0.png", "verdict": "ok"}
    said = read(post(address, "bench/review", review))
    assert said["verdicts"] == {"crack/0.png": "ok"}
    assert (said["suggestion"]["defects"], said["suggestion"]["good"]) == (2, 4)
    skipped = read(post(address, "bench/review", {**review, "id": "review-0002", "verdict": "skip"}))
    assert (skipped["suggestion"]["defects"], skipped["suggestion"]["good"]) == (2, 3)
    back = read(post(address, "bench/undo", {"id": "review-0002"}))
    assert back["verdicts"] == {"crack/0.png": "ok"}
    assert read(get(address, f"bench/state?since={back['revision']}&scored={back['scored']}")) == {
        "revision": back["revision"],
        "work": {"words": "", "done": 0, "total": 0, "trouble": ""},
    }


def test_a_threshold_is_kept_for_the_next_start(scored: Path) -> None:
    with workbench(Bench(scored, "parts")) as address:
        read(post(address, "bench/threshold", {"threshold": 0.125}))
    assert Bench(scored, "parts").threshold == 0.125


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("review", {"id": "review-0001", "image": "crack/0.png", "verdict": "perhaps"}),
        ("review", {"id": "x", "image": "crack/0.png", "verdict": "ok"}),
        ("review", {"id": "review-0001", "image": "crack/0.png", "verdict": "ok", "more": 1}),
        ("threshold", {"threshold": 1.5}),
        ("undo", {}),
    ],
)
def test_a_change_that_cannot_be_is_refused(address: str, path: str, body: object) -> None:
    assert post(address, f"bench/{path}", body).status == 422


def test_another_page_cannot_change_anything(address: str) -> None:
    review = {"id": "review-0001", "image": "crack/0.png", "verdict": "ok"}
    assert post(address, "bench/review", review, Origin="http://elsewhere.example").status == 403
    assert post(address, "bench/review", review, Host="elsewhere.example").status == 400
    assert read(post(address, "bench/review", review, Origin=address))["verdicts"] == {"crack/0.png": "ok"}


def test_the_page_needs_nothing_from_elsewhere_and_says_what_browsers_must_not_do(address: str) -> None:
    answer = get(address, "")
    page = answer.body.decode()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_with_keys_images_and_changes_need_one_and_the_page_shows_no_name(scored: Path) -> None:
    with workbench(Bench(scored, "secret product"), keys=(KEY,)) as address:
        assert "secret product" not in get(address, "").body.decode()
        for path in ("bench/images", "bench/state", "bench/photo?image=crack/0.png", "bench/map?image=crack/0.png"):
            assert get(address, path).status == 401
            assert get(address, path, Authorization=f"Bearer {KEY}").status == 200
        assert post(address, "bench/threshold", {"threshold": 0.5}).status == 401


def test_limits_of_the_service_hold(scored: Path) -> None:
    with workbench(Bench(scored, "parts"), limits=Limits(upload_mb=1)) as address:
        assert post(address, "bench/review", {"id": "x" * 2_000_000}).status == 413


def test_a_folder_without_results_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="score images first"):
        Bench(tmp_path, "empty")


def test_results_are_shown_without_torch(scored: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ad_dinov3.cli.workbench import app\n"
        "from ad_dinov3.serve.workbench.bench import Bench\n"
        "from ad_dinov3.serve.workbench.app import create_workbench\n"
        "from ad_dinov3.serve.limits import Limits\n"
        f"bench = Bench(Path({str(scored)!r}), 'parts'); create_workbench(bench, Limits())\n"
        "bench.images(); bench.results.map('crack/0.png')\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def judged(address: str, scored: int) -> Any:
    """The images once they are of another scoring."""
    deadline = time.monotonic() + 30
    while (answer := read(get(address, "bench/images")))["scored"] == scored:
        assert time.monotonic() < deadline, "the scores stay as they are"
        time.sleep(0.01)
    return answer


def test_areas_change_scores_in_the_background_and_are_left_for_predict(scored: Path) -> None:
    lower_right = [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]
    with workbench(Bench(scored, "parts")) as address:
        before = read(get(address, "bench/images"))
        state = read(post(address, "bench/areas", {"areas": {"inspect": [], "ignore": [lower_right]}}))
        assert state["areas"]["ignore"] == [lower_right]
        after = judged(address, before["scored"])
        assert max(image["score"] for image in after["images"]) < THRESHOLD < before["images"][0]["score"]
        assert read_areas(scored) == Areas(ignore=(tuple(map(tuple, lower_right)),))
        back = read(post(address, "bench/areas", {"areas": {"inspect": [], "ignore": []}}))
        assert back["areas"] == {"inspect": [], "ignore": []}
        assert judged(address, after["scored"])["images"] == before["images"]
        assert post(address, "bench/areas", {"areas": {"ignore": [[[0, 0], [2, 0], [0, 1]]]}}).status == 422
