"""evaluate from images to rows: values against plain computation, resuming, refusing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_toys import BrightnessDetector, subject_with
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from ad_dinov3.bench.board import make_board
from ad_dinov3.bench.metric_table import METRICS, Estimate, Evidence, Metric
from ad_dinov3.bench.protocol import PROTOCOLS, Protocol
from ad_dinov3.bench.rows import MetricRow
from ad_dinov3.bench.run import Tolerance, evaluate, save_maps, score
from ad_dinov3.bench.scoring import ScoringOptions, TestSet, read_scored
from ad_dinov3.bench.tables import to_markdown
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.layouts import list_folder, read_folder
from ad_dinov3.data.masks import load_mask
from ad_dinov3.errors import DataError
from ad_dinov3.files import file_hash
from ad_dinov3.infer.decide import upsample
from ad_dinov3.predict.shards import Shard

SMALL = replace(PROTOCOLS["paper"], name="small", size=(40, 56), resamples=50)


def pick(rows: tuple[MetricRow, ...], scope: str, metric: str, class_name: str = "") -> MetricRow:
    return next(r for r in rows if (r.scope, r.metric, r.class_name) == (scope, metric, class_name))


def of_folder(root: Path) -> TestSet:
    listing = list_folder(root)
    return TestSet("toy", listing.samples, problems=listing.problems)


def plain_scores(data: TestSet, class_name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixel scores and labels of a class, or of all, concatenated without any of the bench's code."""
    detector = BrightnessDetector()
    scores, labels = [], []
    for sample in data.samples:
        if class_name in (None, sample.class_name):
            raw = detector.score(detector.prepare(decode_image(sample.image_path))[None], ["x"])
            scores.append(upsample(raw.maps[0], (40, 56)).ravel())
            labels.append(load_mask(sample, (40, 56)).ravel())
    return np.concatenate(scores), np.concatenate(labels)


def test_rows_hold_the_values_of_scikit_learn_on_the_concatenated_maps(toy: TestSet, tmp_path: Path) -> None:
    rows = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows
    values = []
    for name in ("metal_nut", "tissue"):
        scores, labels = plain_scores(toy, name)
        row = pick(rows, "class", "pixel_auroc", name)
        assert row.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        values.append(row.value)
    assert pick(rows, "mean", "pixel_auroc").value == pytest.approx(np.mean(values))
    scores, labels = plain_scores(toy)
    assert pick(rows, "pooled", "pixel_auroc").value == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert pick(rows, "pooled", "pixel_ap").value == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


def test_every_row_carries_its_interval_and_its_origin(toy: TestSet, tmp_path: Path) -> None:
    row = pick(evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows, "pooled", "pixel_f1_max")
    assert row.value is not None
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.value <= row.high
    assert row.threshold is not None
    assert (row.images, row.anomalous_images, row.pixels, row.classes) == (12, 8, 12 * 40 * 56, 2)
    assert (row.protocol, row.protocol_hash, row.weights_hash) == ("small", SMALL.digest, "b0b0")
    assert "numpy" in row.versions
    assert row.peak_memory_mb > 10


def test_a_class_without_normal_images_has_no_image_metrics_and_the_mean_leaves_it_out(
    toy: TestSet, tmp_path: Path
) -> None:
    rows = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows
    assert pick(rows, "class", "image_auroc", "tissue").value is None
    assert pick(rows, "class", "pixel_auroc", "tissue").value is not None
    assert pick(rows, "mean", "image_auroc").value == pick(rows, "class", "image_auroc", "metal_nut").value


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(toy: TestSet, tmp_path: Path) -> None:
    whole = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path / "whole").rows
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            subject_with(BrightnessDetector(fail_after=7)), toy, SMALL, tmp_path / "cut", ScoringOptions(batch_size=2)
        )
    second = BrightnessDetector()
    resumed = evaluate(subject_with(second), toy, SMALL, tmp_path / "cut").rows
    assert second.scored == 12 - 6
    timeless = [[replace(r, seconds=0.0, peak_memory_mb=0.0) for r in rows] for rows in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_other_weights_share_no_stored_scores(toy: TestSet, tmp_path: Path) -> None:
    evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path)
    other = BrightnessDetector()
    evaluate(subject_with(other, weights_hash="c1c1"), toy, SMALL, tmp_path)
    assert other.scored == 12


def test_shards_divide_the_images_and_the_last_reader_finds_all(toy: TestSet, tmp_path: Path) -> None:
    counts = []
    for index in range(2):
        detector = BrightnessDetector()
        score(subject_with(detector), toy, SMALL, tmp_path, ScoringOptions(shard=Shard(index, 2)))
        counts.append(detector.scored)
        if index == 0:
            with pytest.raises(DataError, match=f"{12 - counts[0]} of 12 images are not scored yet"):
                evaluate(subject_with(detector), toy, SMALL, tmp_path, ScoringOptions(shard=Shard(0, 2)))
    reader = BrightnessDetector()
    evaluate(subject_with(reader), toy, SMALL, tmp_path)
    assert (sum(counts), min(counts) > 0, reader.scored) == (12, True, 0)


def test_batch_size_changes_no_value(toy: TestSet, tmp_path: Path) -> None:
    runs = [
        evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path / str(b), ScoringOptions(batch_size=b)).rows
        for b in (1, 5)
    ]
    assert [r.value for r in runs[0]] == [r.value for r in runs[1]]


def test_training_data_of_the_same_name_is_refused(toy: TestSet, tmp_path: Path) -> None:
    subject = subject_with(BrightnessDetector(), trained_on=("visa", "TOY"))
    with pytest.raises(DataError, match="was trained on toy"):
        evaluate(subject, toy, SMALL, tmp_path)


def test_training_data_of_the_encoder_are_refused_too(toy: TestSet, tmp_path: Path) -> None:
    subject = subject_with(BrightnessDetector(), trained_on=("visa",), encoder_trained_on=("toy",))
    with pytest.raises(DataError, match=r"the encoder of .* was trained on toy"):
        evaluate(subject, toy, SMALL, tmp_path)


def test_one_training_image_under_another_name_is_refused(toy: TestSet, tmp_path: Path) -> None:
    copy = shutil.copy(toy.samples[3].image_path, tmp_path / "renamed.png")
    subject = subject_with(BrightnessDetector(), seen_images=frozenset({file_hash(Path(copy))}))
    with pytest.raises(DataError, match="1 images of toy are among the training or normal images"):
        evaluate(subject, toy, SMALL, tmp_path)


def test_a_broken_image_is_an_error_or_left_out_and_listed(data_root: Path, tmp_path: Path) -> None:
    victim = data_root / "metal_nut" / "test" / "scratch" / "010.png"
    mask = data_root / "metal_nut" / "ground_truth" / "scratch" / "010_mask.png"
    victim.write_bytes(victim.read_bytes()[:200])  # the header is whole, the pixels are not
    data = TestSet("toy", tuple(read_folder(data_root)))
    with pytest.raises(DataError, match=r"1 images cannot be used[\s\S]*010\.png[\s\S]*010_mask\.png"):
        evaluate(subject_with(BrightnessDetector()), data, SMALL, tmp_path)
    result = evaluate(subject_with(BrightnessDetector()), data, SMALL, tmp_path, tolerance=Tolerance(skip_bad=True))
    assert pick(result.rows, "pooled", "pixel_auroc").images == 11
    assert [str(victim) in line and str(mask) in line for line in result.left_out] == [True]


def test_pairs_that_do_not_fit_are_refused_before_scoring_or_left_out_and_listed(
    data_root: Path, tmp_path: Path
) -> None:
    truth = data_root / "metal_nut" / "ground_truth" / "scratch"
    Image.new("L", (9, 9), 255).save(truth / "010_mask.png")
    (truth / "011_mask.png").write_bytes(b"no picture")
    (data_root / "metal_nut" / "test" / "good" / "000.png").write_bytes(b"")
    (truth / "012_mask.png").unlink()
    listing = list_folder(data_root)
    data = TestSet("toy", listing.samples, problems=listing.problems)
    detector = BrightnessDetector()
    with pytest.raises(DataError, match="4 images cannot be used"):
        evaluate(subject_with(detector), data, SMALL, tmp_path)
    assert detector.scored == 0
    result = evaluate(subject_with(detector), data, SMALL, tmp_path, tolerance=Tolerance(skip_bad=True))
    assert pick(result.rows, "pooled", "pixel_auroc").images == detector.scored == 8
    for number in ("010", "011", "012"):
        assert any(f"{number}.png" in line and str(truth) in line for line in result.left_out)


def test_damaged_files_of_the_store_are_made_anew(toy: TestSet, tmp_path: Path) -> None:
    whole = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows
    files = sorted(tmp_path.rglob("*.npz"))
    damage = [b"", files[1].read_bytes()[:300], b"no archive at all", files[3].read_bytes().replace(b"0", b"1")]
    for file, content in zip(files, damage, strict=False):
        file.write_bytes(content)
    again = BrightnessDetector()
    rows = evaluate(subject_with(again), toy, SMALL, tmp_path).rows
    assert again.scored == 4
    assert [row.value for row in rows] == [row.value for row in whole]


def test_a_damaged_file_is_named_where_it_cannot_be_made_anew(toy: TestSet, tmp_path: Path) -> None:
    item = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).items[0]
    item.stored.write_bytes(item.stored.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{item.stored.name}: no scores of .*run the evaluation again"):
        read_scored(item)


def test_the_same_image_twice_is_scored_once_and_counts_twice(toy: TestSet, tmp_path: Path) -> None:
    detector = BrightnessDetector()
    twice = replace(toy, samples=(*toy.samples, toy.samples[0]))
    rows = evaluate(subject_with(detector), twice, SMALL, tmp_path).rows
    assert (detector.scored, pick(rows, "pooled", "pixel_auroc").images) == (12, 13)


def test_nan_is_refused_even_where_bad_images_are_left_out(toy: TestSet, tmp_path: Path) -> None:
    class Lost(BrightnessDetector):
        def score(self, batch, class_names):  # type: ignore[no-untyped-def]
            raw = super().score(batch, class_names)
            return replace(raw, scores=np.full_like(raw.scores, np.nan))

    with pytest.raises(DataError, match=r"\.png: the model answered with NaN"):
        evaluate(subject_with(Lost()), toy, SMALL, tmp_path, tolerance=Tolerance(skip_bad=True))


def test_scores_outside_the_unit_interval_are_refused(toy: TestSet, tmp_path: Path) -> None:
    class Loud(BrightnessDetector):
        def score(self, batch, class_names):  # type: ignore[no-untyped-def]
            raw = super().score(batch, class_names)
            return replace(raw, maps=raw.maps * 9)

    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        evaluate(subject_with(Loud()), toy, SMALL, tmp_path)


def test_classes_with_labels_alone_are_ranked_by_image_and_their_pixels_count_nowhere(
    data_root: Path, tmp_path: Path
) -> None:
    whole = evaluate(subject_with(BrightnessDetector()), of_folder(data_root), SMALL, tmp_path)
    shutil.rmtree(data_root / "metal_nut" / "ground_truth")
    result = evaluate(subject_with(BrightnessDetector()), of_folder(data_root), SMALL, tmp_path)
    scores = [float(np.load(item.stored)["score"]) for item in result.items]
    labels = [item.sample.is_anomalous for item in result.items]
    nuts = [item.sample.class_name == "metal_nut" for item in result.items]
    image = pick(result.rows, "class", "image_auroc", "metal_nut")
    assert image.value == pytest.approx(roc_auc_score(np.array(labels)[nuts], np.array(scores)[nuts]))
    pixel = pick(result.rows, "class", "pixel_auroc", "metal_nut")
    assert (pixel.value, pixel.pixels, pixel.images, pixel.anomalous_images) == (None, 0, 8, 4)
    tissue = pick(whole.rows, "class", "pixel_ap", "tissue").value
    for scope in ("mean", "pooled"):
        assert pick(result.rows, scope, "pixel_ap").value == pytest.approx(tissue)
    assert pick(result.rows, "pooled", "image_auroc").value == pytest.approx(roc_auc_score(labels, scores))
    assert result.rows[0].data_hash != whole.rows[0].data_hash


def test_maps_of_images_without_masks_are_saved_at_the_size_of_evaluation(data_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(data_root / "metal_nut" / "ground_truth")
    for protocol, size in ((SMALL, (56, 40)), (replace(SMALL, size=None), (64, 48))):
        result = evaluate(subject_with(BrightnessDetector()), of_folder(data_root), protocol, tmp_path / "store")
        save_maps(result, protocol, tmp_path / "maps")
        assert Image.open(tmp_path / "maps" / "metal_nut" / "scratch" / "010.png").size == size


def test_a_new_metric_is_a_row_of_the_table_and_its_function(
    toy: TestSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(of: Evidence) -> Estimate:
        return Estimate(of.ranking.positive_total / (of.ranking.positive_total + of.ranking.negative_total))

    monkeypatch.setitem(METRICS, "image_share", Metric("image_share", "image", "share", share, digits=2))
    rows = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows
    assert pick(rows, "pooled", "image_share").value == pytest.approx(8 / 12)
    board = make_board(rows, metrics=tuple(METRICS), scope="pooled")
    assert "### Image share (%)" in to_markdown(board)
    assert "66.67" in to_markdown(board)


def test_words_of_a_class_reach_the_detector(toy: TestSet, tmp_path: Path) -> None:
    detector = BrightnessDetector()
    named = replace(toy, words={"tissue": "skin"})
    evaluate(subject_with(detector), named, replace(SMALL, class_words=(("metal_nut", "steel nut"),)), tmp_path)
    assert set(detector.words) == {"skin", "steel nut"}


def test_native_size_measures_every_pixel_of_the_image(toy: TestSet, tmp_path: Path) -> None:
    protocol = replace(SMALL, size=None)
    row = pick(evaluate(subject_with(BrightnessDetector()), toy, protocol, tmp_path).rows, "pooled", "pixel_auroc")
    assert row.pixels == 12 * 48 * 64


def test_anomalous_images_alone_count_for_pixels_where_the_protocol_says_so(toy: TestSet, tmp_path: Path) -> None:
    protocol = replace(SMALL, images="anomalous")
    row = pick(evaluate(subject_with(BrightnessDetector()), toy, protocol, tmp_path).rows, "pooled", "pixel_auroc")
    assert row.pixels == 8 * 40 * 56


def test_large_sets_are_streamed_and_say_so(toy: TestSet, tmp_path: Path) -> None:
    exact = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path).rows
    streamed = evaluate(subject_with(BrightnessDetector()), toy, replace(SMALL, exact_up_to_px=0), tmp_path).rows
    for metric in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"):
        left, right = pick(exact, "pooled", metric), pick(streamed, "pooled", metric)
        assert (left.estimator, right.estimator) == ("exact", "65536 bins")
        assert right.value == pytest.approx(left.value, abs=1e-3)


def test_legacy_aupro_is_reported_where_the_protocol_asks(toy: TestSet, tmp_path: Path) -> None:
    metrics = [
        {row.metric for row in evaluate(subject_with(BrightnessDetector()), toy, protocol, tmp_path).rows}
        for protocol in (SMALL, replace(SMALL, legacy_aupro=True))
    ]
    assert metrics[1] - metrics[0] == {"pixel_aupro_200"}


def test_data_hash_follows_masks_and_ignores_place(data_root: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        data = TestSet("toy", tuple(read_folder(root)))
        return evaluate(subject_with(BrightnessDetector()), data, SMALL, tmp_path / "store").rows[0].data_hash

    first = digest(data_root)
    moved = shutil.copytree(data_root, tmp_path / "elsewhere" / "toy")
    assert digest(moved) == first
    mask = next((moved / "tissue" / "ground_truth").rglob("*.png"))
    Image.fromarray(np.asarray(Image.open(mask)).T.copy().T[::-1]).save(mask)
    assert digest(moved) != first


def test_maps_are_saved_below_class_and_defect(toy: TestSet, tmp_path: Path) -> None:
    result = evaluate(subject_with(BrightnessDetector()), toy, SMALL, tmp_path / "store")
    save_maps(result, SMALL, tmp_path / "maps")
    saved = np.asarray(Image.open(tmp_path / "maps" / "tissue" / "lesion" / "020.png"))
    assert saved.shape == (40, 56)
    assert saved.dtype == np.uint16
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 12


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate(subject_with(BrightnessDetector()), TestSet("none", ()), Protocol("p"), tmp_path)
