"""Where weights are looked for, in which order, and what a person is told who has none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_hub import COMMIT, serving
from huggingface_hub import constants

from ad_dinov3.errors import WeightsError
from ad_dinov3.weights import PUBLIC_BACKBONES, PUBLIC_CLIPS, find_local, public_row, resolve_weights
from ad_dinov3.weights.hub import download_snapshot

VITL = "facebook/dinov3-vitl16-pretrain-lvd1689m"
TIMM_VITL = "timm/vit_large_patch16_dinov3.lvd1689m"


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no folder of weights, no login, and no network."""
    monkeypatch.delenv("AD_DINOV3_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    point_at(monkeypatch, "http://127.0.0.1:9")  # nobody answers there


def point_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def cache_file(tmp_path: Path, repository: str, name: str = "model.safetensors") -> Path:
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return file


def test_every_name_of_every_public_model_finds_its_row() -> None:
    names = [name for row in (*PUBLIC_BACKBONES, *PUBLIC_CLIPS) for name in row.names]
    assert len(set(names)) == len(names)
    for row in (*PUBLIC_BACKBONES, *PUBLIC_CLIPS):
        assert all(public_row(name) is row for name in row.names)


def test_the_table_agrees_with_the_published_sizes() -> None:
    rows = {row.name: row for row in PUBLIC_BACKBONES}
    assert len(rows) == 12
    assert rows["dinov3-vitl16"].meta_hash == "8aa4cbdd"
    assert rows["dinov3-vitl16"].hf_id == VITL
    assert rows["dinov3-vitl16"].timm_id == TIMM_VITL
    assert rows["dinov3-vitl16-sat"].mean == (0.430, 0.411, 0.296)
    for row in rows.values():
        if row.kind == "vit":
            assert row.widths[0] % row.heads == 0
            assert row.widths[0] // row.heads in {64, 128}


def test_an_existing_path_comes_before_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vitl16").mkdir()
    source = resolve_weights("vitl16")
    assert (source.path, source.origin, source.name) == (Path("vitl16"), "path", "dinov3-vitl16")


def test_the_embedded_model_needs_no_search() -> None:
    source = resolve_weights("nano", offline=True)
    assert (source.name, source.origin, source.licence) == ("nano", "embedded", "Apache-2.0")


@pytest.mark.parametrize(
    "entry",
    [
        "dinov3-vitl16",
        "vitl16",
        "dinov3-vitl16-pretrain-lvd1689m",
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "vit_large_patch16_dinov3.lvd1689m",
        "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
        "dinov3-vitl16.safetensors",
        "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.safetensors",
    ],
)
def test_the_folder_of_weights_is_searched_for_every_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("AD_DINOV3_WEIGHTS", str(tmp_path))
    (tmp_path / entry).mkdir(parents=True)
    for asked in ("dinov3-vitl16", VITL, TIMM_VITL):
        source = resolve_weights(asked, offline=True)
        assert source.path == tmp_path / entry
        assert source.origin == "folder of AD_DINOV3_WEIGHTS"
        assert source.backbone is not None
    assert find_local("vits16") is None


@pytest.mark.parametrize("repository", [VITL, TIMM_VITL])
def test_the_hugging_face_cache_is_used_for_either_maker(tmp_path: Path, repository: str) -> None:
    file = cache_file(tmp_path, repository)
    source = resolve_weights("vitl16", offline=True)
    assert (source.path, source.origin) == (file.parent, "Hugging Face cache")


def test_a_cache_without_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    cache_file(tmp_path, VITL, "config.json")
    assert find_local("vitl16") is None


@pytest.mark.parametrize("name", ["vitl16", TIMM_VITL, "dinov3-convnext-tiny", "clip-vit-l14-336", "somebody/model"])
def test_offline_says_what_is_missing_and_how_to_get_it(name: str) -> None:
    with pytest.raises(WeightsError, match="nothing is downloaded here") as refusal:
        resolve_weights(name, offline=True)
    message = str(refusal.value)
    assert name in message
    assert "AD_DINOV3_WEIGHTS" in message
    row = public_row(name)
    if row in PUBLIC_BACKBONES:
        for way in ("hf auth login", "Meta's request form", "timm's mirror", "DINOv3 License"):
            assert way in message


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean dinov3-vitl16"):
        resolve_weights("dinov3-vitl17")


def test_without_a_network_one_try_is_made_and_the_ways_are_told() -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"huggingface\.co cannot be reached") as refusal:
        resolve_weights("vitl16")
    assert time.monotonic() - started < 5
    assert "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth" in str(refusal.value)


def test_hub_offline_mode_is_respected_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        resolve_weights("vitl16")


def test_a_gated_model_names_the_login_and_then_the_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {VITL: {"config.json": b"{}", "model.safetensors": b"x"}}
    with serving(files, gated=frozenset({VITL})) as address:
        point_at(monkeypatch, address)
        with pytest.raises(WeightsError, match="gated, and you are not logged in"):
            resolve_weights("vitl16")
        (tmp_path / "token").write_text("hf_x")
        with pytest.raises(WeightsError, match="not accepted yet") as refusal:
            resolve_weights("vitl16")
    assert f"https://huggingface.co/{VITL}" in str(refusal.value)


def test_an_unknown_repository_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as address:
        point_at(monkeypatch, address)
        with pytest.raises(WeightsError, match="somebody/model: no such repository"):
            resolve_weights("somebody/model")


def test_a_download_brings_what_is_needed_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "LICENSE.md": b"terms",
        "pytorch_model.bin": b"no",
    }
    with serving({TIMM_VITL: contents}) as address:
        point_at(monkeypatch, address)
        source = resolve_weights(TIMM_VITL)
        assert source.origin == "download"
        assert sorted(file.name for file in source.path.iterdir()) == ["LICENSE.md", "config.json", "model.safetensors"]
        folder = download_snapshot(TIMM_VITL, "", tmp_path / "carried")
        assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert resolve_weights("vitl16", offline=True).path == source.path
