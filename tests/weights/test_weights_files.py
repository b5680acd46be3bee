"""Reading checkpoints of every form, and refusing those that are broken or could run code."""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ad_dinov3.errors import WeightsError
from ad_dinov3.weights import WeightSource, checkpoint_file, read_tensors, tensor_names
from ad_dinov3.weights.hashes import SUMS, check_hashes, sha256_of, write_sums


class Dangerous:
    """Unpickling it would write a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_touch, (str(self.witness),))


def _touch(path: str) -> None:
    Path(path).write_text("ran")


def test_nested_checkpoints_are_read_with_dotted_names(tmp_path: Path) -> None:
    adapters = {"patch_token_adapter": {"0.fc1.0.weight": torch.ones(2)}, "epoch": 3}
    torch.save(adapters, tmp_path / "released.pth")
    assert list(read_tensors(tmp_path / "released.pth")) == ["patch_token_adapter.0.fc1.0.weight"]


def test_only_wanted_tensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert list(read_tensors(tmp_path / "x.safetensors", lambda name: name == "b")) == ["b"]
    assert set(tensor_names(tmp_path / "x.safetensors")) == {"a", "b"}


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Dangerous(tmp_path / "witness")}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="could run code when loaded") as refusal:
        read_tensors(tmp_path / "bad.pth")
    assert "bad.pth" in str(refusal.value)
    assert not (tmp_path / "witness").exists()


def test_a_torchscript_archive_that_names_other_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/constants.pkl", pickle.dumps(()))
        archive.writestr("bad/data.pkl", pickle.dumps(Dangerous(tmp_path / "witness")))
    with pytest.raises(WeightsError, match="expected a TorchScript archive of tensors only"):
        read_tensors(tmp_path / "bad.pt")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_truncated_files_are_refused_by_name_and_size(tmp_path: Path, name: str, kept: float) -> None:
    file = tmp_path / name
    tensors = {"a": torch.randn(400)}
    save_file(tensors, file) if name.endswith("safetensors") else torch.save(tensors, file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(WeightsError, match="download it again") as refusal:
        read_tensors(file)
    assert f"{name}: expected a complete checkpoint, found {file.stat().st_size} bytes" in str(refusal.value)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_web_page_saved_in_place_of_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html><html>Sign in to continue</html>" * 10)
    with pytest.raises(WeightsError, match="expected a complete checkpoint"):
        read_tensors(tmp_path / name)


def test_an_old_style_pickle_of_objects_is_refused(tmp_path: Path) -> None:
    bad = Dangerous(tmp_path / "witness")
    torch.save(bad, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="could run code when loaded"):
        read_tensors(tmp_path / "old.pth")


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name}: no such file"):
        read_tensors(tmp_path / name)


def test_ordered_dictionaries_and_half_precision_survive(tmp_path: Path) -> None:
    state = collections.OrderedDict(a=torch.arange(6).half().reshape(2, 3).T)
    torch.save(state, tmp_path / "x.pt")
    assert torch.equal(read_tensors(tmp_path / "x.pt")["a"], state["a"])


def test_a_folder_with_several_checkpoints_asks_for_one(tmp_path: Path) -> None:
    for name in ("one.pth", "two.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(WeightsError, match=r"found one\.pth, two\.pth; name the file itself"):
        checkpoint_file(WeightSource("x", tmp_path))
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert checkpoint_file(WeightSource("x", tmp_path))[1].name == "model.safetensors"


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found an empty folder"):
        checkpoint_file(WeightSource("x", tmp_path))


def test_carried_files_are_checked_against_their_list(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, file)
    assert "nothing to compare" in check_hashes(tmp_path, file)[0]
    write_sums(tmp_path)
    assert (tmp_path / SUMS).read_text() == f"{sha256_of(file)}  model.safetensors\n"
    assert SUMS in check_hashes(tmp_path, file)[0]
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="the download is incomplete or the file was changed"):
        check_hashes(tmp_path, file)


def test_the_cache_names_large_files_by_their_hash(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "blob")
    blob = (tmp_path / "blob").rename(tmp_path / sha256_of(tmp_path / "blob"))
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert "Hugging Face cache" in check_hashes(tmp_path, link)[0]
