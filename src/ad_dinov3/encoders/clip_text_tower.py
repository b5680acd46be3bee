"""CLIP's text tower on the modules of ``transformers``, for methods that put learned tokens into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection


class ClipTextTower(nn.Module):
    """A CLIP text tower in parts: from token embeddings to the space that texts and images share.

    Args:
        model: the network of ``transformers``; its projection leads from the tower's width C to the shared width D.
    """

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        super().__init__()
        inner = model.text_model
        self.token_embedding = inner.embeddings.token_embedding
        self.position_embedding = inner.embeddings.position_embedding
        self.blocks = inner.encoder.layers
        self.final_norm = inner.final_layer_norm
        self.projection = model.text_projection
        self.width = int(self.position_embedding.embedding_dim)

    def forward(self, embeddings: Tensor, ends: Tensor, deep: Sequence[Tensor] = ()) -> Tensor:
        """Embeddings of N sentences in the shared space, (N, D), not normalised.

        Attention is causal and only the end token is read, so what follows the last end token is not computed.

        Args:
            embeddings: (N, T, C) of the tokens, without positions.
            ends: (N,) position of each sentence's end token.
            deep: learned tokens (N or 1, P, C); the i-th replaces positions 1..P before the block after the i-th.
        """
        length = int(ends.max()) + 1
        tokens = embeddings[:, :length] + self.position_embedding.weight[:length]
        future = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)[None, None]
        for index, block in enumerate(self.blocks):
            if 0 < index <= len(deep):
                learned = deep[index - 1].expand(tokens.shape[0], -1, -1)
                tokens = torch.cat([tokens[:, :1], learned, tokens[:, 1 + learned.shape[1] :]], 1)
            tokens = block(tokens, future)
        last = tokens[torch.arange(tokens.shape[0], device=tokens.device), ends]
        projected: Tensor = self.projection(self.final_norm(last))
        return projected
