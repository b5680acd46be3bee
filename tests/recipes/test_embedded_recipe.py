"""The recipe of the embedded model: resumable to the bit, and what it packages computes what it trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ad_dinov3.model import load_model, save_model
from recipes.embedded import calibrate, make, package, pool, samples, train

PAIRS = 2


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plain pairs; there are no data sets and no photographs here."""
    folder = tmp_path_factory.mktemp("pools")
    pool.fill_pool(folder / "no-data", "plain", folder / "plain", PAIRS)
    pool.fill_pool(folder / "no-data", "photo", folder / "photo", PAIRS)
    return folder


def trained(pools: Path, out: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The averaged weights of four steps, interrupted after each of ``stops``."""
    out.mkdir(exist_ok=True)
    recipe = train.Recipe("none", 4, seed=3, pairs=1)
    chosen, shares = train.chosen_pools(pools, recipe)
    for stop in (*stops, recipe.steps):
        run = train.Run(recipe)
        run.resume(out)
        while run.step < stop:
            run.advance(*train.batch(chosen, shares, recipe, run.step))
        run.save(out)
    run.export(out)
    state: dict[str, torch.Tensor] = run.average.state_dict()
    return state


def test_a_pair_is_one_scene_without_and_with_a_defect() -> None:
    for name in ("rendered", "plain"):
        (clean, nothing), (spoilt, mask) = samples.pairs_of(Path("no-data"), name)(3)
        changed = np.abs(clean - spoilt).mean(2)
        assert not nothing.any()
        assert mask.any()
        assert changed[mask > 0].mean() > 3 * changed[mask == 0].mean()


def test_pairs_are_of_their_index_alone() -> None:
    draw = samples.pairs_of(Path("no-data"), "plain")
    first, again = draw(5), (draw(6), draw(5))[1]
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_a_pool_holds_what_the_head_sees_of_its_pairs(pools: Path) -> None:
    opened = pool.open_pool(pools / "plain")
    assert len(opened) == PAIRS
    drawn = [sample for i in range(PAIRS) for sample in samples.pairs_of(pools, "plain")(i)]
    images = np.stack([np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8) for image, _ in drawn])
    tokens, masks = opened.pairs(np.array([1]))
    assert masks.shape == (2, 64, 64)
    for stored, expected in zip(tokens, pool.encoded(images), strict=True):
        torch.testing.assert_close(stored, expected[2:].float(), atol=0.02, rtol=0.01)


def test_photographs_that_are_not_there_make_no_pool(pools: Path) -> None:
    assert not (pools / "photo").exists()
    _, shares = train.chosen_pools(pools, train.Recipe("none"))
    assert sum(shares) == pytest.approx(1)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(pools: Path, tmp_path: Path) -> None:
    unbroken, resumed = trained(pools, tmp_path / "a", ()), trained(pools, tmp_path / "b", (1, 3))
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_the_packaged_model_gives_the_map_that_was_trained(
    pools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(pools, tmp_path / "run", ())
    arguments = ["--run", tmp_path / "run", "--data", tmp_path, "--model", tmp_path / "model"]
    monkeypatch.setattr(sys, "argv", ["package", *map(str, arguments)])
    package.main()
    model = load_model(tmp_path / "model", offline=True)
    assert model.config.train.seed == 3
    run = train.Run(train.Recipe("none", 4, seed=3, pairs=1))
    run.resume(tmp_path / "run")
    tokens, _ = pool.open_pool(pools / "plain").pairs(np.arange(PAIRS))
    drawn = [sample for i in range(PAIRS) for sample in samples.pairs_of(pools, "plain")(i)]
    images = torch.from_numpy(np.stack([np.clip(image * 255 + 0.5, 0, 255) for image, _ in drawn]).astype(np.uint8))
    with torch.no_grad():
        expected = train.margins(run.average, tokens).mean(0).sigmoid()
    found = model.score(images.permute(0, 3, 1, 2).contiguous(), ["object"] * len(images)).patch_map
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def kind(name: str, normal: list[float], anomalous: list[float]) -> calibrate.Kind:
    """A kind whose image scores are these logits."""
    scores = np.array([*normal, *anomalous])[:, None]
    label = np.arange(len(scores)) >= len(normal)
    return calibrate.Kind(name, scores, label, np.exp(-np.square(np.linspace(-4, 8, 241) - 1)))


def test_the_score_is_cut_where_one_normal_image_in_ten_lies_above() -> None:
    kinds = [kind("a", [k / 10 for k in range(20)], [3.0, 0.0]), kind("b", [-1.0], [2.0])]
    cut = calibrate.score_cut(kinds, 0.0)
    assert cut == pytest.approx(1.55)  # the mean of 4 in 20 and 0 in 1
    assert kinds[0].rates(0.0, cut) == (0.2, 0.5)
    assert kinds[0].rates(1.0, cut - 1.0) == (0.2, 0.5)  # lower maps, lower scores
    by_the_others = calibrate.held_out(kinds, 0.0)
    assert by_the_others["a"] == (1.0, 1.0)  # b's one normal image lies at -1
    assert calibrate.map_cut(kinds) == pytest.approx(1.0)


def test_moving_a_model_makes_the_chosen_cuts_its_half(pools: Path, tmp_path: Path) -> None:
    trained(pools, tmp_path / "run", ())
    model = package.packaged(tmp_path / "run", tmp_path)
    save_model(model, tmp_path / "model")
    calibrate.move(tmp_path / "model", tmp_path / "moved", 0.5, -0.25)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    before, after = (one.score(images, ["object"] * 2) for one in (model, load_model(tmp_path / "moved", offline=True)))
    torch.testing.assert_close(after.patch_map.logit(), before.patch_map.logit() - 0.5, atol=1e-3, rtol=0)
    scores = (before.patch_map.logit() - 0.5).sigmoid().flatten(1).amax(1).logit() + 0.25  # one cell of 64 is the top
    torch.testing.assert_close(after.image_score.logit(), scores, atol=1e-3, rtol=0)


def small_sets(root: Path) -> None:
    """The seven sets with four normal and four anomalous images of 64 px each, and three photographs."""
    rng = np.random.default_rng(0)
    for name in samples.SETS:
        for index in range(4):
            image = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
            save(root / name / "thing" / "test" / "good" / f"{index}.png", image)
            box = np.zeros((64, 64), np.uint8)
            box[8 * index : 8 * index + 20, 20:40] = 255
            image[box > 0] //= 3
            save(root / name / "thing" / "test" / "hole" / f"{index}.png", image)
            save(root / name / "thing" / "ground_truth" / "hole" / f"{index}_mask.png", box)
    for index in range(3):
        photograph = rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)
        save(root / samples.PHOTOS / "photo" / "train" / "good" / f"{index}.jpg", photograph)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.slow
def test_the_one_command_makes_models_thresholds_and_rows_and_goes_on_where_it_was(tmp_path: Path) -> None:
    small_sets(tmp_path / "data")
    places = (tmp_path / "data", tmp_path / "runs", tmp_path / "results")
    options = [word for pair in zip(("--data", "--runs", "--results"), map(str, places), strict=True) for word in pair]
    command = [sys.executable, "-m", "recipes.embedded.make", "--small", *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    names = {f"{fold}_{what}.jsonl" for fold in "ab" for what in ("embedded_0", "mahalanobis")}
    assert {path.name for path in (tmp_path / "results").iterdir()} == names
    shipped = load_model(tmp_path / "runs" / "all_0" / "calibrated", offline=True)
    assert shipped.config.trained_on == (*samples.SETS, samples.PHOTOS)
    report = tmp_path / "runs" / "thresholds.json"
    cuts = report.read_text()
    assert shipped.config.method.score_offset == pytest.approx(json.loads(cuts)["score"], abs=1e-3)
    report.unlink()  # as if it had been stopped while the thresholds were moved
    heads = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*.safetensors")}
    make.Making(*places, make.SMALL).thresholds()
    assert report.read_text() == cuts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*.safetensors")} == heads
