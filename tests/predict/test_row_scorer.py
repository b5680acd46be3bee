from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from toy_detector import ToyDetector, draw_part

import ad_dinov3
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.decide import DecisionRule
from ad_dinov3.infer.image_files import read_map
from ad_dinov3.infer.opening import CarriedModel, ModelSpec, load
from ad_dinov3.infer.scorer import RawScores
from ad_dinov3.predict.drive import DriveOptions
from ad_dinov3.predict.folder import FolderRun, score_into_folder
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import Row, read_rows
from ad_dinov3.predict.row_scorer import RowScorer


def plain(row: Row) -> dict[str, object]:
    """A row without its time, and its numbers to four digits: processes with other threads add up in another order."""
    score = None if row.score is None else round(row.score, 4)
    regions = [(region.box, region.area_px, round(region.peak, 4)) for region in row.regions]
    return {**asdict(row), "seconds": 0, "score": score, "regions": regions}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyDetector:
    detector = ToyDetector()
    detector.config = SimpleNamespace(threshold=0.3)  # type: ignore[attr-defined]
    detector.fingerprint = "f1"  # type: ignore[attr-defined]
    monkeypatch.setattr("ad_dinov3.infer.opening.load", lambda *names, **choices: detector)
    return detector


def test_row_scorer_in_spawned_processes_gives_the_rows_and_files_of_a_plain_run(tmp_path: Path) -> None:
    parts, out, twin = tmp_path / "parts", tmp_path / "out", tmp_path / "twin"
    for index in range(6):
        draw_part(parts / f"{index}.png", blemish=index % 2 == 0)
    (parts / "6.png").write_bytes(b"no image")
    detector = load()
    options = DriveOptions(rule=DecisionRule(detector.config.threshold), threads=1)
    score_into_folder(find_images([str(parts)]), detector, FolderRun(out, "embedded", detector.fingerprint, options))
    scorer = RowScorer(ModelSpec(), options, twin, Outputs())
    assert len(pickle.dumps(scorer)) < 2000
    items = list(find_images([str(parts)]))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        halves = list(pool.map(scorer.rows, [items[:3], items[3:]]))
    assert [plain(row) for half in halves for row in half] == [plain(row) for row in read_rows(out)]
    for row in read_rows(out):
        for name in (row.overlay, row.map, row.mask):
            assert name is None or (twin / name).is_file()
        if row.map is not None:
            np.testing.assert_allclose(read_map(twin / row.map), read_map(out / row.map), atol=1e-4)


def test_detector_pickles_to_the_same_maps(tmp_path: Path) -> None:
    part = draw_part(tmp_path / "part.png", blemish=True)
    detector = ad_dinov3.load()
    again = pickle.loads(pickle.dumps(detector))
    assert again.fingerprint == detector.fingerprint
    np.testing.assert_array_equal(again.predict(part).anomaly_map, detector.predict(part).anomaly_map)


def _grainy(path: Path, seed: int) -> Path:
    grey = np.random.default_rng(seed).integers(40, 90, (80, 96, 1), np.uint8)
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(path)
    return path


def test_a_carried_model_takes_its_normal_images_along(tmp_path: Path) -> None:
    normals = [_grainy(tmp_path / f"good{index}.png", index) for index in range(3)]
    parts = [draw_part(tmp_path / "part.png", blemish=True), _grainy(tmp_path / "other.png", 9)]
    detector = load()
    detector.remember(normals)
    for normal in normals:
        normal.unlink()
    scorer = RowScorer(CarriedModel(detector))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        away = pool.submit(scorer.rows, parts).result()
    here = scorer.rows(parts)
    assert [plain(row) for row in away] == [plain(row) for row in here]
    alone = RowScorer().rows(parts)
    assert [row.score for row in alone] != [row.score for row in here]
    assert alone[0].key != here[0].key


def test_row_scorer_takes_paths_and_contents_and_answers_errors_as_rows(toy: ToyDetector, tmp_path: Path) -> None:
    part = draw_part(tmp_path / "part.png", blemish=True)
    by_path, by_content, absent, broken = RowScorer().rows([str(part), part.read_bytes(), tmp_path / "no.png", b"?"])
    assert (by_path.decision, by_path.threshold, by_path.path) == ("anomalous", 0.3, str(part))
    assert (by_content.image, by_content.score, by_content.regions) == ("image 1", by_path.score, by_path.regions)
    assert (absent.decision, absent.error) == ("failed", "no such file")
    assert (broken.image, broken.decision) == ("image 3", "failed")


def test_row_scorer_without_a_model_fails_rows_and_refuses_to_open(tmp_path: Path) -> None:
    scorer = RowScorer(ModelSpec(str(tmp_path / "nowhere"), offline=True))
    rows = scorer.rows([draw_part(tmp_path / "part.png"), b"?"])
    assert [row.decision for row in rows] == ["failed", "failed"]
    assert "nowhere" in str(rows[0].error)
    with pytest.raises(ad_dinov3.AdDinoError, match="nowhere"):
        scorer.open()


@pytest.mark.parametrize(("kind", "sizes"), [("one", [8, 4, 4]), ("memory", [8, 4])])
def test_a_batch_that_ends_in_an_error_costs_only_the_image_to_blame(
    toy: ToyDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sizes: list[int]
) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    calls: list[int] = []
    plain_score = ToyDetector.score

    def score(self: ToyDetector, batch: NDArray[np.uint8], class_names: Sequence[str]) -> RawScores:
        calls.append(len(batch))
        if kind == "memory" and len(batch) > 4:
            raise OutOfMemoryError("no memory")
        if kind == "one" and (batch.max(axis=(1, 2, 3)) == 255).any():
            raise RuntimeError("blemishes are beyond me")
        return plain_score(self, batch, class_names)

    monkeypatch.setattr(ToyDetector, "score", score)
    parts = [draw_part(tmp_path / f"{index}.png", blemish=index == 5) for index in range(8)]
    scorer = RowScorer(options=DriveOptions(rule=DecisionRule(0.3), batch_size=8, threads=1))
    rows = scorer.rows(parts)
    assert [row.image.rpartition("/")[2] for row in rows] == [path.name for path in parts]
    assert calls[: len(sizes)] == sizes
    failed = [row.error for row in rows if row.decision == "failed"]
    assert failed == (["blemishes are beyond me"] if kind == "one" else [])
    if kind == "memory":
        calls.clear()
        scorer.rows(parts)
        assert calls == [4, 4]


def test_row_of_a_scorer_is_one_line_of_results(toy: ToyDetector, tmp_path: Path) -> None:
    (row,) = RowScorer().rows([draw_part(tmp_path / "part.png", blemish=True)])
    assert list(json.loads(json.dumps(asdict(row)))) == list(Row.__dataclass_fields__)
