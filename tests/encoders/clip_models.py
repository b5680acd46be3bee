"""A tiny random CLIP with a byte-pair tokenizer of its own, saved as transformers saves it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "damaged",
    "metal",
    "nut",
    "without",
    "flaw",
    "in",
    "scene",
    "bad",
    "good",
    "bottle",
]
POSITIONS = 77
HEADS = 2


def tiny_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer trained on a few words, begin and end of text last in its vocabulary, as CLIP's are."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(alphabet), end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(WORDS * 3, trainer)
    learned = json.loads(trained.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for letter in sorted(alphabet):  # every byte may end a word
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]])


def tiny_clip(folder: Path, activation: str = "quick_gelu") -> CLIPModel:
    """A random CLIP (both towers), saved to ``folder`` with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tower = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": HEADS, "hidden_act": activation}
    text = {
        **tower,
        "hidden_size": 32,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    vision = {**tower, "hidden_size": 40, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval()
    with torch.no_grad():
        for tensor in model.parameters():  # larger than the library's, so that activations differ visibly
            tensor.add_(torch.randn_like(tensor) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
