"""Prompt ensembles: their counts, their words, their file, and the embeddings that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ad_dinov3.encoders.prompts import (
    ADACLIP_PROMPTS,
    DEFAULT_PROMPTS,
    WINCLIP_PROMPTS,
    PromptSet,
    encode_classes,
    read_prompt_file,
)
from ad_dinov3.errors import ConfigError
from ad_dinov3.types import class_words


class LetterCounts:
    """A text encoder that can be computed by hand: how often each of a few letters occurs."""

    fingerprint = "letters"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        self.encoded += sentences
        return torch.tensor([[float(sentence.count(letter)) for letter in "aeiot."] for sentence in sentences])


@pytest.mark.parametrize(
    ("prompts", "normal", "abnormal"),
    [(DEFAULT_PROMPTS, 245, 175), (ADACLIP_PROMPTS, 28, 20), (WINCLIP_PROMPTS, 154, 88)],
)
def test_ensembles_have_the_published_number_of_sentences(prompts: PromptSet, normal: int, abnormal: int) -> None:
    sentences = prompts.sentences("bottle")
    assert (len(sentences.normal), len(sentences.abnormal)) == (normal, abnormal)
    assert len(set(sentences.normal) | set(sentences.abnormal)) == normal + abnormal


def test_sentences_read_as_published() -> None:
    sentences = DEFAULT_PROMPTS.sentences("metal_nut")
    assert "a jpeg corrupted photo of the flawless metal nut." in sentences.normal
    assert "a photo of the cool metal nut without flaw." in sentences.normal
    assert "this is one damaged metal nut in the scene." in sentences.abnormal
    assert "a photo of my broken metal nut." in sentences.abnormal
    assert not any("  " in sentence for sentence in sentences.normal + sentences.abnormal)


def test_class_words_come_from_the_table_then_from_the_folder_name() -> None:
    prompts = PromptSet(("{}",), ("damaged {}",), ("{}.",), class_names={"01": "metal casting"})
    assert prompts.words("01") == "metal casting"
    assert prompts.words("pcb_2__x") == "pcb 2 x"
    assert PromptSet(("{}",), ("damaged {}",), ("{}.",), raw_class_names=True).words("metal_nut") == "metal_nut"
    assert class_words("metal_nut") == "metal nut"


def test_embeddings_are_the_normalised_mean_of_normalised_sentences(tmp_path: Path) -> None:
    encoder = LetterCounts()
    rows = encode_classes(encoder, DEFAULT_PROMPTS, ["metal_nut"], cache_dir=tmp_path)["metal_nut"]
    assert rows.shape == (2, 6)
    for row, sentences in zip(rows, DEFAULT_PROMPTS.sentences("metal_nut"), strict=True):
        total = torch.zeros(6, dtype=torch.float64)
        for sentence in sentences:
            vector = LetterCounts().encode_sentences([sentence])[0].double()
            total += vector / vector.norm()
        torch.testing.assert_close(row.double(), total / total.norm(), atol=1e-6, rtol=1e-6)


def test_a_class_is_encoded_once_and_again_only_after_a_change(tmp_path: Path) -> None:
    encoder = LetterCounts()
    first = encode_classes(encoder, ADACLIP_PROMPTS, ["metal_nut", "metal_nut", "metal nut"], cache_dir=tmp_path)
    assert len(encoder.encoded) == 48  # one class by its words
    assert torch.equal(first["metal_nut"], first["metal nut"])
    again = encode_classes(encoder, ADACLIP_PROMPTS, ["metal_nut"], cache_dir=tmp_path)
    assert len(encoder.encoded) == 48
    assert torch.equal(again["metal_nut"], first["metal_nut"])
    encode_classes(encoder, WINCLIP_PROMPTS, ["metal_nut"], cache_dir=tmp_path)
    assert len(encoder.encoded) == 48 + 242
    encoder.fingerprint = "other"
    encode_classes(encoder, ADACLIP_PROMPTS, ["metal_nut"], cache_dir=tmp_path)
    assert len(encoder.encoded) == 48 + 242 + 48


def test_a_broken_or_unwritable_cache_costs_time_only(tmp_path: Path) -> None:
    encoder = LetterCounts()
    first = encode_classes(encoder, ADACLIP_PROMPTS, ["nut"], cache_dir=tmp_path)
    (cached,) = tmp_path.iterdir()
    cached.write_bytes(b"half")
    assert torch.equal(encode_classes(encoder, ADACLIP_PROMPTS, ["nut"], cache_dir=tmp_path)["nut"], first["nut"])
    file = tmp_path / "file"
    file.write_text("")
    unwritable = encode_classes(encoder, ADACLIP_PROMPTS, ["nut"], cache_dir=file / "below")
    assert torch.equal(unwritable["nut"], first["nut"])


def test_a_prompt_file_overrides_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text(
        'templates = ["an x-ray of {}."]\n[states]\nabnormal = ["cracked {}"]\n[class_names]\n"01" = "metal casting"\n'
    )
    prompts = read_prompt_file(file)
    assert prompts.sentences("01").abnormal == ("an x-ray of cracked metal casting.",)
    assert prompts.normal == DEFAULT_PROMPTS.normal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('template = ["{}"]', "unknown key template; known are class_names, states, templates"),
        ("[states]\nbroken = []", r"unknown key states\.broken"),
        ('templates = ["no place"]', r"exactly one \{\}"),
        ('templates = ["{} and {}"]', r"exactly one \{\}"),
        ('templates = ["{name}"]', r"exactly one \{\}"),
        ("templates = []", "at least one entry in templates"),
        ('templates = "{}"', "list of strings"),
        ("states = 3", r"table \[states\]"),
        ("[class_names]\nnut = 3", "folder_name"),
        ("templates = [", "not a TOML file"),
    ],
)
def test_a_prompt_file_with_a_mistake_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_prompt_file(file)
    assert str(refusal.value).count(str(file)) == 1


def test_a_missing_prompt_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompt_file(tmp_path / "none.toml")
