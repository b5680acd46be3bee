"""Comparison tokens of exported graphs: equal to numpy's, and enough to remember normal images without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_service import draw_parts, score_with
from PIL import Image

from ad_dinov3.errors import ConfigError
from ad_dinov3.export.build import ExportOptions, export_model
from ad_dinov3.export.tokens import ComparisonTokens
from ad_dinov3.infer.detector import Detector
from ad_dinov3.infer.opening import Abilities, ModelSpec, abilities_of, load
from ad_dinov3.infer.session import Session
from ad_dinov3.predict.results import read_rows
from ad_dinov3.references.tokens import comparison_tokens, seeded_projection
from ad_dinov3.serve.workbench.bench import Bench
from ad_dinov3.serve.workbench.model import BenchModel

pytestmark = pytest.mark.slow  # exports the embedded model


def picture(seed: int, defect: bool = False) -> np.ndarray:
    draw = np.random.default_rng(seed)
    image = np.tile(np.linspace(60, 180, 160)[None, :, None], (160, 1, 3)) + draw.normal(0, 4, (160, 160, 3))
    if defect:
        image[80:110, 20:50] = draw.uniform(0, 255, (30, 30, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("graph") / "onnx"
    detector = load(offline=True)
    assert isinstance(detector, Detector)
    parity = export_model(detector, "embedded", folder, ExportOptions("onnx", with_tokens=True))
    assert parity.largest_token_distance is not None
    assert parity.largest_token_distance < 1e-4
    return folder


@pytest.mark.parametrize("grid", [(12, 9), (41, 30), (81, 85)])
def test_tokens_of_the_graph_equal_those_of_numpy(grid: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    stages = [draw.normal(size=(2, *grid, width)).astype(np.float32) for width in (24, 150)]
    expected = comparison_tokens(stages, projection=seeded_projection(174))
    found = ComparisonTokens((24, 150), grid)([torch.from_numpy(stage) for stage in stages])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_an_exported_folder_remembers_as_the_model_does(exported: Path, tmp_path: Path) -> None:
    session, detector = load(exported), load(offline=True)
    assert isinstance(session, Session)
    normals = [picture(seed) for seed in range(5)]
    assert session.remember(normals) == detector.remember(normals)
    for image in (picture(9), picture(9, defect=True)):
        ours, theirs = session.predict(image), detector.predict(image)
        assert ours.score == pytest.approx(theirs.score, abs=2e-2)
        assert ours.is_anomalous == theirs.is_anomalous
    session.save_pretrained(tmp_path / "line")
    again = load(tmp_path / "line")
    assert again.predict(picture(9)).score == session.predict(picture(9)).score
    assert again.fingerprint == session.fingerprint != load(exported).fingerprint


def test_an_exported_folder_takes_no_other_states(exported: Path) -> None:
    session = load(exported)
    assert session.states is None
    with pytest.raises(ConfigError, match="export, whose prompts are baked"):
        session.with_states(["clean {}"], ["bent {}"])


def test_the_workbench_compares_patches_and_teaches_by_an_exported_folder(exported: Path, tmp_path: Path) -> None:
    spec = ModelSpec(str(exported))
    model = BenchModel(spec.model, spec.open, abilities=abilities_of(spec))
    assert model.abilities == Abilities()
    out = score_with(model, draw_parts(tmp_path / "parts"), tmp_path / "out")
    bench = Bench(out, "parts", model)
    rows = {row.image: row for row in read_rows(out)}
    good = ("good/0.png", "good/1.png")
    bench.use_as_good(good, True)
    deadline = time.monotonic() + 60
    while bench.work().words:
        assert time.monotonic() < deadline, bench.work()
        time.sleep(0.01)
    assert bench.work().trouble == ""
    session = load(exported)
    session.remember([rows[name].path for name in good], "part")
    for image in bench.images().images:
        assert image.score == pytest.approx(session.predict(rows[image.name].path, "part").score, abs=2e-3)
    found = bench.patch("crack/0.png", 0.75, 0.75)
    assert max(found.cosines) == pytest.approx(found.cosines[found.place[0] * found.grid[1] + found.place[1]])
    assert found.nearest is not None
    assert found.nearest.image in good
    assert load(out / "taught-1" / "model").normal_classes == ("part",)
    bench.close()


def test_files_that_a_session_remembers_are_seen(exported: Path, tmp_path: Path) -> None:
    session = load(exported)
    assert isinstance(session, Session)
    paths = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed)).save(path)
    before = len(session.seen_images)
    session.remember(paths)
    assert len(session.seen_images) == before + 2


def test_a_model_with_a_memory_is_exported_with_it_or_not_at_all(tmp_path: Path) -> None:
    detector = load(offline=True)
    assert isinstance(detector, Detector)
    detector.remember([picture(seed) for seed in range(3)])
    with pytest.raises(ConfigError, match="export it --with-tokens"):
        export_model(detector, "line", tmp_path / "no", ExportOptions("pt2"))
    export_model(detector, "line", tmp_path / "yes", ExportOptions("pt2", with_tokens=True))
    session, image = load(tmp_path / "yes"), picture(7, defect=True)
    assert session.predict(image).score == pytest.approx(detector.predict(image).score, abs=1e-3)
    assert session.promises == detector.promises


def test_a_graph_of_many_sizes_has_no_tokens(tmp_path: Path) -> None:
    detector = load(offline=True)
    assert isinstance(detector, Detector)
    with pytest.raises(ConfigError, match="at one size"):
        export_model(detector, "embedded", tmp_path / "free", ExportOptions("onnx", resizable=True, with_tokens=True))


_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them fails from here on
from typer.testing import CliRunner
from ad_dinov3.cli import predict
shown = CliRunner().invoke(predict.app, sys.argv[1:], catch_exceptions=False)
print(shown.output)
sys.exit(shown.exit_code)
"""


def test_parts_are_compared_with_good_images_where_torch_cannot_be_imported(exported: Path, tmp_path: Path) -> None:
    for name, seeds in (("good", range(5)), ("parts", range(20, 23))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(seed, defect=seed == 21)).save(tmp_path / name / f"{seed}.png")
    arguments = [str(tmp_path / "parts"), "-o", str(tmp_path / "out"), "--model", str(exported)]
    command = [sys.executable, "-c", _WITHOUT_TORCH, *arguments, "--normals", str(tmp_path / "good")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "with your 5 good images about 1 good part in 6 will be flagged" in " ".join(shown.stdout.split())
    rows = {row.image: row for row in read_rows(tmp_path / "out")}
    assert rows["21.png"].decision == "anomalous"
    assert rows["21.png"].p_value == pytest.approx(1 / 6, abs=1e-6)
    assert rows["21.png"].score == max(row.score or 0 for row in rows.values())
