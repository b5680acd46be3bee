"""A tiny random CLIP in OpenAI's layout, and its formulas written as plain loops in float64, for comparison."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "encoders"))
from clip_models import tiny_tokenizer

WIDTH, TEXT_WIDTH, SHARED, HEADS = 128, 128, 48, 2  # OpenAI's layout implies heads of 64 channels
BLOCKS, TEXT_BLOCKS, PATCH, SIDE = 6, 4, 4, 6
POSITIONS = 77
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64)[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64)[:, None, None]

State = dict[str, Tensor]


def save_clip(folder: Path, seed: int = 0) -> State:
    """Write clip.pt in OpenAI's layout and a tokenizer into a folder; the state."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    state = random_state(len(tokenizer), seed)
    torch.save(state, folder / "clip.pt")
    return state


def random_state(vocabulary: int, seed: int = 0) -> State:
    draw = torch.Generator().manual_seed(seed)

    def noise(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(*shape, generator=draw)

    state = {
        "visual.class_embedding": noise(WIDTH),
        "visual.positional_embedding": noise(SIDE * SIDE + 1, WIDTH),
        "visual.conv1.weight": noise(WIDTH, 3, PATCH, PATCH),
        "visual.proj": noise(WIDTH, SHARED),
        "token_embedding.weight": noise(vocabulary, TEXT_WIDTH),
        "positional_embedding": noise(POSITIONS, TEXT_WIDTH),
        "text_projection": noise(TEXT_WIDTH, SHARED),
        "logit_scale": torch.tensor(4.6),
    }
    for name in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{name}.weight": 1 + noise(WIDTH), f"{name}.bias": noise(WIDTH)}
    for tower, blocks, width in (("visual.", BLOCKS, WIDTH), ("", TEXT_BLOCKS, TEXT_WIDTH)):
        for index in range(blocks):
            prefix = f"{tower}transformer.resblocks.{index}"
            shapes = {"attn.in_proj": 3 * width, "attn.out_proj.": width, "mlp.c_fc.": 2 * width}
            state[f"{prefix}.attn.in_proj_weight"] = noise(shapes["attn.in_proj"], width, scale=0.1)
            state[f"{prefix}.attn.in_proj_bias"] = noise(shapes["attn.in_proj"])
            state[f"{prefix}.attn.out_proj.weight"] = noise(width, width, scale=0.1)
            state[f"{prefix}.attn.out_proj.bias"] = noise(width)
            state[f"{prefix}.mlp.c_fc.weight"] = noise(2 * width, width, scale=0.1)
            state[f"{prefix}.mlp.c_fc.bias"] = noise(2 * width)
            state[f"{prefix}.mlp.c_proj.weight"] = noise(width, 2 * width, scale=0.1)
            state[f"{prefix}.mlp.c_proj.bias"] = noise(width)
            for norm in ("ln_1", "ln_2"):
                state |= {f"{prefix}.{norm}.weight": 1 + noise(width), f"{prefix}.{norm}.bias": noise(width)}
    return state


def norm(state: State, name: str, tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def attention(state: State, prefix: str, tokens: Tensor, kind: str = "qk", causal: bool = False) -> Tensor:
    """One sequence (T, C) through a block's attention, head by head and token by token; kind ``vv`` is DPAM's."""
    query, key, value = (
        tokens @ weight.T + bias
        for weight, bias in zip(
            state[f"{prefix}.attn.in_proj_weight"].chunk(3), state[f"{prefix}.attn.in_proj_bias"].chunk(3), strict=True
        )
    )
    if kind == "vv":
        query = key = value
    width = tokens.shape[1] // HEADS
    mixed = torch.zeros_like(tokens)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for row in range(len(tokens)):
            seen = row + 1 if causal else len(tokens)
            weights = torch.softmax(key[:seen, part] @ query[row, part] * width**-0.5, 0)
            mixed[row, part] = weights @ value[:seen, part]
    return mixed @ state[f"{prefix}.attn.out_proj.weight"].T + state[f"{prefix}.attn.out_proj.bias"]


def mlp(state: State, prefix: str, tokens: Tensor, activation: str) -> Tensor:
    hidden = tokens @ state[f"{prefix}.mlp.c_fc.weight"].T + state[f"{prefix}.mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden) if activation == "quick_gelu" else F.gelu(hidden)
    return hidden @ state[f"{prefix}.mlp.c_proj.weight"].T + state[f"{prefix}.mlp.c_proj.bias"]


def block(state: State, prefix: str, tokens: Tensor, activation: str, causal: bool = False) -> Tensor:
    tokens = tokens + attention(state, prefix, norm(state, f"{prefix}.ln_1", tokens), causal=causal)
    return tokens + mlp(state, prefix, norm(state, f"{prefix}.ln_2", tokens), activation)


def visual(index: int) -> str:
    return f"visual.transformer.resblocks.{index}"


def embedded(state: State, image: Tensor, resize: str) -> Tensor:
    """CLS and patch tokens (1 + h*w, C) of one (3, H, W) uint8 image as they enter the first block."""
    pixels = (image.double() / 255 - MEAN) / STD
    rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
    kernel = state["visual.conv1.weight"].flatten(1)
    patches = [
        kernel @ pixels[:, PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)].flatten()
        for i in range(rows)
        for j in range(columns)
    ]
    table = state["visual.positional_embedding"]
    square = table[1:].reshape(SIDE, SIDE, WIDTH).permute(2, 0, 1)[None]
    mode, _, antialias = resize.partition("_")
    if (rows, columns) != (SIDE, SIDE):
        square = F.interpolate(square, (rows, columns), mode=mode, align_corners=False, antialias=bool(antialias))
    positions = torch.cat([table[:1], square[0].permute(1, 2, 0).reshape(-1, WIDTH)])
    tokens = torch.stack([state["visual.class_embedding"], *patches]) + positions
    return norm(state, "visual.ln_pre", tokens)


def project(state: State, token: Tensor) -> Tensor:
    return norm(state, "visual.ln_post", token) @ state["visual.proj"]


def text_embedding(state: State, ids: list[int], activation: str, deep: list[Tensor] | None = None) -> Tensor:
    """One sentence; ``deep[i]`` takes the place of positions 1.. before block i + 1."""
    return text_from(state, state["token_embedding.weight"][ids], ids.index(max(ids)), activation, deep or [])


def text_from(state: State, tokens: Tensor, end: int, activation: str, deep: list[Tensor]) -> Tensor:
    tokens = tokens + state["positional_embedding"][: len(tokens)]
    for index in range(TEXT_BLOCKS):
        if index >= 1 and index - 1 < len(deep):
            tokens = tokens.clone()
            for place, learned in enumerate(deep[index - 1]):
                tokens[1 + place] = learned
        tokens = block(state, f"transformer.resblocks.{index}", tokens, activation, causal=True)
    return norm(state, "ln_final", tokens)[end] @ state["text_projection"]


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def double(state: State) -> State:
    return {name: tensor.double() for name, tensor in state.items()}


def images(count: int, height: int = 36, width: int = 36, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=draw, dtype=torch.uint8)
