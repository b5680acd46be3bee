"""The frozen text tower of a CLIP: sentences to embeddings, with the activation as a setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ad_dinov3.config.methods import Activation
from ad_dinov3.encoders.filling import fill, fingerprint
from ad_dinov3.errors import ConfigError, WeightsError
from ad_dinov3.weights import (
    PUBLIC_CLIPS,
    ClipWeights,
    find_local,
    load_clip_weights,
    resolve_weights,
    weights_folder,
)

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection

_CHUNK = 64  # sentences at once; 420 of them at once would hold about a gigabyte for ViT-L


class ClipTextEncoder:
    """A frozen CLIP text tower (a TextEncoder).

    Attributes:
        module: the network of ``transformers``.
        tokenizer: the byte-pair tokenizer, begin and end of text included.
        fingerprint: hex sha256 over weights, activation and tokenizer.
        width: length D of an embedding.
    """

    def __init__(self, module: CLIPTextModelWithProjection, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.module = module
        self.module.train(False)
        self.module.requires_grad_(False)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.width = int(module.text_projection.out_features)

    def to(self, target: torch.device | str) -> ClipTextEncoder:
        """Move the tower to a device, in place, and return this encoder."""
        torch.nn.Module.to(self.module, target)  # the subclass's own is annotated wrongly
        return self

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Token ids (len(sentences), T) int64, padded to the longest sentence.

        Padding needs no mask: the tower is causal and is read at the end-of-text token, which comes before it.

        Raises:
            ConfigError: a sentence with more tokens than the tower has positions.
        """
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        positions = self.module.config.max_position_embeddings
        longest = max(map(len, encoded), default=0)
        for sentence, ids in zip(sentences, encoded, strict=True):
            if len(ids) > positions:
                raise ConfigError(f"expected at most {positions} tokens in a prompt, got {len(ids)}: {sentence!r}")
        return torch.tensor([ids + [ids[-1]] * (longest - len(ids)) for ids in encoded], dtype=torch.int64)

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """One embedding per sentence, (len(sentences), D) float32 on the tower's device, not normalised.

        Raises:
            ConfigError: a sentence with more tokens than the tower has positions.
        """
        device = self.module.text_projection.weight.device
        chunks = [torch.empty(0, self.width, device=device)]
        with torch.no_grad():
            for start in range(0, len(sentences), _CHUNK):
                ids = self.tokenize(sentences[start : start + _CHUNK]).to(device)
                chunks.append(self.module(input_ids=ids).text_embeds.float())
        return torch.cat(chunks)


def load_clip_text(
    name_or_path: str, *, activation: Activation | None = None, offline: bool = False
) -> ClipTextEncoder:
    """A frozen text tower from a public name (``clip-vit-l14-336``), a repository, a folder or a file.

    Args:
        name_or_path: see ``weights.resolve_weights``. Only the text tower's tensors are read.
        activation: ``quick_gelu`` is what OpenAI's weights were trained with; ``gelu`` (exact) is what the released
            code of AD-DINOv3, APRIL-GAN and AdaCLIP runs them with, by accident. By default what the files say.
        offline: never download.

    Raises:
        WeightsError: weights or tokenizer that are missing, broken or of another model.
        ConfigError: no activation given, and the files do not tell it.
    """
    return build_clip_text(load_clip_weights(resolve_weights(name_or_path, offline=offline)), activation)


def build_clip_text(weights: ClipWeights, activation: Activation | None = None) -> ClipTextEncoder:
    """A frozen text tower from tensors that are already read; see ``load_clip_text``."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # slow to import

    chosen = activation or weights.activation
    if chosen is None:
        raise ConfigError(
            f"{weights.path}: the file does not tell its activation; expected 'quick_gelu' (OpenAI's weights) or "
            f"'gelu' (most others) in the setting"
        )
    config = CLIPTextConfig.from_dict({**weights.text_config, "hidden_act": chosen})
    with torch.device("meta"):
        module = CLIPTextModelWithProjection(config)
    text = {name: tensor for name, tensor in weights.state.items() if name.startswith("text_")}
    fill(module, text, weights.path)
    embeddings = module.text_model.embeddings
    positions = torch.arange(config.max_position_embeddings)
    embeddings.position_ids = positions.expand((1, -1))  # computed, not stored, and still on "meta"
    tokenizer = _load_tokenizer(weights.folder)
    settings = {
        "activation": chosen,
        "heads": config.num_attention_heads,
        "eps": config.layer_norm_eps,
        "end": config.eos_token_id,
        "tokenizer": tokenizer.to_str(),
    }
    return ClipTextEncoder(module, tokenizer, fingerprint(text, settings))


def _load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer beside the weights; else that of another CLIP found here, for all of OpenAI's share one."""
    others = (find_local(row.name) for row in PUBLIC_CLIPS)
    folders = [folder, weights_folder(), *(other.path for other in others if other is not None)]
    for candidate in folders:
        if candidate is not None and candidate.is_dir():
            tokenizer = _read_tokenizer(candidate)
            if tokenizer is not None:
                return tokenizer
    raise WeightsError(
        f"{folder}: expected tokenizer.json, or vocab.json and merges.txt, beside the weights; found neither. "
        f"Take them from https://huggingface.co/{PUBLIC_CLIPS[0].hf_id} (all of OpenAI's CLIPs share them)"
    )


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
            from transformers import CLIPTokenizer

            # The library's annotation says strings; its byte-pair model takes pairs.
            tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer  # type: ignore[arg-type]
        else:
            return None
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise WeightsError(f"{folder}: the tokenizer's files cannot be read ({error}); download them again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
