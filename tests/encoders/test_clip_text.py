"""CLIP's text tower against transformers: tokens, embeddings, and the layouts of OpenAI and OpenCLIP."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Literal

import plain_clip
import pytest
import torch
from clip_models import HEADS, POSITIONS, tiny_clip
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from ad_dinov3.encoders.clip_text import load_clip_text
from ad_dinov3.encoders.prompts import DEFAULT_PROMPTS
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.weights import is_clip, load_clip_weights, resolve_weights, tensor_names

SENTENCES = ["a photo of the damaged metal nut.", "Bottle", "a bad photo: naïve 90% é\u4e2d"]


def plain_embeddings(model: CLIPModel, folder: Path, sentences: list[str]) -> Tensor:
    tokens = CLIPTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.text_projection(model.text_model(**tokens).pooler_output)


def as_openai(model: CLIPModel) -> dict[str, Tensor]:
    """The tensors under OpenAI's names: attention in one matrix, projections the other way round."""
    tensors = model.state_dict()
    written = {
        "logit_scale": tensors["logit_scale"],
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": tensors["text_model.final_layer_norm.weight"],
        "ln_final.bias": tensors["text_model.final_layer_norm.bias"],
        "text_projection": tensors["text_projection.weight"].T.contiguous(),
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        written[f"visual.ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]
        written[f"visual.ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
            for index in range(2):
                old, new = f"{tower}.encoder.layers.{index}.", f"{prefix}transformer.resblocks.{index}."
                parts = [tensors[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                written[f"{new}attn.in_proj_{kind}"] = torch.cat(parts)
                written[f"{new}attn.out_proj.{kind}"] = tensors[f"{old}self_attn.out_proj.{kind}"]
                for theirs, ours in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")):
                    written[f"{new}{ours}.{kind}"] = tensors[f"{old}{theirs}.{kind}"]
                for theirs, ours in (("fc1", "c_fc"), ("fc2", "c_proj")):
                    written[f"{new}mlp.{ours}.{kind}"] = tensors[f"{old}mlp.{theirs}.{kind}"]
    return written


class Holder(nn.Module):
    """A module that holds tensors at dotted names and does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def as_torchscript(tensors: dict[str, Tensor], file: Path) -> None:
    root = Holder()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module: nn.Module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, Holder())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(tensor.half()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; OpenAI's files stay what they are
        torch.jit.trace(root, torch.zeros(1)).save(str(file))


def with_heads(folder: Path) -> None:
    """An OpenCLIP configuration: nothing else in its folder tells the number of heads."""
    model = {"quick_gelu": True, "text_cfg": {"heads": HEADS}}
    (folder / "config.json").unlink()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


def test_tokens_and_embeddings_equal_transformers(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path)
    encoder = load_clip_text(str(tmp_path))
    expected = CLIPTokenizer.from_pretrained(tmp_path)(SENTENCES, padding=True, return_tensors="pt").input_ids
    assert torch.equal(encoder.tokenize(SENTENCES), expected)
    torch.testing.assert_close(encoder.encode_sentences(SENTENCES), plain_embeddings(model, tmp_path, SENTENCES))


def test_vocabulary_and_merges_give_the_tokens_of_tokenizer_json(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    before = load_clip_text(str(tmp_path))
    learned = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(learned["vocab"]))
    lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in learned["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]))
    (tmp_path / "tokenizer.json").unlink()
    assert torch.equal(load_clip_text(str(tmp_path)).tokenize(SENTENCES), before.tokenize(SENTENCES))


def test_many_sentences_equal_one_at_a_time(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    encoder = load_clip_text(str(tmp_path))
    sentences = [*DEFAULT_PROMPTS.sentences("metal_nut").abnormal[:70]]  # more than one chunk
    together = encoder.encode_sentences(sentences)
    alone = torch.cat([encoder.encode_sentences([sentence]) for sentence in sentences])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert encoder.encode_sentences([]).shape == (0, 20)


def test_activation_is_what_the_files_say_unless_set(tmp_path: Path) -> None:
    exact = tiny_clip(tmp_path / "gelu", activation="gelu")
    quick = tiny_clip(tmp_path / "quick", activation="quick_gelu")  # the same tensors
    expected = plain_embeddings(exact, tmp_path / "gelu", SENTENCES)
    torch.testing.assert_close(load_clip_text(str(tmp_path / "gelu")).encode_sentences(SENTENCES), expected)
    by_accident = load_clip_text(str(tmp_path / "quick"), activation="gelu")
    torch.testing.assert_close(by_accident.encode_sentences(SENTENCES), expected)
    trained = load_clip_text(str(tmp_path / "quick"))
    torch.testing.assert_close(
        trained.encode_sentences(SENTENCES), plain_embeddings(quick, tmp_path / "quick", SENTENCES)
    )
    assert (trained.encode_sentences(SENTENCES) - expected).abs().max() > 1e-3
    assert trained.fingerprint != by_accident.fingerprint


@pytest.mark.parametrize("prefix", ["", "module.", "text."])
def test_open_clips_names_give_the_same_embeddings(tmp_path: Path, prefix: str) -> None:
    model = tiny_clip(tmp_path)
    expected = plain_embeddings(model, tmp_path, SENTENCES)
    tensors = {name if name.startswith("visual.") else prefix + name: t for name, t in as_openai(model).items()}
    (tmp_path / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    with_heads(tmp_path)
    torch.testing.assert_close(load_clip_text(str(tmp_path)).encode_sentences(SENTENCES), expected)


@pytest.mark.parametrize("towers", ["text", "both"])
def test_training_checkpoint_of_open_clip_is_the_plain_file_with_more_around_it(
    tmp_path: Path, towers: Literal["text", "both"]
) -> None:
    state = plain_clip.save_clip(tmp_path)
    training = {
        "epoch": 3,
        "name": "run",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]},
    }
    torch.save(training, tmp_path / "epoch_3.pt")

    expected = load_clip_weights(resolve_weights(str(tmp_path / "clip.pt")), towers)
    found = load_clip_weights(resolve_weights(str(tmp_path / "epoch_3.pt")), towers)

    assert is_clip(tensor_names(tmp_path / "epoch_3.pt"))
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())
    assert (found.text_config, found.vision_config) == (expected.text_config, expected.vision_config)
    assert any(name.startswith("vision_model.") for name in found.state) == (towers == "both")


def test_openais_torchscript_file_is_read_as_data(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with_heads(tmp_path)
    file = tmp_path / "ViT-tiny.pt"
    as_torchscript(as_openai(model), file)
    assert is_clip(tensor_names(file))
    weights = load_clip_weights(resolve_weights(str(file)), towers="both")
    assert weights.activation == "quick_gelu"
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights.state[name].float(), tensor, atol=2e-3, rtol=2e-3)
    assert weights.vision_config["patch_size"] == 8
    assert weights.vision_config["image_size"] == 32
    embeddings = load_clip_text(str(file)).encode_sentences(SENTENCES)
    torch.testing.assert_close(embeddings, plain_embeddings(model, tmp_path, SENTENCES), atol=3e-2, rtol=3e-2)


def test_only_the_text_tower_is_read(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    names = load_clip_weights(resolve_weights(str(tmp_path))).state
    assert not [name for name in names if name.startswith("vision")]


def test_weights_that_do_not_tell_their_activation_are_refused(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path)
    (tmp_path / "config.json").unlink()
    save_file(as_openai(model), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="does not tell its activation"):
        load_clip_text(str(tmp_path))


def test_a_missing_tokenizer_is_named_with_the_remedy(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json, or vocab\.json and merges\.txt"):
        load_clip_text(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_clip_text(str(tmp_path))


def test_a_backbone_is_not_taken_for_a_clip(tmp_path: Path) -> None:
    save_file({"patch_embed.proj.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"found patch_embed\.proj\.weight"):
        load_clip_text(str(tmp_path))


def test_a_prompt_longer_than_the_tower_is_refused(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    with pytest.raises(ConfigError, match=f"at most {POSITIONS} tokens"):
        load_clip_text(str(tmp_path)).encode_sentences(["metal " * POSITIONS])
