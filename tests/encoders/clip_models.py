"""A tiny random CLIP with a byte-pair tokenizer of its own, saved as transformers saves it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
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
    """A byte-pair tokenizer that knows a few words, begin and end of text last in its vocabulary, as in CLIP's."""
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges = []
    for word in WORDS:
        left = word[0]
        for right in [*word[1:-1], f"{word[-1]}</w>"] if len(word) > 1 else []:
            if (left, right) not in merges:
                merges.append((left, right))
                tokens.append(left + right)
            left += right
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)


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
