"""Studies: what they need, training and measuring them on toy data, resuming, their figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_toys import make_row, write_sample
from official_trees import btad, mvtec_ad, visa

from ad_dinov3.bench.paper_figures import figure1, figure3
from ad_dinov3.bench.plan import StudyOptions, plan_study
from ad_dinov3.bench.protocol import PROTOCOLS
from ad_dinov3.bench.reproduce import Reports, run_study
from ad_dinov3.bench.rows import read_metric_rows
from ad_dinov3.bench.studies import STUDIES, Route, Study, Variant
from ad_dinov3.bench.summary import describe_data, seed_summary
from ad_dinov3.errors import ConfigError, DataError

SETTINGS: dict[str, object] = {
    "method.prompts.source": "learned",
    "input.height": 32,
    "input.width": 32,
    "method.width": 16,
    "train.epochs": 1,
    "train.batch_size": 4,
}


@pytest.fixture
def toy_data(tmp_path: Path) -> tuple[str, str]:
    """Folders of a set to train on and of a set to measure on."""
    rng = np.random.default_rng(1)
    for root, count in (("lent", 3), ("own", 4)):
        for index in range(count):
            write_sample(tmp_path / root, "nut", "good", index, rng)
            write_sample(tmp_path / root, "nut", "scratch", 50 + index, rng)
    return str(tmp_path / "lent"), str(tmp_path / "own")


@pytest.fixture
def options(tmp_path: Path, tiny_vit: Path) -> StudyOptions:
    protocol = replace(PROTOCOLS["paper"], size=(32, 32), resamples=20)
    return StudyOptions(
        tmp_path / "out", changes={**SETTINGS, "encoder": str(tiny_vit)}, protocol=protocol, data_roots=(tmp_path,)
    )


def small(name: str, toy_data: tuple[str, str]) -> Study:
    return STUDIES[name].on((toy_data[0],), (toy_data[1],))


def test_routes_are_those_of_the_papers_section_4_1() -> None:
    routes = STUDIES["table1"].routes
    assert [(route.train, len(route.test)) for route in routes] == [(("visa",), 7), (("mvtec_ad",), 1)]
    assert all(not set(route.train) & set(route.test) for study in STUDIES.values() for route in study.routes)


def test_the_component_rows_differ_only_in_aacm() -> None:
    alone, both = (v.config("paper", {}) for v in STUDIES["table2"].variants[1:])
    assert alone.method.loss.aacm == 0.0
    assert alone.with_settings({"method.loss.aacm": both.method.loss.aacm}) == both


def test_missing_data_and_weights_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    plan = plan_study(STUDIES["table2"], StudyOptions(tmp_path / "out", data_roots=(tmp_path,)))
    with pytest.raises(DataError, match="no training data together with test data"):
        plan.check()
    told = {need.name: need.how for need in plan.needs if not need.is_there}
    assert "https://www.mvtec.com" in told["mvtec_ad"]
    assert "huggingface.co" in told["dinov3-vitl16"]


def test_what_is_there_is_planned_and_the_rest_left_out(toy_data: tuple[str, str], options: StudyOptions) -> None:
    study = STUDIES["table1"].on((toy_data[0],), (toy_data[1], "mvtec_ad"))
    plan = plan_study(study, options)
    assert [route.test for route in plan.routes] == [(toy_data[1],)]
    assert [variant.label for variant in plan.variants] == ["AD-DINOv3"]


def test_training_and_test_data_are_replaced_together() -> None:
    with pytest.raises(ConfigError, match="go together"):
        STUDIES["table2"].on(("busi",), ())


def test_table2_is_trained_measured_and_not_trained_twice(toy_data: tuple[str, str], options: StudyOptions) -> None:
    plan = plan_study(small("table2", toy_data), replace(options, seeds=(0, 1)))
    steps: list[str] = []
    rows = run_study(plan, replace(options, seeds=(0, 1)), Reports(step=steps.append))
    assert sum("training" in step for step in steps) == 4  # two trained lines, two seeds
    means = [row for row in rows if row.scope == "mean" and row.metric == "pixel_auroc"]
    assert [row.method for row in means] == ["untrained baseline", *["CMCL alone"] * 2, *["CMCL and AACM"] * 2]
    assert len({row.weights_hash for row in means}) == 5
    assert {row.trained_on for row in means} == {(), ("lent",)}
    again: list[str] = []
    repeated = run_study(plan, replace(options, seeds=(0, 1)), Reports(step=again.append))
    assert not any("training" in step for step in again)
    assert [row.value for row in repeated] == [row.value for row in rows]
    assert len(read_metric_rows(options.out)) == len(rows)


def test_table1_is_made_of_the_papers_sets_that_are_here_and_says_which_are_not(options: StudyOptions) -> None:
    (root,) = options.data_roots or ()
    visa(root / "VisA_20220922")
    mvtec_ad(root / "mvtec_anomaly_detection")
    btad(root / "BTech_Dataset_transformed")
    plan = plan_study(STUDIES["table1"], options)
    assert [(route.train, route.test) for route in plan.routes] == [
        (("visa",), ("btad", "mvtec_ad")),
        (("mvtec_ad",), ("visa",)),
    ]
    steps: list[str] = []
    rows = run_study(plan, options, Reports(step=steps.append))
    assert {(row.method, row.trained_on, row.data) for row in rows} == {
        ("AD-DINOv3", ("visa",), "btad"),
        ("AD-DINOv3", ("visa",), "mvtec_ad"),
        ("AD-DINOv3", ("mvtec_ad",), "visa"),
    }
    assert sum("training" in step for step in steps) == 2
    told = describe_data(plan, None)
    assert "Not made, because it was missing here: mpdd, isic, colondb, clinicdb, tn3k" in told
    assert "vit_base_patch16_plus_clip_240" in told  # WinCLIP's weights


def test_a_model_of_other_settings_is_not_taken_for_this_one(toy_data: tuple[str, str], options: StudyOptions) -> None:
    study = replace(small("table3", toy_data), variants=(Variant("four layers"),))
    run_study(plan_study(study, options), options)
    other = replace(options, changes={**options.changes, "train.epochs": 2})
    with pytest.raises(ConfigError, match="other settings"):
        run_study(plan_study(study, other), other)


def test_figures_are_drawn_for_each_test_set(toy_data: tuple[str, str], options: StudyOptions) -> None:
    plan = plan_study(small("table1", toy_data), options)
    (name, grid), (_, similarities) = *figure3(plan, options), *figure1(plan, options)
    assert name == "own"
    assert grid.width > grid.height > 400
    assert similarities.height > 2 * 224
    assert len(np.unique(np.asarray(grid).reshape(-1, 3), axis=0)) > 100


def test_seed_summary_gives_mean_and_sample_deviation() -> None:
    rows = [make_row(method="CMCL", model=f"seed {i}", value=value) for i, value in enumerate((0.90, 0.92, 0.94))]
    text = seed_summary([*rows, make_row(method="plain", trained_on=(), value=0.5)], ["pixel_auroc"])
    assert "| CMCL | visa | mvtec_ad | 3 | 92.0 ± 2.0 |" in text
    assert "| plain | nothing | mvtec_ad | 1 | 50.0 |" in text


def test_seed_summary_leaves_out_what_the_model_has_seen_and_escapes_names() -> None:
    rows = [make_row(model=f"seed {i}", value=value, seen=i == 2) for i, value in enumerate((0.5, 0.7, 0.99))]
    text = seed_summary([*rows, make_row(method="a|b", value=0.2)], ["pixel_auroc"])
    assert "| ad_dinov3 | visa | mvtec_ad | 2 | 60.0 ± 14.1 |" in text
    assert r"| a\|b | visa | mvtec_ad | 1 | 20.0 |" in text
    assert seed_summary([rows[2]], ["pixel_auroc"]).count("\n") == 2


def test_seed_summary_keeps_trainings_on_different_data_apart() -> None:
    rows = [make_row(trained_on=(name,), value=value) for name, value in (("busi", 0.6), ("mtd", 0.8))]
    text = seed_summary(rows, ["pixel_auroc"])
    assert "| busi | mvtec_ad | 1 | 60.0 |" in text
    assert "| mtd | mvtec_ad | 1 | 80.0 |" in text


def test_what_needs_no_training_counts_once_however_many_routes_end_there(
    toy_data: tuple[str, str], options: StudyOptions
) -> None:
    floor = Variant("floor", "mahalanobis")
    study = replace(STUDIES["table2"], variants=(floor,), routes=(Route(("a",), toy_data[1:]),) * 2)
    seen: list[str] = []
    plan = replace(plan_study(study, options), routes=study.routes)
    rows = run_study(plan, options, Reports(evaluated=lambda evaluation: seen.append(evaluation.rows[0].method)))
    assert len(rows) == len({(row.scope, row.class_name, row.metric) for row in rows})
    assert seen == ["floor", "floor"]
    assert [need.kind for need in plan.needs] == ["data", "data"]
